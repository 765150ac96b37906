"""HunyuanVideo-I2V, with both ways in which the image gets in."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from videogen.tasks.config import Config
from videogen.tasks.geometry import TIME_STRIDE, Bucket, Grid, Roll, Shape, latent_frames
from videogen.tasks.memory_model import FamilyMemory, NetworkMemory, NetworkSize, VaeMemory
from videogen.tasks.options import Options
from videogen.tasks.prompt_text import TextLimits
from videogen.tasks.sizes import Inputs, SizeTables, choose_num_frames, choose_size
from videogen.tasks.task_spec import DiffusersClasses, Files, Layout, NetworkTraits, TaskSpec
from videogen.tasks.warnings import guidance_warnings

HUNYUAN_GRID = Grid(frames_at_once=65)
CROP_UNIT, CROP_RATIO = 32, 4  # pixels; height to width or width to height at most

HUNYUAN_VAE_WIDTH = 128
HUNYUAN_VAE = VaeMemory(decode=114.0, decode_frame=16.1, picture=24.4, video=24.4)

STABLE_SHIFT, DYNAMIC_SHIFT = 7.0, 17.0

LAST_PLAIN = 192  # frames; spec hunyuan section 6


def hunyuan_image_to_video(
    options: Options, inputs: Inputs, tables: SizeTables, *, dropped: int = 0
) -> Shape:
    """Return a shape whose first latent frame is the image (spec hunyuan section 3).

    Args:
        dropped: frames that are made first and not shown.
    """
    (image,) = inputs["input_image"]
    source = (image.width, image.height)
    height, width = choose_size(options, tables, source, HUNYUAN_GRID, crop_size)
    frames = choose_num_frames(options, options.fps, after_image=True)
    return Shape(
        height=height,
        width=width,
        fps=options.fps,
        rolls=(Roll(latent_frames=latent_frames(frames), num_frames=frames - dropped),),
        forwards_per_step=2 if options.guided else 1,
        grid=HUNYUAN_GRID,
        encoded_frames=1,
        known_first=not dropped,
    )


def hunyuan_latent_concat(options: Options, inputs: Inputs, tables: SizeTables) -> Shape:
    """Return a shape with the image beside the noise: what becomes of its latent frame is not shown."""
    return hunyuan_image_to_video(options, inputs, tables, dropped=TIME_STRIDE)


def hunyuan_warnings(options: Options, asked: Collection[str], inputs: Inputs) -> Iterator[str]:
    """Warn of missing guidance, and of positions that are for long videos."""
    yield from guidance_warnings(options, asked, inputs)
    if options.no_i2v_stability and not {"i2v_stability", "no_i2v_stability"} & {*asked}:
        shift = f"--shift {options.shift:g} is published without stability"
        yield f"{shift}, so it is off; --i2v_stability turns it on"
    if options.no_riflex and "no_riflex" in asked and (options.num_frames or 0) <= LAST_PLAIN:
        yield f"--no_riflex has no effect on videos of {LAST_PLAIN} frames or less"


def concat_warnings(options: Options, asked: Collection[str], inputs: Inputs) -> Iterator[str]:
    """Warn likewise, and of frames that are not shown."""
    yield from hunyuan_warnings(options, asked, inputs)
    yield "the first 4 frames stand for the image and are left out, as published"


def resolve_stability(options: Options) -> Options:
    """Set stability and the shift recommended with it (spec hunyuan section 1).

    Stability is on unless it was refused, or the shift that is published without it was given alone.
    """
    unsaid = options.i2v_stability is None
    wanted = options.shift != DYNAMIC_SHIFT if unsaid else bool(options.i2v_stability)
    stable = wanted and not options.no_i2v_stability
    shift = options.shift or (STABLE_SHIFT if stable else DYNAMIC_SHIFT)
    return options.replace(i2v_stability=stable, no_i2v_stability=not stable, shift=shift)


def hunyuan_network(size: NetworkSize) -> NetworkMemory:
    """Describe a HunyuanVideo transformer; its text changes from block to block."""
    return NetworkMemory(
        width=size.width,
        tensors=16.2,
        streamed=16.2,
        layers=size.layers,
        known_first=0.9,
        float32=0,
        resident=200_000_000,
        text_work=550_000_000,
        largest_layer=1_100_000_000,
    )


def crop_sizes(base: int) -> list[Bucket]:
    """Return the sizes of about ``base`` squared, the highest first (spec hunyuan section 3)."""
    patches = round((base / CROP_UNIT) ** 2)
    sizes, high, wide = [], patches, 1
    while high > 0:
        if max(high, wide) / min(high, wide) <= CROP_RATIO:
            sizes.append((round(high / wide, 5), high * CROP_UNIT, wide * CROP_UNIT))
        if high * (wide + 1) <= patches:
            wide += 1
        else:
            high -= 1
    return sizes


def crop_size(table: Sequence[Bucket], width: int, height: int) -> tuple[int, int]:
    """Return (height, width) of the row nearest in ratio of those less elongated than the source."""
    ratio = height / width
    fitting = [row for row in table if (row[0] <= ratio if ratio >= 1 else row[0] > ratio)]
    _, rows, columns = min(fitting or table, key=lambda row: abs(row[0] - ratio))
    return rows, columns


def _vae_width(config: Config) -> float:
    return next(iter(config.get("block_out_channels", ())), HUNYUAN_VAE_WIDTH)


def _cached_outputs(config: Config) -> int:
    """Return attention and feed-forward of a block, or one for both."""
    return 2 * config.get("num_layers", 20) + config.get("num_single_layers", 40)


_PLACE = "hunyuan-video-i2v-720p/"
TRANSFORMER = "HunyuanVideoTransformer3DModel"
TAKEN_OVER = {TRANSFORMER: "hunyuan_transformer"}
LAYOUTS = (
    Layout(
        name="HunyuanVideo-I2V",
        markers=("hunyuan-video-i2v-720p", "text_encoder_i2v"),
        places={
            "hunyuan_transformer": f"{_PLACE}transformers/",
            "hunyuan_vae": f"{_PLACE}vae/",
            "llava": "text_encoder_i2v/",
            "tokenizer": "text_encoder_i2v/",
            "image_processor": "text_encoder_i2v/",
            "clip_text": "text_encoder_2/",
            "tokenizer_2": "text_encoder_2/",
        },
    ),
)
TOKEN_REPLACE = TaskSpec(
    name="hunyuan_image_to_video",
    family="HunyuanVideo-I2V",
    brand="HunyuanVideo",
    config_name="hunyuan",
    summary="a video that begins with an image",
    pipeline="videogen.pipelines.hunyuan_image_to_video:HunyuanImageToVideoPipeline",
    layouts=("HunyuanVideo-I2V", "diffusers"),
    components={
        "transformer": "hunyuan_transformer",
        "vae": "hunyuan_vae",
        "text_encoder": "llava",
        "tokenizer": "tokenizer",
        "image_processor": "image_processor",
        "text_encoder_2": "clip_text",
        "tokenizer_2": "tokenizer_2",
    },
    tiny={"hunyuan": "hunyuan"},
    inputs={"input_image": Files("image", 1, 1)},
    arguments=(
        *("prompt", "negative_prompt", "height", "width", "latent_frames", "num_inference_steps", "shift"),
        *("guidance_scale", "embedded_cfg_scale", "i2v_stability", "no_riflex"),
    ),
    options=("duration", "fps", "num_frames", "num_videos", "no_i2v_stability", "i2v_condition_type"),
    shape=hunyuan_image_to_video,
    network=NetworkTraits(kind="HunyuanVideo", in_channels=16),
    warnings=hunyuan_warnings,
    memory=FamilyMemory(
        vae=HUNYUAN_VAE,
        encoders={"text_encoder": 0, "text_encoder_2": 0},
        float32=("vae",),
        vae_width=_vae_width,
        network=hunyuan_network,
        cached_outputs=_cached_outputs,
    ),
    text=TextLimits(tokens={"tokenizer": 256, "tokenizer_2": 75}),  # of llava, and of CLIP without its ends
    sizes_of=crop_sizes,
    resolve_defaults=resolve_stability,
    requires={"embedded_cfg_scale": "guidance"},
    fixed_options={"i2v_condition_type": "token_replace"},
    diffusers=DiffusersClasses("HunyuanVideoImageToVideoPipeline", TRANSFORMER),
)
LATENT_CONCAT = replace(
    TOKEN_REPLACE,
    family="HunyuanVideo-I2V latent_concat",
    config_name="hunyuan-33ch",
    tiny={"hunyuan-latent-concat": "hunyuan-latent-concat"},
    shape=hunyuan_latent_concat,
    network=NetworkTraits(kind="HunyuanVideo", in_channels=33),
    warnings=concat_warnings,
    fixed_options={"i2v_condition_type": "latent_concat"},
)
TASKS = (TOKEN_REPLACE, LATENT_CONCAT)
