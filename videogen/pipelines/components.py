"""What a pipeline is made of: its components, where they come from, and how they are loaded again."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import diffusers
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin
from diffusers.pipelines.pipeline_loading_utils import _unwrap_model

from videogen.checkpoints.json_files import read_json
from videogen.checkpoints.layouts import Checkpoint
from videogen.errors import InputError
from videogen.files import write_json
from videogen.models.interface import OffloadedComponents
from videogen.pipelines.call import RunStates
from videogen.pipelines.scheduler import PublishedScheduler, scheduler_for
from videogen.pipelines.signature import rows_of
from videogen.pipelines.transformers import own_transformer
from videogen.tasks.options import Options, defaults, merge
from videogen.tasks.table import TASKS, variant
from videogen.tasks.task_spec import TRANSFORMERS, TaskSpec

LIBRARY = "diffusers"
OWN_INDEX = "_videogen"
"""Entry of a saved model_index.json with what it is for our classes; diffusers passes it over."""


class Components(RunStates, DiffusionPipeline):
    """A pipeline's components; ``task`` names the row of TASKS that it implements."""

    task: ClassVar[str]
    family: ClassVar[str | None] = None  # of its models, if not the task's default
    spec: TaskSpec | None = None  # row it was loaded for; None: the row of the task's default model
    checkpoint: Checkpoint | None = None  # where the components came from; sets defaults and sizes
    scheduler: SchedulerMixin
    transformer_2: ModelMixin | None = None  # of models with two experts
    component_offload: OffloadedComponents | None = None

    row_for: Callable[[Mapping[str, object]], TaskSpec]
    """Returns the row, of those that the pipeline runs, whose inputs were given; see ``Calls``."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "scheduler" and self._state.running:
            raise InputError(name, None, "cannot be set while a video is made", "set it before the call")
        super().__setattr__(name, self._own(name, value))
        if name in getattr(self, "_internal_dict", {}):
            self._name_own_classes(name)

    def _own(self, name: str, value: Any) -> Any:
        """Return a component as the pipeline uses it."""
        if name == "scheduler":
            return scheduler_for(value, self._published_scheduler)
        return own_transformer(type(self), name, value) if name in TRANSFORMERS else value

    def _published_scheduler(self) -> PublishedScheduler:
        row = self.row
        usual = row.resolve_defaults(Options.of(merge(defaults(), row.defaults(self.checkpoint))))
        solver = usual.sample_solver if row.uses("sample_solver") else "euler"
        return PublishedScheduler.of(solver, usual.shift)

    @property
    def transformers(self) -> list[ModelMixin]:
        """Return the denoising networks: one, or two experts."""
        return [getattr(self, name) for name in TRANSFORMERS if getattr(self, name, None) is not None]

    @classmethod
    def encoder_names(cls) -> list[str]:
        """Return the names of the components that run before the transformers, in order of use."""
        return cls.model_cpu_offload_seq.split("->transformer")[0].split("->")

    def loaded_from(self, checkpoint: Checkpoint, spec: TaskSpec) -> None:
        """Say which model the components are of, which decides the defaults."""
        self.checkpoint, self.spec = checkpoint, spec
        if isinstance(self.scheduler, PublishedScheduler):
            self.scheduler = None

    @property
    def row(self) -> TaskSpec:
        """Return the row of the task table that the pipeline was loaded for."""
        return self.spec or (variant(self.task, self.family) if self.family else TASKS[self.task])

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Load what ``save_pretrained`` wrote, or any model that ``videogen.load`` takes.

        Args:
            pretrained_model_name_or_path: folder, hub id, 'miniature' or 'tiny'.
            options: ``torch_dtype`` (float32 unless given, as in diffusers; or a dict of component, or
                'default', to dtype), ``device`` ('cpu' unless given) or ``device_map``; of a hub id
                ``revision``, ``token``, ``cache_dir``, ``local_files_only``; ``variant``; and components by
                name, in place of the model's own.

        Raises:
            InputError, CheckpointError: an unknown option, a model that is missing, or for another class.
        """
        import videogen  # noqa: PLC0415 - the package root loads models; pipelines import no loader

        open_pretrained = cast(Callable[..., Self], videogen.open_pretrained)
        return open_pretrained(cls, str(pretrained_model_name_or_path), **options)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **options: Any) -> Self:
        """Return a pipeline with the components of another, as diffusers does; of ours, with its defaults."""
        made = super().from_pipe(pipeline, **options)
        checkpoint, spec = getattr(pipeline, "checkpoint", None), getattr(pipeline, "spec", None)
        if spec in rows_of(cls):
            made.loaded_from(checkpoint, spec)
        return made

    @classmethod
    def open_saved(cls, folder: str | Path, **options: Any) -> Self:
        """Open a folder that ``save_pretrained`` wrote, with diffusers' own loader."""
        if "scheduler" not in cls.load_config(folder):
            options = {"scheduler": None, **options}
        return super().from_pretrained(folder, **options)

    def save_config(self, save_directory: str | Path, **options: Any) -> None:
        """Write model_index.json: diffusers' names where its classes can hold the model, with ours beside.

        A published scheduler is not named there for ours, which make it themselves.
        """
        super().save_config(save_directory, **options)
        index = Path(save_directory) / self.config_name
        own = read_json(index)
        if isinstance(self.scheduler, PublishedScheduler):
            del own["scheduler"]
        theirs = self._index_for_diffusers(own, Path(save_directory))
        write_json(index, {**own, **theirs, OWN_INDEX: own} if theirs else own)

    @classmethod
    def load_config(cls, *args: Any, **options: Any) -> Any:
        """Load model_index.json as it is for our classes."""
        found = super().load_config(*args, **options)
        return found.get(OWN_INDEX, found) if isinstance(found, dict) else found

    def _index_for_diffusers(self, own: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """Return what a model index is for diffusers' pipeline, where not as ours; {} if none can hold it."""
        names = self.row_for({}).diffusers
        if names is None:
            return {}
        present = [name for name in TRANSFORMERS if own.get(name, (None,))[0]]
        theirs: dict[str, Any] = dict.fromkeys(present, (LIBRARY, names.transformer))
        if isinstance(self.scheduler, PublishedScheduler):
            theirs["scheduler"] = (LIBRARY, type(self.scheduler.for_diffusers()).__name__)
        return {**theirs, **self.entries_for_diffusers(folder), "_class_name": names.pipeline}

    def entries_for_diffusers(self, folder: Path) -> Mapping[str, Any]:
        """Return what else diffusers' pipeline needs in its model index; files go to ``folder``."""
        del folder
        return {}

    @classmethod
    def _get_signature_keys(cls, obj: Any) -> tuple[list[str], list[str]]:
        """Return (components, other arguments); the scheduler is a component, though it may be left out."""
        components, others = super()._get_signature_keys(obj)
        return sorted({*components, "scheduler"}), [name for name in others if name != "scheduler"]

    def register_modules(self, **modules: Any) -> None:
        """Register components; transformers become ours, under the module that they are loaded from again."""
        super().register_modules(**{name: self._own(name, module) for name, module in modules.items()})
        self._name_own_classes(*modules)

    def _name_own_classes(self, *names: str) -> None:
        for name in names:
            kind = type(_unwrap_model(getattr(self, name)))
            if kind.__module__.startswith("videogen."):
                self.register_to_config(**{name: (kind.__module__, kind.__name__)})

    def maybe_free_model_hooks(self) -> None:
        """Evict offloaded components, in addition to diffusers' own hooks."""
        super().maybe_free_model_hooks()
        if self.component_offload is not None:
            self.component_offload.evict_all()


def register(pipeline: type[DiffusionPipeline]) -> None:
    """Make a pipeline known to ``DiffusionPipeline.from_pretrained``, which looks names up in diffusers."""
    for place in (diffusers, diffusers.pipelines):
        if not hasattr(place, pipeline.__name__):
            setattr(place, pipeline.__name__, pipeline)
