"""The table of tasks. A task is a row here, a YAML file in ``configs/`` and a pipeline file.

Nothing here imports torch: a row names its pipeline class, and its ``shape`` function is plain arithmetic.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from videogen import config
from videogen.errors import InputError, nearest
from videogen.geometry import Bucket, Shape, choose_num_frames, choose_size
from videogen.options import TASK_NAMES

if TYPE_CHECKING:
    from videogen.models.checkpoints import Checkpoint

Inputs = Mapping[str, Sequence[Any]]
"""Input files of a request, opened and checked (InputImage, ...), by the name of their flag."""
SizeTables = Mapping[str, Sequence[Bucket]]
"""Size classes of a model, by name."""


@dataclass(frozen=True, slots=True)
class Files:
    """What a task takes under one input flag: files of a kind ('image'), how many at least and at most."""

    kind: str
    fewest: int
    most: int

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
class TaskSpec:
    """One task.

    Args:
        pipeline: 'module:class' of its pipeline.
        layouts: checkpoint layouts it can read, the published one first (see models/checkpoints.py).
        components: what it needs of a checkpoint.
        tiny: names of its tiny models in configs/tiny, the default first.
        inputs: flag -> files it takes.
        arguments: options handed to the pipeline under their own names.
        shape: (option values, inputs, size tables) -> what the video will be.
        network: what the transformer's config must say, for checkpoints of the same layout to be told apart.
        notes: (option values, those given explicitly) -> warnings, one line each.
    """

    name: str
    summary: str
    pipeline: str
    layouts: tuple[str, ...]
    components: tuple[str, ...]
    tiny: tuple[str, ...]
    inputs: Mapping[str, Files]
    arguments: tuple[str, ...]
    shape: Callable[[Mapping[str, Any], Inputs, SizeTables], Shape]
    network: Mapping[str, Any]
    notes: Callable[[Mapping[str, Any], Mapping[str, Any]], Iterator[str]]

    @property
    def config(self) -> Mapping[str, Any]:
        return config.read(self.name)

    @property
    def models(self) -> list[str]:
        """Hub ids of the default repository; the first is the default."""
        return self.config["models"]

    @property
    def revision(self) -> str:
        return self.config["revision"]

    def defaults(self, checkpoint: "Checkpoint | None" = None) -> dict[str, Any]:
        """Published defaults for the checkpoint found; a tiny model has its own size and length."""
        return {**self.config["defaults"], **_tiny(checkpoint).get("defaults", {})}

    def size_tables(self, checkpoint: "Checkpoint | None" = None) -> SizeTables:
        """Size classes for the checkpoint found."""
        names = [self.config["sizes"], *([_tiny(checkpoint)["sizes"]] if _tiny(checkpoint) else [])]
        return {size: table for name in names for size, table in config.read("sizes")[name].items()}


def _tiny(checkpoint: "Checkpoint | None") -> Mapping[str, Any]:
    """The config of a tiny checkpoint; empty for any other."""
    return config.read(f"tiny/{checkpoint.tiny}") if checkpoint is not None and checkpoint.tiny else {}


# A transformer that sees latents and text, nothing else.
TEXT_ONLY = {"in_channels": 16, "image_dim": None, "audio_dim": None}
REFERENCE_SLOTS = 4  # the network always sees four reference frames; unused ones are zero


def reference_to_video(values: Mapping[str, Any], inputs: Inputs, tables: SizeTables) -> Shape:
    """Size from the first reference; three forwards per step with guidance (spec skyreels_v3 section 9)."""
    first = inputs["ref_imgs"][0]
    height, width = choose_size(values, tables, (first.width, first.height))
    return Shape(
        height=height,
        width=width,
        num_frames=choose_num_frames(values, values["fps"], REFERENCE_SLOTS),
        fps=values["fps"],
        context_frames=REFERENCE_SLOTS,
        forwards_per_step=3 if values["guidance_scale"] > 1 else 1,
    )


def guidance_notes(values: Mapping[str, Any], explicit: Mapping[str, Any]) -> Iterator[str]:
    """Options that have no effect without guidance."""
    if values["guidance_scale"] <= 1:
        for name in ("guidance_scale_img", "negative_prompt"):
            if explicit.get(name) not in (None, "", 1.0):
                yield f"--{name} has no effect while --guidance_scale is 1 or less"


_ROWS = (
    TaskSpec(
        name="reference_to_video",
        summary="a video of the subjects in 1-4 reference images (SkyReels-V3)",
        pipeline="videogen.pipelines.reference_to_video:ReferenceToVideoPipeline",
        layouts=("diffusers",),
        components=("transformer", "vae", "text_encoder", "tokenizer"),
        tiny=("skyreels-v3-r2v",),
        inputs={"ref_imgs": Files("image", 1, REFERENCE_SLOTS)},
        arguments=(
            *("prompt", "negative_prompt", "num_inference_steps", "shift", "sample_solver"),
            *("guidance_scale", "guidance_scale_img"),
        ),
        shape=reference_to_video,
        network=TEXT_ONLY,
        notes=guidance_notes,
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
