"""The table of tasks. A task is a row here, a YAML file in ``configs/`` and a pipeline file.

Nothing here imports torch: a row names its pipeline class, and its ``shape`` function is plain arithmetic.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from videogen.errors import InputError, nearest
from videogen.tasks import config, sizes
from videogen.tasks.geometry import Shape, crop_sizes
from videogen.tasks.options import OPTIONS, merge
from videogen.tasks.sizes import REFERENCE_SLOTS, Inputs, SizeTables
from videogen.tasks.warnings import (
    avatar_notes,
    concat_notes,
    extension_notes,
    forcing_notes,
    guidance_notes,
    hunyuan_notes,
    unguided_notes,
)


class Found(Protocol):
    """What decides the defaults of a checkpoint: its name, and of a tiny model that of its config."""

    @property
    def name(self) -> str: ...

    @property
    def tiny(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Files:
    """What a task takes under one input flag: files of a kind ('image'), how many at least and at most."""

    kind: str
    fewest: int
    most: int

    def listed(self, given: Any) -> list[Any]:
        """What a Python caller gave, as a list; a list may itself be one video."""
        several = self.most > 1 and isinstance(given, list | tuple)
        return [] if given is None else list(given) if several else [given]

    def check(self, flag: str, task: str, count: int) -> None:
        """Refuse too few or too many.

        Raises:
            InputError: with the number that is allowed.
        """
        allowed = f"{task} takes {self.fewest}" + (f" to {self.most}" if self.most > self.fewest else "")
        if count < self.fewest:
            raise InputError(flag, None, f"none given; {allowed}", f"give {self.fewest} {self.kind}")
        if count > self.most:
            raise InputError(flag, f"({count} {self.kind}s)", allowed, f"leave out {count - self.most}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A published repository: its hub ids, defaults of its own, and its row in configs/published.yaml."""

    names: tuple[str, ...]
    weights: str
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def published(self) -> Mapping[str, Any]:
        """Width of the transformer, weights and bytes per component."""
        return config.read("published")[self.weights]

    def is_named(self, name: str) -> bool:
        """Whether a hub id is one of its own, or a folder carries its name."""
        return any(known == name or known.partition("/")[2] in Path(name).name for known in self.names)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """One task with the models of one family.

    Args:
        family: whose models these are; a task may have several rows, and the checkpoint found decides.
        config_name: of its YAML file.
        pipeline: 'module:class' of its pipeline.
        layouts: checkpoint layouts it can read, the published one first (see models/checkpoints.py).
        components: what its pipeline needs -> which component of the checkpoint that is.
        tiny: name after 'tiny:' -> file in configs/tiny; the first is the default.
        inputs: flag -> files it takes.
        arguments: options, and fields of the shape, handed to the pipeline under their own names.
        shape: (option values, inputs, size tables) -> what the video will be.
        network: what the transformer must be like (see ``checkpoints.model_features``), for checkpoints of
            the same layout to be told apart.
        notes: see notes.py.
        unused: options of the task that these models have no use for.
        describes: without a prompt, a model describes the input video.
        settle: option values -> the same with those that depend on others.
        decided: option -> the only value that these models allow.
        needs: option -> what the transformer must have for it to mean something (see
            ``checkpoints.model_features``).
    """

    name: str
    family: str
    summary: str
    config_name: str
    pipeline: str
    layouts: tuple[str, ...]
    components: Mapping[str, str]
    tiny: Mapping[str, str]
    inputs: Mapping[str, Files]
    arguments: tuple[str, ...]
    shape: Callable[[Mapping[str, Any], Inputs, SizeTables], Shape]
    network: Mapping[str, Any]
    notes: Callable[[Mapping[str, Any], Mapping[str, Any], Inputs], Iterator[str]]
    unused: tuple[str, ...] = ()
    describes: bool = False
    settle: Callable[[dict[str, Any]], dict[str, Any]] = dict
    needs: Mapping[str, str] = field(default_factory=dict)
    decided: Mapping[str, Any] = field(default_factory=dict)

    def uses(self, option: str) -> bool:
        """Whether an option means something for this task with these models."""
        return OPTIONS[option].used_by(self.name) and option not in self.unused

    @property
    def config(self) -> Mapping[str, Any]:
        return config.read(self.config_name)

    @property
    def models(self) -> list[Model]:
        """The published repositories; the first is the default."""
        return [Model(**model | {"names": tuple(model["names"])}) for model in self.config["models"]]

    @property
    def default_model(self) -> str:
        return self.models[0].names[0]

    def model(self, name: str) -> Model | None:
        """The published repository of a hub id or folder name; of several, that of the longest name."""
        named = [model for model in self.models if model.is_named(name)]
        return max(named, key=lambda model: len(model.names[0]), default=None)

    @property
    def revision(self) -> str:
        return self.config["revision"]

    def defaults(self, checkpoint: Found | None = None) -> dict[str, Any]:
        """Published defaults for the checkpoint found; a tiny model has its own size and length."""
        model = self.model(checkpoint.name) if checkpoint is not None else None
        own = model.defaults if model is not None else {}
        values = merge(self.config["defaults"], own, _tiny(checkpoint).get("defaults", {}))
        return {
            name: value if value is None else OPTIONS[name].value(value) for name, value in values.items()
        }

    def pick(self, values: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
        """The arguments of the pipeline."""
        prompt = values.get("roll_prompts") or values.get("prompt")
        known = (
            dict(values)
            | {"prompt": prompt}
            | {"clip_frames": values.get("num_frames")}
            | {name: getattr(shape, name) for name in ("height", "width", "num_frames", "rolls")}
            | {"latent_frames": shape.latent_shape[2]}
        )
        return {name: known[name] for name in self.arguments}

    def inputs_of(self, inputs: Inputs) -> dict[str, Any]:
        """Inputs as the pipeline takes them: a list, or where there can be only one, that one or None."""
        return {
            name: list(inputs[name]) if files.most > 1 else next(iter(inputs[name]), None)
            for name, files in self.inputs.items()
        }

    def size_tables(self, checkpoint: Found | None = None) -> SizeTables:
        """Size classes for the checkpoint found."""
        names = [self.config["sizes"], *([_tiny(checkpoint)["sizes"]] if _tiny(checkpoint) else [])]
        return {
            size: crop_sizes(table) if isinstance(table, int) else table
            for name in names
            for size, table in config.read("sizes")[name].items()
        }


def settle_hunyuan(values: dict[str, Any]) -> dict[str, Any]:
    """Stability unless it was refused, and the shift recommended with it (spec hunyuan section 1)."""
    stable = not values.get("no_i2v_stability", not values.get("i2v_stability", True))
    shift = values.get("shift") or (STABLE_SHIFT if stable else DYNAMIC_SHIFT)
    return {**values, "i2v_stability": stable, "no_i2v_stability": not stable, "shift": shift}


def _tiny(checkpoint: Found | None) -> Mapping[str, Any]:
    """The config of a tiny checkpoint; empty for any other."""
    return config.read(f"tiny/{checkpoint.tiny}") if checkpoint is not None and checkpoint.tiny else {}


STABLE_SHIFT, DYNAMIC_SHIFT = 7.0, 17.0
WAN_COMPONENTS = {name: name for name in ("transformer", "vae", "text_encoder", "tokenizer")}
# A transformer that sees latents and text, nothing else.
TEXT_ONLY = {"kind": "Wan", "in_channels": 16, "image": False, "audio": False, "experts": 1}
TWO_EXPERTS = {**TEXT_ONLY, "experts": 2}
TWO_IMAGE_EXPERTS = {**TWO_EXPERTS, "in_channels": 36}
_EXTENSION: dict[str, Any] = {
    "layouts": ("SkyReels-V3 extension", "diffusers"),
    "family": "SkyReels-V3",
    "tiny": {"skyreels-v3-v2v": "skyreels-v3-v2v"},
    "inputs": {"input_video": Files("video", 1, 1)},
    "network": TEXT_ONLY,
    "notes": extension_notes,
}
_WAN_ARGUMENTS = (
    *("prompt", "negative_prompt", "height", "width", "num_frames", "num_inference_steps", "shift"),
    *("sample_solver", "guidance_scale"),
)
_WAN22_ARGUMENTS = (*_WAN_ARGUMENTS, "boundary")
# What V2's published coefficients and prompt models were not made for.
_V2_ONLY = (
    *("teacache", "teacache_thresh", "use_ret_steps", "teacache_model", "teacache_fixed", "prompt_enhancer"),
    *("vlm_device",),
)
_WAN22_A14B: dict[str, Any] = {
    "family": "Wan2.2 A14B",
    "summary": "",
    "config_name": "wan22-i2v-a14b",
    "pipeline": "videogen.pipelines.wan22_a14b:Wan22A14BPipeline",
    "layouts": ("Wan2.2 A14B", "diffusers"),
    "components": WAN_COMPONENTS | {"transformer_2": "transformer_2"},
    "notes": unguided_notes,
    "unused": _V2_ONLY,
}
_WAN22_5B: dict[str, Any] = {
    "family": "Wan2.2 5B",
    "summary": "",
    "config_name": "wan22-5b",
    "pipeline": "videogen.pipelines.wan22_5b:Wan22TI2V5BPipeline",
    "layouts": ("Wan2.2 5B", "diffusers"),
    "components": WAN_COMPONENTS,
    "tiny": {"wan22-5b": "wan22-5b"},
    "network": {**TEXT_ONLY, "in_channels": 48},
    "notes": unguided_notes,
    "unused": ("boundary", *_V2_ONLY),
}
_V2V: dict[str, Any] = {
    "inputs": {"input_video": Files("video", 1, 1), "input_image": Files("image", 0, 1)},
    "describes": True,
    "unused": (),
}
_HUNYUAN: dict[str, Any] = {
    "name": "hunyuan_image_to_video",
    "summary": "a video that begins with an image (HunyuanVideo)",
    "pipeline": "videogen.pipelines.hunyuan_image_to_video:HunyuanImageToVideoPipeline",
    "layouts": ("HunyuanVideo-I2V", "diffusers"),
    "components": {
        "transformer": "hunyuan_transformer",
        "vae": "hunyuan_vae",
        "text_encoder": "llava",
        "tokenizer": "tokenizer",
        "image_processor": "image_processor",
        "text_encoder_2": "clip_text",
        "tokenizer_2": "tokenizer_2",
    },
    "inputs": {"input_image": Files("image", 1, 1)},
    "arguments": (
        *("prompt", "negative_prompt", "height", "width", "latent_frames", "num_inference_steps", "shift"),
        *("guidance_scale", "embedded_cfg_scale", "i2v_stability", "no_riflex"),
    ),
    "needs": {"embedded_cfg_scale": "guidance"},
    "settle": settle_hunyuan,
}
_EXTENSION_ARGUMENTS = (
    *("prompt", "negative_prompt", "height", "width", "rolls", "num_inference_steps", "shift"),
    *("sample_solver", "guidance_scale", "source_fps", "color_match"),
)
_ROWS = (
    TaskSpec(
        name="reference_to_video",
        summary="a video of the subjects in 1-4 reference images (SkyReels-V3)",
        pipeline="videogen.pipelines.reference_to_video:ReferenceToVideoPipeline",
        layouts=("diffusers",),
        components=WAN_COMPONENTS,
        family="SkyReels-V3",
        config_name="reference_to_video",
        tiny={"skyreels-v3-r2v": "skyreels-v3-r2v"},
        inputs={"ref_imgs": Files("image", 1, REFERENCE_SLOTS)},
        arguments=(
            *("prompt", "negative_prompt", "height", "width", "num_frames", "num_inference_steps"),
            *("shift", "sample_solver", "guidance_scale", "guidance_scale_img"),
        ),
        shape=sizes.reference_to_video,
        network=TEXT_ONLY,
        notes=guidance_notes,
    ),
    TaskSpec(
        name="single_shot_extension",
        config_name="single_shot_extension",
        summary="a video goes on in the same shot, 1-30 s (SkyReels-V3)",
        pipeline="videogen.pipelines.single_shot_extension:SingleShotExtensionPipeline",
        components=WAN_COMPONENTS,
        arguments=(*_EXTENSION_ARGUMENTS, "handover"),
        shape=sizes.single_shot_extension,
        **_EXTENSION,
    ),
    TaskSpec(
        name="shot_switching_extension",
        config_name="shot_switching_extension",
        summary="a video goes on with a cut to another shot, 2-5 s (SkyReels-V3)",
        pipeline="videogen.pipelines.shot_switching_extension:ShotSwitchingExtensionPipeline",
        components=WAN_COMPONENTS | {"transformer": "shot_transformer"},
        arguments=_EXTENSION_ARGUMENTS,
        shape=sizes.shot_switching_extension,
        **_EXTENSION,
    ),
    TaskSpec(
        name="text_to_video",
        config_name="text_to_video",
        family="SkyReels-V2",
        summary="a video from a text (SkyReels-V2, Wan2.2)",
        pipeline="videogen.pipelines.text_to_video:TextToVideoPipeline",
        layouts=("SkyReels-V2", "diffusers"),
        components=WAN_COMPONENTS,
        tiny={"skyreels-v2-t2v": "skyreels-v2-t2v"},
        inputs={},
        arguments=_WAN_ARGUMENTS,
        shape=sizes.text_to_video,
        network={**TEXT_ONLY, "fps": False},
        notes=unguided_notes,
        unused=("boundary",),
    ),
    TaskSpec(
        name="text_to_video",
        arguments=_WAN22_ARGUMENTS,
        inputs={},
        shape=sizes.text_to_video,
        network=TWO_EXPERTS,
        tiny={"wan22-a14b": "wan22-t2v-a14b"},
        **(_WAN22_A14B | {"config_name": "wan22-t2v-a14b"}),
    ),
    TaskSpec(
        name="text_to_video",
        arguments=_WAN_ARGUMENTS,
        inputs={},
        shape=sizes.wan22_5b_text_to_video,
        **_WAN22_5B,
    ),
    TaskSpec(
        name="image_to_video",
        config_name="image_to_video",
        family="SkyReels-V2",
        summary="a video that begins with an image (SkyReels-V2, Wan2.2)",
        pipeline="videogen.pipelines.image_to_video:ImageToVideoPipeline",
        layouts=("SkyReels-V2", "diffusers"),
        components=WAN_COMPONENTS | {"image_encoder": "image_encoder"},
        tiny={"skyreels-v2-i2v": "skyreels-v2-i2v"},
        inputs={"input_image": Files("image", 1, 1)},
        arguments=_WAN_ARGUMENTS,
        shape=sizes.image_to_video,
        network={**TEXT_ONLY, "in_channels": 36, "image": True},
        notes=unguided_notes,
        unused=("boundary",),
    ),
    TaskSpec(
        name="image_to_video",
        arguments=_WAN22_ARGUMENTS,
        inputs={"input_image": Files("image", 1, 1)},
        shape=sizes.wan22_image_to_video,
        network=TWO_IMAGE_EXPERTS,
        tiny={"wan22-a14b": "wan22-i2v-a14b"},
        **_WAN22_A14B,
    ),
    TaskSpec(
        name="image_to_video",
        arguments=_WAN_ARGUMENTS,
        inputs={"input_image": Files("image", 1, 1)},
        shape=sizes.wan22_5b_image_to_video,
        **_WAN22_5B,
    ),
    TaskSpec(
        name="diffusion_forcing",
        config_name="diffusion_forcing",
        family="SkyReels-V2",
        summary="a long video from a text, an image, two images or a video (SkyReels-V2)",
        pipeline="videogen.pipelines.diffusion_forcing:DiffusionForcingPipeline",
        layouts=("SkyReels-V2", "diffusers"),
        components=WAN_COMPONENTS,
        tiny={"skyreels-v2-df": "skyreels-v2-df"},
        inputs={
            "input_image": Files("image", 0, 1),
            "end_image": Files("image", 0, 1),
            "input_video": Files("video", 0, 1),
        },
        arguments=(
            *("prompt", "negative_prompt", "height", "width", "rolls", "fps", "num_inference_steps", "shift"),
            *("sample_solver", "guidance_scale", "ar_step", "causal_block_size", "causal_attention"),
            *("base_num_frames", "overlap_history", "addnoise_condition"),
        ),
        shape=sizes.diffusion_forcing,
        network=TEXT_ONLY,
        notes=forcing_notes,
    ),
    TaskSpec(
        name="talking_avatar",
        family="SkyReels-V3",
        config_name="talking_avatar",
        summary="a portrait speaks (SkyReels-V3)",
        pipeline="videogen.pipelines.talking_avatar:TalkingAvatarPipeline",
        layouts=("SkyReels-V3 avatar", "diffusers"),
        components=WAN_COMPONENTS | {"image_encoder": "image_encoder", "audio_encoder": "audio_encoder"},
        tiny={"skyreels-v3-avatar": "skyreels-v3-avatar"},
        inputs={"input_image": Files("image", 1, 1), "input_audio": Files("audio", 1, 1)},
        arguments=(
            *("prompt", "negative_prompt", "height", "width", "num_inference_steps", "shift"),
            *("guidance_scale", "guidance_scale_audio", "connection_prompt", "motion_frame", "drop_frame"),
            *("max_frames_num", "clip_frames"),
        ),
        shape=sizes.talking_avatar,
        network={**TEXT_ONLY, "in_channels": 36, "image": True, "audio": True},
        notes=avatar_notes,
    ),
    TaskSpec(
        family="HunyuanVideo-I2V",
        shape=sizes.hunyuan_token_replace,
        tiny={"hunyuan": "hunyuan"},
        network={"kind": "HunyuanVideo", "in_channels": 16},
        decided={"i2v_condition_type": "token_replace"},
        notes=hunyuan_notes,
        config_name="hunyuan",
        **_HUNYUAN,
    ),
    TaskSpec(
        family="HunyuanVideo-I2V latent_concat",
        shape=sizes.hunyuan_latent_concat,
        tiny={"hunyuan-latent-concat": "hunyuan-latent-concat"},
        network={"kind": "HunyuanVideo", "in_channels": 33},
        decided={"i2v_condition_type": "latent_concat"},
        notes=concat_notes,
        config_name="hunyuan-33ch",
        **_HUNYUAN,
    ),
    TaskSpec(
        name="v2v-14B",
        arguments=(*_WAN22_ARGUMENTS, "color_match"),
        shape=sizes.wan22_image_to_video,
        network=TWO_IMAGE_EXPERTS,
        tiny={"wan22-a14b": "wan22-i2v-a14b"},
        **(
            _WAN22_A14B
            | {"summary": "a video goes on from the last frame of another (Wan2.2 I2V-A14B)"}
            | _V2V
        ),
    ),
    TaskSpec(
        name="v2v-5B",
        arguments=(*_WAN_ARGUMENTS, "color_match"),
        shape=sizes.wan22_5b_image_to_video,
        **(_WAN22_5B | {"summary": "a video goes on from the last frame of another (Wan2.2 TI2V-5B)"} | _V2V),
    ),
)
VARIANTS: dict[str, tuple[TaskSpec, ...]] = {
    name: tuple(row for row in _ROWS if row.name == name) for name in dict.fromkeys(row.name for row in _ROWS)
}
TASKS: dict[str, TaskSpec] = {name: rows[0] for name, rows in VARIANTS.items()}
"""The row of every task's default model."""


def check_scales(task: TaskSpec, values: Mapping[str, Any]) -> None:
    """Two guidance scales need two experts.

    Raises:
        InputError: there is one.
    """
    if isinstance(values.get("guidance_scale"), tuple) and task.network.get("experts") != 2:
        low, high = values["guidance_scale"]
        what = "two scales are for models with two experts"
        raise InputError("--guidance_scale", f"{low:g},{high:g}", what, f"nearest {high:g}")


def variant(name: str, family: str) -> TaskSpec:
    """The row of a task for the models of a family."""
    (row,) = (row for row in VARIANTS[name] if row.family == family)
    return row


def find(name: str | None) -> TaskSpec:
    """The row of a task.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    if name in TASKS:
        return TASKS[name]
    available = ", ".join(TASKS)
    if name is None:
        raise InputError("--task_type", None, "none given", f"choose one of {available}")
    close = nearest(name, TASKS)
    raise InputError(
        "--task_type",
        name,
        f"must be one of {available}",
        f"nearest {close}" if close else "see --list_tasks",
    )
