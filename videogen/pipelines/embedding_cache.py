"""Encoded prompts kept on disk, so that the text encoder is not needed for prompts that were seen before.

One safetensors file per text, named after what it is made of: the text, the files of the encoder and its
tokenizer, the dtype. A file that is damaged, or is not what its name says, counts as missing and is written
anew.
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

SCHEMA = 1  # to be counted up when encoding changes
NAME = "embedding"


def kept(folder: Path, made_of: Mapping[str, str], make: Callable[[], Tensor]) -> Tensor:
    """What ``make`` makes, on the CPU: from the file it was kept in, else made and kept."""
    said = json.dumps({"schema": SCHEMA, **made_of}, sort_keys=True)
    file = folder / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.safetensors"
    if (found := _read(file)) is not None:
        return found
    made = make().cpu().contiguous()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(file, {NAME: made}, {"of": file.stem, "sha256": _digest(made)})
    except OSError as error:
        logger.warning("--embedding_cache %s: not written (%s)", folder, error.strerror or error)
    return made


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
