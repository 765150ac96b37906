"""Disk cache of prompt embeddings, so that known prompts need no text encoder.

One safetensors file per text, named by a hash of its inputs: the text, the files of the encoder and its
tokenizer, the dtype. A file that is damaged or does not match its name counts as missing and is rewritten.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from videogen.files import save_tensors

logger = logging.getLogger(__name__)

SCHEMA = 1  # increase it when encoding changes
NAME = "embedding"


def get_or_compute(folder: Path, depends_on: Mapping[str, str], compute: Callable[[], Tensor]) -> Tensor:
    """Return the cached embedding on the CPU; compute and store it if it is missing."""
    key = json.dumps({"schema": SCHEMA, **depends_on}, sort_keys=True)
    file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    if (found := _read(file)) is not None:
        return found
    computed = compute().cpu().contiguous()
    try:
        save_tensors(file, {NAME: computed}, {"of": file.stem, "sha256": _digest(computed)})
    except OSError as error:
        logger.warning("--embedding_cache %s: not written (%s)", folder, error.strerror or error)
    return computed


def _read(file: Path) -> Tensor | None:
    try:
        with safe_open(file, framework="pt") as stored:
            about, tensor = stored.metadata() or {}, stored.get_tensor(NAME).clone()
    except (OSError, SafetensorError):
        return None
    whole = about.get("of") == file.stem and about.get("sha256") == _digest(tensor)
    return tensor if whole else None


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
