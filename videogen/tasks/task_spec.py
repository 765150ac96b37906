"""What a row of the task table holds."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from videogen.errors import InputError
from videogen.tasks import config
from videogen.tasks.geometry import Bucket, Shape
from videogen.tasks.memory_model import FamilyMemory
from videogen.tasks.options import OPTIONS, Options, Scale, merge
from videogen.tasks.sizes import Inputs, SizeTables


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
        """Return what a Python caller gave as a list; a list may itself be one video."""
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
        """Return whether a hub id is one of its own, or a folder carries its name."""
        return any(known == name or known.partition("/")[2] in Path(name).name for known in self.names)


def as_given(options: Options) -> Options:
    """Return options unchanged."""
    return options


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """One task with the models of one family.

    Args:
        family: whose models these are; a task may have several rows, and the checkpoint found decides.
        config_name: of its YAML file.
        pipeline: 'module:class' of its pipeline.
        layouts: checkpoint layouts it can read, the published one first (see checkpoints/layouts.py).
        components: what its pipeline needs -> which component of the checkpoint that is.
        tiny: name after 'tiny:' -> file in configs/tiny; the first is the default.
        inputs: flag -> files it takes.
        arguments: options, and fields of the shape, handed to the pipeline under their own names.
        options: further ones that these models have a use for; those that are common to all tasks need not be
            named.
        shape: (options, inputs, size tables) -> what the video will be.
        network: what the transformer must be like (see ``checkpoints.model_features``), for checkpoints of
            the same layout to be told apart.
        warnings: see warnings.py.
        describes: without a prompt, a model describes the input video.
        size_class: an entry of configs/sizes.yaml -> its sizes.
        memory: how much memory the models take.
        resolve_defaults: options -> the same with those that depend on others.
        fixed_options: option -> the only value that these models allow.
        requires: option -> what the transformer must have for it to mean something (see
            ``checkpoints.model_features``).
    """

    name: str
    family: str
    config_name: str
    pipeline: str
    layouts: tuple[str, ...]
    components: Mapping[str, str]
    tiny: Mapping[str, str]
    inputs: Mapping[str, Files]
    arguments: tuple[str, ...]
    options: tuple[str, ...]
    shape: Callable[[Options, Inputs, SizeTables], Shape]
    network: Mapping[str, Any]
    warnings: Callable[[Options, Collection[str], Inputs], Iterator[str]]
    memory: FamilyMemory
    summary: str = ""
    describes: bool = False
    size_class: Callable[[Any], Sequence[Bucket]] = list
    resolve_defaults: Callable[[Options], Options] = as_given
    requires: Mapping[str, str] = field(default_factory=dict)
    fixed_options: Mapping[str, Any] = field(default_factory=dict)

    def uses(self, option: str) -> bool:
        """Return whether an option means something for this task with these models."""
        own = (*self.options, *self.inputs, *self.arguments)
        return OPTIONS[option].common or option in own

    @property
    def config(self) -> Mapping[str, Any]:
        return config.read(self.config_name)

    @property
    def models(self) -> list[Model]:
        """Return the published repositories; the first is the default."""
        return [Model(**model | {"names": tuple(model["names"])}) for model in self.config["models"]]

    @property
    def default_model(self) -> str:
        return self.models[0].names[0]

    def model(self, name: str) -> Model | None:
        """Return the published repository of a hub id or folder name; of several, the longest name."""
        named = [model for model in self.models if model.is_named(name)]
        return max(named, key=lambda model: len(model.names[0]), default=None)

    @property
    def revision(self) -> str:
        return self.config["revision"]

    def defaults(self, checkpoint: Found | None = None) -> dict[str, Any]:
        """Return published defaults for the checkpoint found; a tiny model has its own size and length."""
        model = self.model(checkpoint.name) if checkpoint is not None else None
        own = model.defaults if model is not None else {}
        values = merge(self.config["defaults"], own, _tiny(checkpoint).get("defaults", {}))
        return {
            name: value if value is None else OPTIONS[name].value(value) for name, value in values.items()
        }

    def pick(self, options: Options, shape: Shape) -> dict[str, Any]:
        """Return the arguments of the pipeline."""
        known = {name: getattr(shape, name) for name in ("height", "width", "num_frames", "rolls")}
        known |= {"latent_frames": shape.latent_shape[2], "clip_frames": options.num_frames}
        known |= {"prompt": options.roll_prompts or options.prompt}
        return {name: known[name] if name in known else getattr(options, name) for name in self.arguments}

    def inputs_of(self, inputs: Inputs) -> dict[str, Any]:
        """Return inputs as the pipeline takes them: a list, or where there can be only one, it or None."""
        return {
            name: list(inputs[name]) if files.most > 1 else next(iter(inputs[name]), None)
            for name, files in self.inputs.items()
        }

    def size_tables(self, checkpoint: Found | None = None) -> SizeTables:
        """Return the size classes for the checkpoint found."""
        names = [self.config["sizes"], *([_tiny(checkpoint)["sizes"]] if _tiny(checkpoint) else [])]
        return {
            size: self.size_class(table)
            for name in names
            for size, table in config.read("sizes")[name].items()
        }


def _tiny(checkpoint: Found | None) -> Mapping[str, Any]:
    """Return the config of a tiny checkpoint; empty for any other."""
    return config.read(f"tiny/{checkpoint.tiny}") if checkpoint is not None and checkpoint.tiny else {}


def check_scales(task: TaskSpec, scale: Scale | None) -> None:
    """Refuse two guidance scales for a model with one expert.

    Raises:
        InputError: there is one.
    """
    if isinstance(scale, tuple) and task.network.get("experts") != 2:
        low, high = scale
        what = "two scales are for models with two experts"
        raise InputError("--guidance_scale", f"{low:g},{high:g}", what, f"nearest {high:g}")
