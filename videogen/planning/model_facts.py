"""What follows from a model's files and the options of one video; each file is judged once, here."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

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
from videogen.tasks.options import Options
from videogen.tasks.step_caches import KINDS, SCHEDULE, Ratios, ratios_name, read_cache, read_ratios
from videogen.tasks.task_spec import TaskSpec
from videogen.tasks.teacache_tables import Table, choose_table


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What is decided once the model is known.

    Args:
        degrees: how the ranks share the video.
        memory: what it takes on the device.
        teacache: TeaCache's coefficients, if it is on.
        fingerprint: digest of the weight files; None while they are not on this machine.
        loras: digest, scale and expert of every LoRA.
        schedule: what MagCache's ratios depend on besides the weights.
        ratios: those of MagCache, if it is on and does not measure them.
        ratios_file: where they are kept; None while the model is not on this machine.
    """

    degrees: Degrees
    memory: Memory
    teacache: Table | None
    fingerprint: str | None
    loras: tuple[tuple[str, float, str | None], ...]
    schedule: dict[str, Any]
    ratios: Ratios | None
    ratios_file: Path | None


def inspect_model(task: TaskSpec, options: Options, shape: Shape, checkpoint: Checkpoint) -> ModelFacts:
    """Read what the files of a model say, and decide what follows from it.

    Raises:
        CheckpointError: a broken or truncated file.
        InputError: ranks that cannot share the video, a cache without coefficients or ratios for the model.
    """
    loras = tuple((_lora_digest(lora.path), lora.scale, lora.expert) for lora in options.lora)
    fingerprint = model_features.fingerprint(checkpoint)
    schedule = _schedule(task, options, shape) | {"lora": [list(lora) for lora in loras]}
    name = None if fingerprint is None else ratios_name(fingerprint, schedule)
    ratios_file = None if name is None else files.cache_root() / "magcache" / name
    known = checkpoint.folder is not None or checkpoint.sizes or checkpoint.tiny
    teacache = _teacache(task, options, checkpoint) if known else None
    ratios = _ratios(options, ratios_file)
    degrees = _degrees(task, options, shape, checkpoint)
    return ModelFacts(
        degrees=degrees,
        memory=_memory(task, options, shape, checkpoint, degrees),
        teacache=teacache,
        fingerprint=fingerprint,
        loras=loras,
        schedule=schedule,
        ratios=ratios,
        ratios_file=ratios_file,
    )


def _schedule(task: TaskSpec, options: Options, shape: Shape) -> dict[str, Any]:
    """Return what decides noise levels and branches."""
    known = {name: getattr(options, name) for name in SCHEDULE if task.uses(name)}
    return known | {"task": task.name, "branches": shape.forwards_per_step}


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


def _ratios(options: Options, file: Path | None) -> Ratios | None:
    name, threshold = read_cache(options.cache) if options.cache else ("", None)
    if threshold is None or not KINDS[name].calibrated or file is None:
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
        dtype=options.dtype,
        vae_width=task.memory.vae_width(checkpoint.component_config("vae")),
        residuals=_residuals(options, shape, task.memory.cached_outputs(transformer)),
        texts=min(2, shape.forwards_per_step),
        vae_dtype=options.vae_dtype,
        untiled=options.vae_tiling == "off",
        degrees=degrees,
    )
    network = task.memory.network(size)
    return estimate(video, model_features.parameters(checkpoint, task), network, task.memory.vae)


def _residuals(options: Options, shape: Shape, outputs: int) -> int:
    """Return the token-sized tensors that a step cache keeps; ``outputs`` are the layers' of a network."""
    branches = shape.forwards_per_step
    if options.teacache:
        return max(2, branches)
    if options.cache is None:
        return 0
    kind = KINDS[read_cache(options.cache)[0]]
    return branches * (kind.kept + kind.per_output * outputs)


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
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
