"""What follows from a model's files and the options of one video; each file is judged once, here."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from videogen import files
from videogen.checkpoints import lora as lora_files
from videogen.checkpoints import model_features
from videogen.checkpoints.layouts import Checkpoint
from videogen.checkpoints.lora_strength import strength_files
from videogen.distributed import Degrees
from videogen.errors import InputError
from videogen.planning.memory_estimate import Memory, Video, estimate
from videogen.planning.parallelism import choose_degrees
from videogen.tasks.geometry import PATCH, Shape
from videogen.tasks.option import typed
from videogen.tasks.option_types import Lora
from videogen.tasks.options import OPTIONS, Options
from videogen.tasks.step_caches import KINDS, Ratios, ratios_name, read_cache, read_ratios
from videogen.tasks.task_spec import TaskSpec
from videogen.tasks.teacache_tables import Table, choose_table


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What follows from the options and from what is known of the model.

    Before a download that is the published model, or that of the task's default.

    Args:
        degrees: how the ranks share the video.
        memory: what it takes on the device.
        teacache: TeaCache's coefficients, if it is on.
        loras: digest, scale and expert of every LoRA.
        schedule: what MagCache's ratios depend on besides the weights.
    """

    degrees: Degrees
    memory: Memory
    teacache: Table | None
    loras: tuple[tuple[str, float, str | None], ...]
    schedule: dict[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFacts:
    """What only the files of a model say.

    Args:
        fingerprint: digest of the weight files.
        ratios: those of MagCache, if it is on and does not measure them.
        ratios_file: where they are kept.
    """

    fingerprint: str
    ratios: Ratios | None
    ratios_file: Path


def model_facts(task: TaskSpec, options: Options, shape: Shape, checkpoint: Checkpoint) -> ModelFacts:
    """Decide what follows from a model, as far as it is known.

    Raises:
        CheckpointError: a broken or truncated file.
        InputError: ranks that cannot share the video, a cache without coefficients for the model.
    """
    loras = tuple((_content_of(lora), lora.scale, lora.expert) for lora in options.lora)
    known = checkpoint.folder is not None or checkpoint.sizes or checkpoint.tiny
    teacache = _teacache(task, options, checkpoint) if known else None
    degrees = _degrees(task, options, shape, checkpoint)
    return ModelFacts(
        degrees=degrees,
        memory=_memory(task, options, shape, checkpoint, degrees),
        teacache=teacache,
        loras=loras,
        schedule=_schedule(task, options, shape) | {"lora": [list(lora) for lora in loras]},
    )


def read_files(options: Options, facts: ModelFacts, checkpoint: Checkpoint) -> FileFacts:
    """Read what only the files of a model say.

    Raises:
        InputError: a cache without ratios for the model.
    """
    fingerprint = model_features.fingerprint(checkpoint)
    assert fingerprint is not None
    file = files.cache_root() / "magcache" / ratios_name(fingerprint, facts.schedule)
    return FileFacts(fingerprint=fingerprint, ratios=_ratios(options, file), ratios_file=file)


def options_of_weights(
    task: TaskSpec, checkpoint: Checkpoint, asked: Mapping[str, object]
) -> dict[str, object]:
    """Return the options that the weights decide, and None for those that they have no place for.

    As far as nobody knows the model yet, what was asked for holds.

    Raises:
        InputError: something else was asked for.
    """
    known = checkpoint.folder is not None or checkpoint.tiny or task.model(checkpoint.name)
    if not known:
        return {name: asked.get(name, value) for name, value in task.fixed_options.items()}
    for name, value in task.fixed_options.items():
        if asked.get(name, value) != value:
            channels = task.network.in_channels
            what = f"the weights of {checkpoint.name} have {channels} input channels, which are {value}"
            raise InputError(OPTIONS[name].flag, typed(asked[name]), what, f"nearest {value}")
    if not task.requires or checkpoint.folder is None:
        return dict(task.fixed_options)
    found = model_features.read_features(checkpoint).traits
    useless = [name for name, trait in task.requires.items() if not getattr(found, trait)]
    for name in useless:
        if name in asked:
            what = "this model has no embedding for it"
            raise InputError(OPTIONS[name].flag, typed(asked[name]), what, "leave it out")
    return {**task.fixed_options, **dict.fromkeys(useless)}


def _schedule(task: TaskSpec, options: Options, shape: Shape) -> dict[str, object]:
    """Return what decides noise levels and branches."""
    used = [name for name, option in OPTIONS.items() if option.in_schedule and task.uses(name)]
    return {name: getattr(options, name) for name in used} | {
        "task": task.name,
        "branches": shape.forwards_per_step,
    }


def _degrees(task: TaskSpec, options: Options, shape: Shape, checkpoint: Checkpoint) -> Degrees:
    _, _, _, height, width = shape.latent_shape
    return choose_degrees(
        options,
        branches=shape.forwards_per_step,
        heads=model_features.heads(checkpoint, task),
        tokens=(height // PATCH) * (width // PATCH),
    )


def _teacache(task: TaskSpec, options: Options, checkpoint: Checkpoint) -> Table | None:
    if not options.teacache:
        return None
    here = checkpoint.folder is not None
    features = model_features.read_features(checkpoint) if here else None
    width, image = (features.size.width, bool(features.traits.image)) if features else (None, False)
    model = str(options.model_id or task.default_model())
    if here and not checkpoint.revision and not checkpoint.tiny:
        model = str(Path(model).expanduser().absolute())  # "." has a name as well
    return choose_table(options.teacache_model, model, width, image)


def _ratios(options: Options, file: Path) -> Ratios | None:
    name, threshold = read_cache(options.cache) if options.cache else ("", None)
    if threshold is None or not KINDS[name].calibrated:
        return None
    if (found := read_ratios(file)) is None:
        like = "steps, shift, solver, guidance, length and LoRA"
        what = f"was not measured for this model with these {like} on this machine"
        raise InputError("--cache", name, what, f"run once with --cache {name}:calibrate, which is exact")
    return found


def _memory(
    task: TaskSpec, options: Options, shape: Shape, checkpoint: Checkpoint, degrees: Degrees
) -> Memory:
    size = (
        model_features.read_features(checkpoint).size
        if checkpoint.folder is not None
        else model_features.published(checkpoint.name, task).size
    )
    transformer = checkpoint.component_config("transformer")
    video = Video(
        shape=shape,
        runtime=options,
        degrees=degrees,
        vae_width=task.memory.vae_width(checkpoint.component_config("vae")),
        residuals=_residuals(options, shape, task.memory.cached_outputs(transformer)),
    )
    network = task.memory.network(size)
    weights = (
        model_features.parameters(checkpoint, task),
        checkpoint.sizes,
        model_features.quantized(checkpoint, task, options.quantize),
    )
    return estimate(video, *weights, network, task.memory)


def _residuals(options: Options, shape: Shape, outputs: int) -> int:
    """Return the token-sized tensors that a step cache keeps; ``outputs`` are the layers' of a network."""
    branches = shape.forwards_per_step
    if options.teacache:
        return max(2, branches)
    if options.cache is None:
        return 0
    kind = KINDS[read_cache(options.cache)[0]]
    return branches * (kind.kept + kind.per_output * outputs)


def _content_of(lora: Lora) -> str:
    """Return the digest of a LoRA, or its name while it is not on this machine."""
    return _lora_digest(lora.path) if lora.path.exists() else lora.name


def _lora_digest(path: Path) -> str:
    """Return the digest of a LoRA: of its file, and of those that state its strength."""
    file = lora_files.file_of(path)
    found = [file, *strength_files(file)]
    return _digest(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in found))


@cache
def _digest(known: tuple[tuple[Path, int, int], ...]) -> str:
    """Return the digest of files (path, size, time of the last change)."""
    digest = hashlib.sha256()
    for file, *_ in known:
        with file.open("rb") as opened:
            hashlib.file_digest(opened, lambda: digest)
    return digest.hexdigest()[:16]
