"""Features of a model, read from the headers of its weight files."""

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videogen.checkpoints.layouts import LAYOUTS, WEIGHTLESS, Checkpoint, files, weight_files
from videogen.checkpoints.tensor_headers import tensor_shapes
from videogen.files import read_json
from videogen.tasks.task_spec import TaskSpec

# Name of the patch embedding -> the network that has it.
PATCHES = {
    "patch_embedding.weight": "Wan",
    "img_in.proj.weight": "HunyuanVideo",
    "x_embedder.proj.weight": "HunyuanVideo",
}
LAYER = re.compile(r"(transformer_|single_transformer_|double_|single_)?blocks\.\d+\.")
FEED_FORWARDS = ("blocks.0.ffn.0.weight", "blocks.0.ffn.net.0.proj.weight")
GUIDANCE = ("guidance_in.", "time_text_embed.guidance_embedder.")  # prefixes of its embedder's names
HEAD_DIM = 128  # of every published transformer
HEAD_NORMS = (
    "img_attn_q_norm.weight",
    "transformer_blocks.0.attn.norm_q.weight",
)  # as long as a head is wide
_EDGE = 1 << 16  # bytes read at either end of a file for its fingerprint


def read_features(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the features that tell transformers of one layout apart, from weight file headers.

    Raises:
        CheckpointError: a broken or truncated file.
    """
    shapes = tensor_shapes(weight_files(checkpoint.place("transformer")))
    found = next((name for name in PATCHES if name in shapes), None)
    patches = shapes.get(found or "", (0, 0))
    return {
        "kind": PATCHES.get(found or ""),
        "in_channels": patches[1],
        "image": any(key.startswith(("img_emb.", "condition_embedder.image_embedder.")) for key in shapes),
        "audio": any(key.startswith("audio_proj.") for key in shapes),
        "fps": "fps_embedding.weight" in shapes,
        "experts": 1 + _has_second_expert(checkpoint),
        "guidance": any(key.startswith(GUIDANCE) for key in shapes),
        "width": patches[0],
        "layers": len({layer[0] for key in shapes if (layer := LAYER.match(key))}),
        "ffn": next((shapes[name][0] for name in FEED_FORWARDS if name in shapes), 0),
    }


def heads(checkpoint: Checkpoint, task: TaskSpec) -> int:
    """Return the number of attention heads of the transformer; 0 if not known yet.

    Raises:
        CheckpointError: a broken or truncated file.
    """
    if checkpoint.folder is None:
        known = task.model(checkpoint.name) is not None and not checkpoint.tiny
        return published(checkpoint.name, task)["width"] // HEAD_DIM if known else 0
    config = checkpoint.component_config("transformer")
    if found := config.get("num_heads", config.get("num_attention_heads")):
        return int(found)
    shapes = tensor_shapes(weight_files(checkpoint.place("transformer")))
    head = next((shape[0] for name, shape in shapes.items() if name.endswith(HEAD_NORMS)), HEAD_DIM)
    return read_features(checkpoint)["width"] // head


def _has_second_expert(checkpoint: Checkpoint) -> bool:
    assert checkpoint.folder is not None
    place = LAYOUTS[checkpoint.layout].get("transformer_2")
    if checkpoint.layout != "diffusers":
        return place is not None  # a missing folder is reported later
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
        known = published(checkpoint.name, task)["parameters"]
        return dict.fromkeys(known, 0) if checkpoint.tiny else known
    return {c: _count(checkpoint.place(c)) for c in checkpoint.components if c not in WEIGHTLESS}


def published(name: str, task: TaskSpec) -> Mapping[str, Any]:
    """Return the known facts of a published model, or else those of the task's default."""
    return (task.model(name) or task.models[0]).published


def _count(place: Path) -> int:
    return sum(math.prod(shape) for shape in tensor_shapes(weight_files(place)).values())
