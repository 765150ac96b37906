"""What families with Wan's transformer have in common."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from videogen.errors import InputError
from videogen.tasks.config import Config
from videogen.tasks.geometry import MAX_POSITIONS, WAN21_GRID, Grid, Roll, Shape, latent_frames
from videogen.tasks.memory_model import FamilyMemory, NetworkMemory, NetworkSize, VaeMemory
from videogen.tasks.options import Options
from videogen.tasks.prompt_text import TextLimits, clean_prompt
from videogen.tasks.sizes import Inputs, Picture, SizeTables, choose_num_frames, choose_size
from videogen.tasks.task_spec import Layout, NetworkTraits

# Squares of the width that a Wan transformer keeps in float32 beside half precision, to embed noise levels.
FLOAT32_SQUARES = 7
PUBLISHED_VAE_WIDTH = 96
WAN21_VAE = VaeMemory(decode=156.0, picture=20.3, video=93.5)

LANDSCAPE = (16, 9)  # width, height
COMPONENTS = {name: name for name in ("transformer", "vae", "text_encoder", "tokenizer")}
# A transformer that sees latents and text, nothing else; and one that sees an image as well.
TEXT_ONLY = NetworkTraits(kind="Wan", in_channels=16, image=False, audio=False, experts=1)
WITH_IMAGE = replace(TEXT_ONLY, in_channels=36, image=True)
# Places in model folders.
PLACES = {
    "transformer": "./",
    "vae": "Wan2.1_VAE.pth",
    "text_encoder": "models_t5_umt5-xxl-enc-bf16.pth",
    "tokenizer": "google/umt5-xxl/",
    "image_encoder": "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
}
MINIATURE_WITH_IMAGE = Layout(  # VAE and text encoder are those of the other tasks
    name="miniature with image",
    places={
        **{name: f"{name}/" for name in COMPONENTS},
        **{name: f"with_image/{name}/" for name in ("transformer", "image_encoder", "audio_encoder")},
    },
)
TEXT = TextLimits(
    tokens={"tokenizer": 511}, clean=clean_prompt
)  # a 512th ends it (spec skyreels_v3 section 3)
ARGUMENTS = (
    *("prompt", "negative_prompt", "height", "width", "num_frames", "num_inference_steps", "shift"),
    *("sample_solver", "guidance_scale"),
)


def text_to_video(options: Options, inputs: Inputs, tables: SizeTables) -> Shape:
    """Return a landscape shape unless --size or --height --width say otherwise."""
    del inputs
    return one_roll(options, tables)


def first_frame_of(inputs: Inputs) -> Picture:
    """Return what the first frame is: an image, or the last of a video."""
    return (*inputs.get("input_image", ()), *inputs.get("input_video", ()))[0]


def one_roll(
    options: Options,
    tables: SizeTables,
    orientation: tuple[int, int] = LANDSCAPE,
    *,
    fit: Callable[[int, int, int], tuple[int, int]] | None = None,
    source: Picture | None = None,
    grid: Grid = WAN21_GRID,
    after_image: bool = False,
) -> Shape:
    """Return a shape of one segment.

    Args:
        fit: (area, width, height) -> size in the ratio of ``source``.
    """
    height, width = choose_size(options, tables, orientation, grid)
    if options.height is None and fit is not None and source is not None:
        height, width = _fitted(fit, height * width, source, grid)
    frames = choose_num_frames(options, options.fps, after_image=after_image)
    roll = Roll(latent_frames=latent_frames(frames), num_frames=frames)
    paired = options.teacache and not options.teacache_fixed  # it counts calls in pairs
    scale = options.guidance_scale
    forwards = 1 if scale in (1, (1, 1)) and not paired else 2
    return Shape(
        height=height, width=width, fps=options.fps, rolls=(roll,), forwards_per_step=forwards, grid=grid
    )


def _fitted(
    fit: Callable[[int, int, int], tuple[int, int]], area: int, source: Picture, grid: Grid
) -> tuple[int, int]:
    try:
        height, width = fit(area, source.width, source.height)
    except ValueError:
        height = width = 0
    if min(height, width) < grid.unit or max(height, width) > MAX_POSITIONS * grid.unit:
        what = f"is {source.width}x{source.height}, too narrow for any size"
        raise InputError(
            "input image", getattr(source, "name", None), what, "crop it, or give --height --width"
        )
    return height, width


def orientation_of(sources: Sequence[Picture]) -> tuple[int, int]:
    """Return (width, height) of 16:9, upright for sources higher than wide (spec skyreels_v2 section 1)."""
    upright = any(source.height > source.width for source in sources)
    return (LANDSCAPE[1], LANDSCAPE[0]) if upright else LANDSCAPE


def wan_network(size: NetworkSize) -> NetworkMemory:
    """Describe a Wan transformer."""
    width, ratio = size.width, size.ffn / max(size.width, 1)
    return NetworkMemory(
        width=width,
        tensors=max(5 + ratio, 7.5),
        streamed=max(4 + 2 * ratio, 8.5),
        layers=size.layers,
        known_first=0,
        float32=FLOAT32_SQUARES * width**2,
        resident=int(1.3 * FLOAT32_SQUARES * width**2),
        text_work=150_000_000,
        largest_layer=2_150_000_000,
    )


def _vae_width(config: Config) -> float:
    return config.get("base_dim", PUBLISHED_VAE_WIDTH)


def _cached_outputs(config: Config) -> int:
    return 3 * config.get("num_layers", 40)  # attention twice, and feed-forward


MEMORY = FamilyMemory(
    vae=WAN21_VAE,
    encoders={"text_encoder": 512, "image_encoder": 257, "audio_encoder": 0},
    float32=("vae", "audio_encoder"),
    vae_width=_vae_width,
    network=wan_network,
    cached_outputs=_cached_outputs,
)
SIZE_AND_LENGTH = ("duration", "fps")  # options
TEACACHE = ("teacache", "teacache_thresh", "use_ret_steps", "teacache_model")  # with published coefficients
