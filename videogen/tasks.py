"""The table of tasks. A task is a row here, a YAML file in ``configs/`` and a pipeline file.

Nothing here imports torch: a row names its pipeline class, and its ``shape`` function is plain arithmetic.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from videogen import configs
from videogen.errors import InputError, nearest
from videogen.geometry import Bucket, Shape, choose_num_frames, choose_size
from videogen.options import TASK_NAMES

if TYPE_CHECKING:
    from videogen.media.image import InputImage

Inputs = Mapping[str, Sequence["InputImage"]]
"""Input files of a request, opened and checked, by the name of their flag."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """One task.

    Args:
        pipeline: 'module:class' of its pipeline.
        layouts: checkpoint layouts it can read, the published one first (see models/checkpoints.py).
        components: what it needs of a checkpoint.
        tiny: names of its tiny models in configs/tiny, the default first.
        inputs: flag -> (fewest, most) files.
        arguments: options handed to the pipeline under their own names.
        shape: (values, inputs, size tables) -> Shape.
    """

    name: str
    summary: str
    pipeline: str
    layouts: tuple[str, ...]
    components: tuple[str, ...]
    tiny: tuple[str, ...]
    inputs: Mapping[str, tuple[int, int]]
    arguments: tuple[str, ...]
    shape: Callable[[Mapping[str, Any], Inputs, Mapping[str, Sequence[Bucket]]], Shape]

    @property
    def config(self) -> Mapping[str, Any]:
        return configs.read(self.name)

    @property
    def models(self) -> list[str]:
        """Hub ids of the default repository; the first is the default."""
        return self.config["models"]

    @property
    def revision(self) -> str:
        return self.config["revision"]

    def defaults(self, tiny: str | None = None) -> dict[str, Any]:
        """Published defaults; a tiny model brings its own size and length."""
        return self.config["defaults"] | (configs.read(f"tiny/{tiny}")["defaults"] if tiny else {})

    def size_tables(self, tiny: str | None = None) -> Mapping[str, Sequence[Bucket]]:
        """Size classes of the model, by name."""
        published = configs.read("sizes")[self.config["sizes"]]
        return published | (configs.read("sizes")[configs.read(f"tiny/{tiny}")["sizes"]] if tiny else {})


REFERENCE_SLOTS = 4  # the network always sees four reference frames; unused ones are zero


def reference_to_video(
    values: Mapping[str, Any], inputs: Inputs, tables: Mapping[str, Sequence[Bucket]]
) -> Shape:
    """Size from the first reference; three forwards per step when guidance is on (spec skyreels_v3 section
    9).
    """
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


TASKS: dict[str, TaskSpec] = {
    task.name: task
    for task in (
        TaskSpec(
            name="reference_to_video",
            summary="a video of the subjects in 1-4 reference images (SkyReels-V3)",
            pipeline="videogen.pipelines.reference_to_video:ReferenceToVideoPipeline",
            layouts=("diffusers",),
            components=("transformer", "vae", "text_encoder", "tokenizer"),
            tiny=("skyreels-v3-r2v",),
            inputs={"ref_imgs": (1, REFERENCE_SLOTS)},
            arguments=(
                "prompt",
                "negative_prompt",
                "num_inference_steps",
                "shift",
                "sample_solver",
                "guidance_scale",
                "guidance_scale_img",
            ),
            shape=reference_to_video,
        ),
    )
}


def find(name: str | None) -> TaskSpec:
    """The row of a task, or an InputError that names the nearest."""
    if name is None:
        raise InputError("--task_type", None, "none given", f"choose one of {', '.join(TASKS)}")
    if name in TASKS:
        return TASKS[name]
    if name in TASK_NAMES:
        raise InputError("--task_type", name, "not part of this version", f"available: {', '.join(TASKS)}")
    close = nearest(name, TASKS)
    raise InputError(
        "--task_type",
        name,
        f"must be one of {', '.join(TASKS)}",
        f"nearest {close}" if close else "see --list_tasks",
    )
