"""Features of a model, read from the headers of its weight files."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from videogen.checkpoints.json_files import read_json
from videogen.checkpoints.layouts import WEIGHTLESS, Checkpoint, files
from videogen.checkpoints.networks import NETWORKS
from videogen.checkpoints.stored_tensors import FORMATS, component_shapes, quantized_weights
from videogen.checkpoints.tensor_headers import Shape
from videogen.results.digest import sha256
from videogen.tasks.memory_model import NetworkSize, QuantizedWeights
from videogen.tasks.table import LAYOUTS
from videogen.tasks.task_spec import DIFFUSERS, TRANSFORMERS, NetworkTraits, PublishedWeights, TaskSpec

HEAD_DIM = 128  # of every published transformer
LINEAR = 0.969  # at least that share of a published transformer's weights can be quantized
_EDGE = 1 << 16  # bytes read at either end of a file for its fingerprint


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFeatures:
    """What the headers of a transformer's files say; nothing where it is of no known network."""

    traits: NetworkTraits = field(default_factory=NetworkTraits)
    size: NetworkSize = field(default_factory=NetworkSize)
    head_dim: int = HEAD_DIM


def read_features(checkpoint: Checkpoint) -> ModelFeatures:
    """Return the features of a model's transformer, from weight file headers.

    Raises:
        CheckpointError: a broken or truncated file.
    """
    return features_of(component_shapes(checkpoint.place("transformer")), 1 + _has_second_expert(checkpoint))


def features_of(shapes: Mapping[str, Shape], experts: int = 1) -> ModelFeatures:
    """Return the features of a transformer from the shapes of its tensors."""
    known = ((network, name) for network in NETWORKS for name in network.patch_embedding if name in shapes)
    network, patches = next(known, (None, ""))
    if network is None:
        return ModelFeatures()
    width, in_channels = shapes[patches][:2]
    has = {trait: any(map(re.compile(name).match, shapes)) for trait, name in network.traits.items()}
    layers = {layer[0] for name in shapes if (layer := re.match(network.layers, name))}
    heads = (shape[0] for name, shape in shapes.items() if name.endswith(network.head_norms))
    return ModelFeatures(
        traits=NetworkTraits(
            kind=network.kind,
            in_channels=in_channels,
            experts=experts,
            **{"image": False, "audio": False, "fps": False, "guidance": False} | has,
        ),
        size=NetworkSize(
            width=width,
            layers=len(layers),
            ffn=next((shapes[name][0] for name in network.feed_forward if name in shapes), 0),
        ),
        head_dim=next(heads, HEAD_DIM),
    )


def heads(checkpoint: Checkpoint, task: TaskSpec) -> int:
    """Return the number of attention heads of the transformer; 0 if not known yet.

    Raises:
        CheckpointError: a broken or truncated file.
    """
    if checkpoint.folder is None:
        known = task.model(checkpoint.name) is not None and not checkpoint.tiny
        return published(checkpoint.name, task).size.width // HEAD_DIM if known else 0
    config = checkpoint.component_config("transformer")
    if found := config.get("num_heads", config.get("num_attention_heads")):
        return int(found)
    features = read_features(checkpoint)
    return features.size.width // features.head_dim


def _has_second_expert(checkpoint: Checkpoint) -> bool:
    assert checkpoint.folder is not None
    if checkpoint.layout != DIFFUSERS.name:
        return "transformer_2" in LAYOUTS[checkpoint.layout].places  # a missing folder is reported later
    index = checkpoint.folder / "model_index.json"
    named = read_json(index).get("transformer_2") if index.is_file() else None
    return bool(named and named[0])


def fingerprint(checkpoint: Checkpoint, *components: str) -> str | None:
    """Return a digest of the names, sizes and edges of all files, or of some components' files.

    Returns None before the download.
    """
    if checkpoint.folder is None:
        return None
    digest = hashlib.sha256()
    for name, file in checkpoint.replaced.items():
        if not components or name in components:
            digest.update(f"{name}\0{sha256(file)}\0".encode())
    for file in files(checkpoint, *components):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(checkpoint.folder).as_posix()}\0{size}\0".encode())
        with file.open("rb") as handle:
            digest.update(handle.read(_EDGE))
            handle.seek(max(0, size - _EDGE))
            digest.update(handle.read(_EDGE))
    return digest.hexdigest()[:16]


def parameters(checkpoint: Checkpoint, task: TaskSpec) -> dict[str, int]:
    """Return parameters per component, counted in headers; the published numbers before the download."""
    if checkpoint.folder is None:
        known = published(checkpoint.name, task).parameters
        own = {part: _count(path) for part, path in checkpoint.replaced.items()}
        return (dict.fromkeys(known, 0) if checkpoint.tiny else dict(known)) | own
    return {c: _count(checkpoint.place(c)) for c in checkpoint.components if c not in WEIGHTLESS}


def quantized(checkpoint: Checkpoint, task: TaskSpec, name: str | None) -> dict[str, QuantizedWeights]:
    """Return what of every transformer's weights is quantized; ``name`` is a format of ``--quantize``."""
    exact = "|".join(network.float32 for network in NETWORKS)
    found = {}
    for part in (part for part in TRANSFORMERS if part in checkpoint.components):
        if checkpoint.folder is not None or part in checkpoint.replaced:
            found[part] = quantized_weights(checkpoint.place(part), exact, name)
        elif name:
            count, form = int(LINEAR * parameters(checkpoint, task)[part]), FORMATS[name]
            size = published(checkpoint.name, task).size
            largest = size.width * size.ffn
            found[part] = QuantizedWeights(
                count=count,
                bytes=int(form.bytes * count),
                largest=largest,
                scratch=form.scratch * largest,
                copies=form.copies,
            )
    return found


def published(name: str, task: TaskSpec) -> PublishedWeights:
    """Return the known facts of a published model, or else those of the task's default."""
    return (task.model(name) or task.models()[0]).published()


def _count(place: Path) -> int:
    return sum(math.prod(shape) for shape in component_shapes(place).values())
