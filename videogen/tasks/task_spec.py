"""What a row of the task table holds."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from videogen.errors import InputError
from videogen.tasks import config
from videogen.tasks.config import Config
from videogen.tasks.geometry import Bucket, Shape
from videogen.tasks.memory_model import FamilyMemory, NetworkSize
from videogen.tasks.options import OPTIONS, Options, Scale, merge
from videogen.tasks.prompt_text import TextLimits
from videogen.tasks.sizes import Inputs, SizeTables


class NamedModel(Protocol):
    """What decides the defaults of a checkpoint: its name, and of a tiny model that of its config."""

    @property
    def name(self) -> str: ...

    @property
    def tiny(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Files:
    """What a task takes under one input flag: files of a kind ('image'), how many at least and at most.

    ``from_python``: only pipelines take it, as diffusers' do; the published command line does not.
    """

    kind: str
    fewest: int
    most: int
    from_python: bool = False

    def listed(self, given: object) -> list[object]:
        """Return what a Python caller gave as a list; a list may itself be one video."""
        if given is None:
            return []
        return list(given) if self.most > 1 and isinstance(given, list | tuple) else [given]

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
class Layout:
    """Where each component lies in a published model folder.

    Args:
        markers: names of which one is enough to recognise the layout.
        shared_markers: likewise, but other layouts have them as well, so they are looked for last.
        places: component -> place. A place ending in "/" is a folder with its own config or tokenizer files
            ("./" is the model folder itself); anything else is one weight file. Without places every
            component of the pipeline has a folder of its own name.
    """

    name: str
    markers: tuple[str, ...] = ()
    shared_markers: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)

    def place(self, name: str, component: str) -> str:
        """Return the place of the pipeline's ``name``, which is a ``component``."""
        return self.places[component] if self.places else f"{name}/"


