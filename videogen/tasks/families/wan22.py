"""Wan2.2: the 14B models with two experts, and the 5B model."""

import math
from dataclasses import replace

from videogen.tasks.config import Config
from videogen.tasks.families import wan
from videogen.tasks.geometry import Grid, Shape, area_size
from videogen.tasks.memory_model import VaeMemory
from videogen.tasks.options import Options
from videogen.tasks.sizes import Inputs, SizeTables
from videogen.tasks.task_spec import DiffusersClasses, Files, Layout, TaskSpec
from videogen.tasks.warnings import unguided_warnings

WAN22_GRID = Grid(channels=48, stride=16)

WAN22_VAE_WIDTH = 256
WAN22_VAE = VaeMemory(decode=209.5, picture=15.4, video=64.2)


def wan22_image_to_video(options: Options, inputs: Inputs, tables: SizeTables) -> Shape:
    """Return the A14B's shape: --size is an area, and the ratio is the image's (spec wan22 section 4)."""
    source, ends = wan.first_frame_of(inputs), bool(inputs.get("end_image"))
    shape = wan.one_roll(options, tables, fit=area_size, source=source, after_image=ends)
    return replace(shape, encoded_frames=shape.num_frames)


def wan22_5b_text_to_video(options: Options, inputs: Inputs, tables: SizeTables) -> Shape:
    """Return the 5B's shape without an image: as --size says."""
    del inputs
    return wan.one_roll(options, tables, grid=WAN22_GRID)


def wan22_5b_image_to_video(options: Options, inputs: Inputs, tables: SizeTables) -> Shape:
    """Return the 5B's shape with an image: of its ratio, in the area that --size says."""
    source = wan.first_frame_of(inputs)
    shape = wan.one_roll(options, tables, fit=covered_size, source=source, grid=WAN22_GRID, after_image=True)
    return replace(shape, encoded_frames=1)


def covered_size(area: int, width: int, height: int) -> tuple[int, int]:
    """Return (height, width) of at most ``area`` pixels near an image's ratio (5B; spec wan22 section 4).

    Of the two sizes that round the width or the height first, the one nearer in ratio.

    Raises:
        ValueError: an image too narrow for any.
    """
    unit, ratio = WAN22_GRID.unit, width / height
    ideal = math.sqrt(area * ratio)
    try:
        wide = int(ideal // unit) * unit
        first = (int(area / wide // unit) * unit, wide)
        high = int(area / ideal // unit) * unit
        second = (high, int(area / high // unit) * unit)
        errors = [max(ratio / (w / h), (w / h) / ratio) for h, w in (first, second)]
    except ZeroDivisionError:
        raise ValueError("too narrow") from None
    return first if errors[0] < errors[1] else second


def _vae_width(config: Config) -> float:
    return config.get("decoder_base_dim", WAN22_VAE_WIDTH) / 4  # it decodes pictures of half the size


TRANSFORMER = "WanTransformer3DModel"
TAKEN_OVER = {TRANSFORMER: "transformer"}
LAYOUTS = (
    Layout(
        name="Wan2.2 A14B",
        markers=("high_noise_model", "low_noise_model"),
        places={**wan.PLACES, "transformer": "high_noise_model/", "transformer_2": "low_noise_model/"},
    ),
    Layout(name="Wan2.2 5B", markers=("Wan2.2_VAE.pth",), places={**wan.PLACES, "vae": "Wan2.2_VAE.pth"}),
)
IMAGE = {"input_image": Files("image", 1, 1)}
IMAGES = {**IMAGE, "end_image": Files("image", 0, 1)}
VIDEO = {"input_video": Files("video", 1, 1), "input_image": Files("image", 0, 1)}
FRESH_OPTIONS = (*wan.SIZE_AND_LENGTH, "prompt_enhancer", "vlm_device")
VIDEO_OPTIONS = (*wan.SIZE_AND_LENGTH, "vlm_path", "vlm_device", "custom_prompt", "save_last_frame")
A14B = TaskSpec(
    name="text_to_video",
    family="Wan2.2 A14B",
    brand="Wan2.2",
    config_name="wan22-t2v-a14b",
    helps={
        "guidance_scale": "text guidance; 1 is off and costs one forward per step; LOW,HIGH: two scales, for "
        "the expert of low noise and that of high noise"
    },
    pipeline="videogen.pipelines.wan22_a14b:Wan22A14BPipeline",
    layouts=("Wan2.2 A14B", "diffusers"),
    components=wan.COMPONENTS | {"transformer_2": "transformer_2"},
    tiny={"wan22-a14b": "wan22-t2v-a14b"},
    arguments=(*wan.ARGUMENTS, "boundary"),
    options=FRESH_OPTIONS,
    shape=wan.text_to_video,
    network=replace(wan.TEXT_ONLY, experts=2),
    warnings=unguided_warnings,
    memory=wan.MEMORY,
    text=wan.TEXT,
    diffusers=DiffusersClasses("WanPipeline", TRANSFORMER),
)
A14B_FROM_IMAGE = replace(
    A14B,
    name="image_to_video",
    config_name="wan22-i2v-a14b",
    tiny={"wan22-a14b": "wan22-i2v-a14b"},
    inputs=IMAGES,
    shape=wan22_image_to_video,
    network=replace(wan.TEXT_ONLY, experts=2, in_channels=36),
    diffusers=DiffusersClasses("WanImageToVideoPipeline", TRANSFORMER),
)
TI2V_5B = replace(
    A14B,
    family="Wan2.2 5B",
    config_name="wan22-5b",
    helps={},
    pipeline="videogen.pipelines.wan22_5b:Wan22TI2V5BPipeline",
    layouts=("Wan2.2 5B", "diffusers"),
    components=wan.COMPONENTS,
    tiny={"wan22-5b": "wan22-5b"},
    arguments=wan.ARGUMENTS,
    shape=wan22_5b_text_to_video,
    network=replace(wan.TEXT_ONLY, in_channels=48),
    memory=replace(wan.MEMORY, vae=WAN22_VAE, vae_width=_vae_width),
)
TI2V_5B_FROM_IMAGE = replace(TI2V_5B, name="image_to_video", inputs=IMAGE, shape=wan22_5b_image_to_video)
TASKS = (
    A14B,
    TI2V_5B,
    A14B_FROM_IMAGE,
    TI2V_5B_FROM_IMAGE,
    *(
        replace(
            row,
            name=name,
            brand=f"Wan2.2 {model}",
            summary="a video goes on from the last frame of another",
            helps={
                **row.helps,
                "prompt": "what the video shows; a model describes the input video unless given",
                "vlm_path": "model that describes the input video (default OpenGVLab/InternVL3_5-8B-HF)",
                "input_image": "the last frame of the input video, where it is at hand without loss",
            },
            inputs=VIDEO,
            arguments=(*row.arguments, "color_match"),
            options=VIDEO_OPTIONS,
            describes=True,
        )
        for name, model, row in (
            ("v2v-14B", "I2V-A14B", A14B_FROM_IMAGE),
            ("v2v-5B", "TI2V-5B", TI2V_5B_FROM_IMAGE),
        )
    ),
)
