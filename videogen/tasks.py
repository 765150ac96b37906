"""The table of tasks. A task is a row here, a YAML file in ``configs/`` and a pipeline file.

Nothing here imports torch: a row names its pipeline class, and its ``shape`` function is plain arithmetic.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videogen import config, shapes
from videogen.errors import InputError, nearest
from videogen.geometry import TIME_STRIDE, Shape, floor_frames
from videogen.options import TASK_NAMES
from videogen.shapes import EXTENSION_FPS, REFERENCE_SLOTS, Inputs, SizeTables

if TYPE_CHECKING:
    from videogen.media.reader import InputVideo
    from videogen.models.checkpoints import Checkpoint


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
    """One task.

    Args:
        pipeline: 'module:class' of its pipeline.
        layouts: checkpoint layouts it can read, the published one first (see models/checkpoints.py).
        components: what its pipeline needs -> which component of the checkpoint that is.
        tiny: names of its tiny models in configs/tiny, the default first.
        inputs: flag -> files it takes.
        arguments: options, and fields of the shape, handed to the pipeline under their own names.
        shape: (option values, inputs, size tables) -> what the video will be.
        network: what the transformer must be like (see ``checkpoints.traits``), for checkpoints of the same
            layout to be told apart.
        notes: (option values, those given explicitly, inputs) -> warnings, one line each.
    """

    name: str
    summary: str
    pipeline: str
    layouts: tuple[str, ...]
    components: Mapping[str, str]
    tiny: tuple[str, ...]
    inputs: Mapping[str, Files]
    arguments: tuple[str, ...]
    shape: Callable[[Mapping[str, Any], Inputs, SizeTables], Shape]
    network: Mapping[str, Any]
    notes: Callable[[Mapping[str, Any], Mapping[str, Any], Inputs], Iterator[str]]

    @property
    def config(self) -> Mapping[str, Any]:
        return config.read(self.name)

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

    def defaults(self, checkpoint: "Checkpoint | None" = None) -> dict[str, Any]:
        """Published defaults for the checkpoint found; a tiny model has its own size and length."""
        model = self.model(checkpoint.name) if checkpoint is not None else None
        own = model.defaults if model is not None else {}
        return {**self.config["defaults"], **own, **_tiny(checkpoint).get("defaults", {})}

    def pick(self, values: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
        """The arguments of the pipeline."""
        prompt = values.get("roll_prompts") or values.get("prompt")
        known = (
            dict(values)
            | {"prompt": prompt}
            | {name: getattr(shape, name) for name in ("height", "width", "num_frames", "rolls")}
        )
        return {name: known[name] for name in self.arguments}

    def inputs_of(self, inputs: Inputs) -> dict[str, Any]:
        """Inputs as the pipeline takes them: a list, or where there can be only one, that one or None."""
        return {
            name: list(inputs[name]) if files.most > 1 else next(iter(inputs[name]), None)
            for name, files in self.inputs.items()
        }

    def size_tables(self, checkpoint: "Checkpoint | None" = None) -> SizeTables:
        """Size classes for the checkpoint found."""
        names = [self.config["sizes"], *([_tiny(checkpoint)["sizes"]] if _tiny(checkpoint) else [])]
        return {size: table for name in names for size, table in config.read("sizes")[name].items()}


def _tiny(checkpoint: "Checkpoint | None") -> Mapping[str, Any]:
    """The config of a tiny checkpoint; empty for any other."""
    return config.read(f"tiny/{checkpoint.tiny}") if checkpoint is not None and checkpoint.tiny else {}


WAN_COMPONENTS = {name: name for name in ("transformer", "vae", "text_encoder", "tokenizer")}
# A transformer that sees latents and text, nothing else.
TEXT_ONLY = {"in_channels": 16, "image": False, "audio": False}
RATE_TOLERANCE = 0.01  # frames a second
HIGHEST_ADDNOISE = 60  # of 1000; spec skyreels_v2 section 3


def guidance_notes(values: Mapping[str, Any], explicit: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """Options that have no effect without guidance."""
    del inputs
    if values["guidance_scale"] <= 1:
        for name in ("guidance_scale_img", "negative_prompt"):
            if explicit.get(name) not in (None, "", 1.0):
                yield f"--{name} has no effect while --guidance_scale is 1 or less"


def unguided_notes(values: Mapping[str, Any], explicit: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """The same for tasks that are unguided only at a scale of exactly 1."""
    if values["guidance_scale"] == 1:
        yield from guidance_notes(values, explicit, inputs)


def forcing_notes(values: Mapping[str, Any], explicit: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """Diffusion forcing: what the model was not made for, and how a source is taken."""
    yield from guidance_notes(values, explicit, inputs)
    if values["causal_attention"]:
        yield "--causal_attention: the released weights were not trained for it; expect worse video"
    if values["addnoise_condition"] > HIGHEST_ADDNOISE:
        yield f"--addnoise_condition above {HIGHEST_ADDNOISE} blurs the transition; 20 is published"
    for source in inputs["input_video"]:
        if (given := values.get("num_frames")) and given % TIME_STRIDE != 1:
            yield f"--num_frames {given} counts the overlap and is rounded down to {floor_frames(given)}"
        other_rate = abs(source.fps - values["fps"]) > RATE_TOLERANCE and "fps" not in explicit
        if not values["new_frames_only"] and other_rate:
            yield (
                f"{source.name} has {source.fps:g} frames a second and the file will have {values['fps']}, "
                "as published; --fps changes it"
            )


def extension_notes(values: Mapping[str, Any], explicit: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """Also: what happens to the source's frame rate, and whether its sound can be kept."""
    yield from guidance_notes(values, explicit, inputs)
    (source,) = inputs["input_video"]
    if values["prepend_input"] and (source.width % 2 or source.height % 2):
        yield f"{source.name} is {source.width}x{source.height}; a film needs even sizes, so it loses a line"
    if values["keep_audio"]:
        _check_audio(values, source)
    if values["source_fps"] is None and abs(source.fps - EXTENSION_FPS) > RATE_TOLERANCE:
        yield (
            f"{source.name} has {source.fps:g} frames a second and is continued as if it had "
            f"{EXTENSION_FPS}, as published; --source_fps auto resamples it"
        )