TRANSFORMERS = ("transformer", "transformer_2")
"""Names of the denoising networks in a pipeline."""
DIFFUSERS = Layout(name="diffusers", markers=("model_index.json", "vae", "text_encoder"))


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkTraits:
    """What tells the transformers of one layout apart; in a row of the task table None stands for any.

    Args:
        kind: which network it is.
        image: whether it has an embedding of image features; ``audio`` and ``fps`` likewise.
        experts: transformers that share the work.
        guidance: whether it has an embedding of the guidance scale.
    """

    kind: str | None = None
    in_channels: int | None = None
    image: bool | None = None
    audio: bool | None = None
    fps: bool | None = None
    experts: int | None = None
    guidance: bool | None = None

    def differences(self, found: "NetworkTraits") -> list[str]:
        """Return the names of the traits in which a transformer is not as it must be."""
        wanted = ((trait.name, getattr(self, trait.name)) for trait in fields(self))
        return [name for name, value in wanted if value is not None and getattr(found, name) != value]


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedWeights:
    """A row of configs/published.yaml: size of the transformer, weights and bytes per component."""

    size: NetworkSize
    parameters: Mapping[str, int]
    bytes: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A published repository: its hub ids, defaults of its own, and its row in configs/published.yaml."""

    names: tuple[str, ...]
    weights: str
    defaults: Mapping[str, object] = field(default_factory=dict)

    def published(self) -> PublishedWeights:
        """Read its row of configs/published.yaml."""
        row = dict(config.read("published")[self.weights])
        parameters, sizes = row.pop("parameters"), row.pop("bytes")
        return PublishedWeights(size=NetworkSize(**row), parameters=parameters, bytes=sizes)


def unchanged(options: Options) -> Options:
    """Return options unchanged."""
    return options


class DiffusersClasses(NamedTuple):
    """Names of diffusers' classes for the same models: its pipeline, and what holds the transformer."""

    pipeline: str
    transformer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """One task with the models of one family.

    Args:
        family: whose models these are; a task may have several rows, and the checkpoint found decides.
        brand: what lists of tasks call these models, where that is not the family.
        summary: what the task makes; that of its first row counts.
        helps: option -> what the help text says of it, where that is not what its row says.
        config_name: of its YAML file, where that is not the task's.
        pipeline: 'module:class' of its pipeline.
        layouts: names of the checkpoint layouts it can read, the published one first.
        components: what its pipeline needs -> which component of the checkpoint that is.
        tiny: name after 'tiny:' -> file in configs/tiny; the first is the default.
        inputs: flag -> files it takes.
        arguments: options, and fields of the shape, handed to the pipeline under their own names.
        options: further ones that these models have a use for; those that are common to all tasks need not be
            named.
        shape: (options, inputs, size tables) -> what the video will be.
        network: what the transformer must be like.
        warnings: see warnings.py.
        describes: without a prompt, a model describes the input video.
        sizes_of: the number that configs/sizes.yaml may have in place of a class's sizes -> these sizes.
        memory: how much memory the models take.
        text: how much of a prompt its encoders see.
        resolve_defaults: options -> the same with those that depend on others.
        fixed_options: option -> the only value that these models allow.
        requires: option -> trait that the transformer must have for it to mean something.
        diffusers: classes that open a pipeline that was saved, if diffusers has any.
    """

    name: str
    family: str
    pipeline: str
    layouts: tuple[str, ...]
    components: Mapping[str, str]
    tiny: Mapping[str, str]
    arguments: tuple[str, ...]
    options: tuple[str, ...]
    shape: Callable[[Options, Inputs, SizeTables], Shape]
    network: NetworkTraits
    warnings: Callable[[Options, Collection[str], Inputs], Iterator[str]]
    memory: FamilyMemory
    text: TextLimits
    config_name: str = ""
    brand: str = ""
    summary: str = ""
    inputs: Mapping[str, Files] = field(default_factory=dict)
    helps: Mapping[str, str] = field(default_factory=dict)
    describes: bool = False
    sizes_of: Callable[[int], Sequence[Bucket]] | None = None
    resolve_defaults: Callable[[Options], Options] = unchanged
    requires: Mapping[str, str] = field(default_factory=dict)
    fixed_options: Mapping[str, str] = field(default_factory=dict)
    diffusers: DiffusersClasses | None = None

    def uses(self, option: str) -> bool:
        """Return whether an option means something for this task with these models."""
        inputs = (name for name, files in self.inputs.items() if not files.from_python)
        own = (*self.options, *inputs, *self.arguments)
        return OPTIONS[option].common or option in own

    def required(self) -> tuple[str, ...]:
        """Return the options without which it makes nothing."""
        inputs = [name for name, files in self.inputs.items() if files.fewest]
        return (*([] if self.describes else ["prompt"]), *inputs)

    def is_made_of(self, given: Set[str]) -> bool:
        """Return whether these inputs are all that it needs, and none that it does not take."""
        needed = {name for name, files in self.inputs.items() if files.fewest}
        return needed <= given <= self.inputs.keys()

    def config(self) -> Config:
        """Return its YAML file."""
        return config.read(self.config_name or self.name)

    def models(self) -> list[Model]:
        """Return the published repositories; the first is the default."""
        return [Model(**model | {"names": tuple(model["names"])}) for model in self.config()["models"]]

    def default_model(self) -> str:
        """Return the hub id of the default repository."""
        return self.models()[0].names[0]

    def model(self, name: str) -> Model | None:
        """Return the published repository of a hub id, or that a folder is named after; the longest wins."""
        named = [
            model
            for model in self.models()
            if any(known == name or known.partition("/")[2] in Path(name).name for known in model.names)
        ]
        return max(named, key=lambda model: len(model.names[0]), default=None)

    def revision(self) -> str:
        """Return the published revision."""
        return self.config()["revision"]

    def defaults(self, checkpoint: NamedModel | None = None) -> dict[str, Any]:
        """Return published defaults for the checkpoint found; a tiny model has its own size and length."""
        values = merge(self.config()["defaults"], self.checkpoint_defaults(checkpoint))
        return {
            name: value if value is None else OPTIONS[name].value(value) for name, value in values.items()
        }

    def checkpoint_defaults(self, checkpoint: NamedModel | None) -> dict[str, Any]:
        """Return the defaults that only this checkpoint has, as they are written."""
        model = self.model(checkpoint.name) if checkpoint is not None else None
        tiny = _tiny(checkpoint)
        own = merge(tiny.get("defaults", {}), tiny.get("tasks", {}).get(self.name, {}))
        return merge(model.defaults if model is not None else {}, own)

    def pick(self, options: Options, shape: Shape) -> dict[str, object]:
        """Return the arguments of the pipeline."""
        known: dict[str, object] = {
            **{name: getattr(shape, name) for name in ("height", "width", "num_frames", "rolls")},
            "latent_frames": shape.latent_shape[2],
            "clip_frames": options.num_frames,
            "prompt": options.roll_prompts or options.prompt,
        }
        return {name: known[name] if name in known else getattr(options, name) for name in self.arguments}

    def inputs_of(self, inputs: Inputs) -> dict[str, object]:
        """Return inputs as the pipeline takes them: a list, or where there can be only one, it or None."""
        return {
            name: list(inputs[name]) if files.most > 1 else next(iter(inputs[name]), None)
            for name, files in self.inputs.items()
        }

    def size_tables(self, checkpoint: NamedModel | None = None) -> SizeTables:
        """Return the size classes for the checkpoint found; random weights have the published ones too."""
        tiny = _tiny(checkpoint)
        name = checkpoint.tiny if checkpoint is not None else None
        is_trained = config.is_trained(name) if name else False
        names = [*([] if is_trained else [self.config()["sizes"]]), *([tiny["sizes"]] if tiny else [])]
        return {
            size: self.sizes_of(table) if self.sizes_of and isinstance(table, int) else table
            for name in names
            for size, table in config.read("sizes")[name].items()
        }


def _tiny(checkpoint: NamedModel | None) -> Config:
    """Return the config of a tiny checkpoint; empty for any other."""
    return config.read_tiny(checkpoint.tiny) if checkpoint is not None and checkpoint.tiny else {}


def check_scales(task: TaskSpec, scale: Scale | None) -> None:
    """Refuse two guidance scales for a model with one expert.

    Raises:
        InputError: there is one.
    """
    if isinstance(scale, tuple) and task.network.experts != 2:
        low, high = scale
        what = "two scales are for models with two experts"
        raise InputError("--guidance_scale", f"{low:g},{high:g}", what, f"nearest {high:g}")


def check_prompt_count(flag: str, prompts: int, rolls: int) -> None:
    """Refuse more prompts than segments.

    Raises:
        InputError: there are more.
    """
    if prompts > rolls:
        what = f"has {prompts} prompts, and there are {rolls} segments"
        raise InputError(flag, None, what, f"leave out {prompts - rolls}")