def _check_audio(values: Mapping[str, Any], source: "InputVideo") -> None:
    if not values["prepend_input"]:
        raise InputError("--keep_audio", None, "the new frames have no sound", "add --prepend_input")
    if not source.has_audio:
        raise InputError("--keep_audio", None, f"{source.name} has no sound", "leave it out")
    if values.get("output") and not values["output"].lower().endswith(".mp4"):
        raise InputError("--keep_audio", None, "only an .mp4 has sound", "give --output an .mp4")
    given = values["source_fps"]
    played = EXTENSION_FPS if given is None else given or source.fps
    if abs(source.fps - played) > RATE_TOLERANCE:
        what = f"the sound would not fit {source.fps:g} frames a second played as {played:g}"
        raise InputError("--keep_audio", None, what, "add --source_fps auto")


_EXTENSION: dict[str, Any] = {
    "layouts": ("SkyReels-V3 extension", "diffusers"),
    "tiny": ("skyreels-v3-v2v",),
    "inputs": {"input_video": Files("video", 1, 1)},
    "network": TEXT_ONLY,
    "notes": extension_notes,
}
_WAN_ARGUMENTS = (
    *("prompt", "negative_prompt", "height", "width", "num_frames", "num_inference_steps", "shift"),
    *("sample_solver", "guidance_scale"),
)
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
        tiny=("skyreels-v3-r2v",),
        inputs={"ref_imgs": Files("image", 1, REFERENCE_SLOTS)},
        arguments=(
            *("prompt", "negative_prompt", "height", "width", "num_frames", "num_inference_steps"),
            *("shift", "sample_solver", "guidance_scale", "guidance_scale_img"),
        ),
        shape=shapes.reference_to_video,
        network=TEXT_ONLY,
        notes=guidance_notes,
    ),
    TaskSpec(
        name="single_shot_extension",
        summary="a video goes on in the same shot, 1-30 s (SkyReels-V3)",
        pipeline="videogen.pipelines.single_shot_extension:SingleShotExtensionPipeline",
        components=WAN_COMPONENTS,
        arguments=(*_EXTENSION_ARGUMENTS, "handover"),
        shape=shapes.single_shot_extension,
        **_EXTENSION,
    ),
    TaskSpec(
        name="shot_switching_extension",
        summary="a video goes on with a cut to another shot, 2-5 s (SkyReels-V3)",
        pipeline="videogen.pipelines.shot_switching_extension:ShotSwitchingExtensionPipeline",
        components=WAN_COMPONENTS | {"transformer": "shot_transformer"},
        arguments=_EXTENSION_ARGUMENTS,
        shape=shapes.shot_switching_extension,
        **_EXTENSION,
    ),
    TaskSpec(
        name="text_to_video",
        summary="a video from a text (SkyReels-V2)",
        pipeline="videogen.pipelines.text_to_video:TextToVideoPipeline",
        layouts=("SkyReels-V2", "diffusers"),
        components=WAN_COMPONENTS,
        tiny=("skyreels-v2-t2v",),
        inputs={},
        arguments=_WAN_ARGUMENTS,
        shape=shapes.text_to_video,
        network={**TEXT_ONLY, "fps": False},
        notes=unguided_notes,
    ),
    TaskSpec(
        name="image_to_video",
        summary="a video that begins with an image (SkyReels-V2)",
        pipeline="videogen.pipelines.image_to_video:ImageToVideoPipeline",
        layouts=("SkyReels-V2", "diffusers"),
        components=WAN_COMPONENTS | {"image_encoder": "image_encoder"},
        tiny=("skyreels-v2-i2v",),
        inputs={"input_image": Files("image", 1, 1)},
        arguments=_WAN_ARGUMENTS,
        shape=shapes.image_to_video,
        network={"in_channels": 36, "image": True, "audio": False},
        notes=unguided_notes,
    ),
    TaskSpec(
        name="diffusion_forcing",
        summary="a long video from a text, an image, two images or a video (SkyReels-V2)",
        pipeline="videogen.pipelines.diffusion_forcing:DiffusionForcingPipeline",
        layouts=("SkyReels-V2", "diffusers"),
        components=WAN_COMPONENTS,
        tiny=("skyreels-v2-df",),
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
        shape=shapes.diffusion_forcing,
        network=TEXT_ONLY,
        notes=forcing_notes,
    ),
)
TASKS: dict[str, TaskSpec] = {task.name: task for task in _ROWS}


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
    if name in TASK_NAMES:
        raise InputError("--task_type", name, "not part of this version", f"available: {available}")
    close = nearest(name, TASKS)
    raise InputError(
        "--task_type",
        name,
        f"must be one of {available}",
        f"nearest {close}" if close else "see --list_tasks",
    )
