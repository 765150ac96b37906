"""Tensors as checkpoints store them: names under a prefix, float8 with scales beside the weights.

ComfyUI's files call the scale of ``X.weight`` ``X.scale_weight`` or ``X.weight_scale``: one number, or one
per row. Without any, float8 weights are plain casts.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from videogen.checkpoints import gguf_files
from videogen.checkpoints.key_maps import TRANSFORMER_PREFIXES, Entry, rename
from videogen.checkpoints.networks import NETWORKS
from videogen.checkpoints.tensor_headers import Shape, TensorInfo, tensor_infos
from videogen.checkpoints.weight_files import weight_files
from videogen.errors import CheckpointError
from videogen.tasks.memory_model import QuantizedWeights

FLOAT8 = ("F8_E4M3", "F8_E5M2")
SCALE = re.compile(r"\.(scale_weight|weight_scale)$")
MARKER = re.compile(r"(^|\.)scaled_fp8$")
# Not needed: the format is known, activations are not quantized, tokenizers are files of their own.
IN_BLOCK = re.compile(r"^(\w+_)?blocks\.\d+\.")  # names of transformers' blocks, published or ours
UNUSED = re.compile(r"(^|\.)scaled_fp8$|\.(scale_input|input_scale|comfy_quant)$|^spiece_model$")


class WeightFormat(NamedTuple):
    """What a weight takes, and while its layer works: in float32, in the compute dtype, as parts of a sum.

    Args:
        copies: torchao's product is scaled, or has its bias added, in a copy.
    """

    bytes: float
    scratch: int
    copies: bool = False


FLOAT8_FILE, GGUF_SCRATCH = WeightFormat(1, 6), 10
# Formats of --quantize; in 4 bits 32 weights share a scale.
FORMATS = {
    "int8": WeightFormat(1, 6, copies=True),
    "float8": WeightFormat(1, 6, copies=True),
    "int4": WeightFormat(0.5 + 2 / 32, 14),
}


LORA = re.compile(r"[._](lora_[AB]|lora_(down|up)|lora\.(down|up)|lokr_w[12]\w*|hada_w[12]\w*)(\.|$)")


def is_quantized(dtype: str) -> bool:
    """Return whether a tensor of a dtype stands for other numbers than it holds."""
    return dtype in FLOAT8 or dtype in gguf_files.QUANTIZED


def component_tensors(place: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a component from the headers of its files, without prefix and scales.

    Raises:
        CheckpointError: a broken or truncated file, or float8 weights without the scales that they need.
    """
    found = tensor_infos(weight_files(place))
    if lora := next(filter(LORA.search, found), None):
        raise CheckpointError(f"{place}: {lora} is of a LoRA and not of a model; give its file with --lora")
    check_scales(place, found)
    prefix = next((one for one in TRANSFORMER_PREFIXES if any(name.startswith(one) for name in found)), "")
    return {
        name.removeprefix(prefix): info
        for name, info in found.items()
        if name.startswith(prefix) and not SCALE.search(name) and not UNUSED.search(name)
    }


def quantized_weights(place: Path, exact: str, name: str | None = None) -> QuantizedWeights:
    """Return what of a transformer's weights is quantized, in its files or for ``--quantize``.

    Args:
        place: folder or file.
        exact: pattern of the names that are float32 always.
        name: format of ``--quantize``, which is for the blocks.
    """
    layers = [
        (math.prod(info.shape), _format(info.dtype, name if IN_BLOCK.search(key) else None))
        for key, info in component_tensors(place).items()
        if len(info.shape) == 2 and key.endswith(".weight") and not re.search(exact, key)
    ]
    quantized = [(count, form) for count, form in layers if form is not None]
    return QuantizedWeights(
        count=sum(count for count, _ in quantized),
        bytes=int(sum(count * form.bytes for count, form in quantized)),
        largest=max((count for count, _ in quantized), default=0),
        scratch=max((count * form.scratch for count, form in quantized), default=0),
        copies=any(form.copies for _, form in quantized),
    )


def _format(dtype: str, name: str | None) -> WeightFormat | None:
    """Return how a weight of a dtype is held, with a format of ``--quantize``; None: in the compute dtype."""
    if dtype in gguf_files.QUANTIZED:
        return WeightFormat(gguf_files.bytes_per_weight(dtype), GGUF_SCRATCH)
    return FLOAT8_FILE if is_quantized(dtype) else FORMATS.get(name or "")


def component_shapes(place: Path) -> dict[str, Shape]:
    """Return the shapes of ``component_tensors``."""
    return {name: info.shape for name, info in component_tensors(place).items()}


def transformer_entries(place: Path) -> dict[str, Entry]:
    """Return a transformer's tensors under our names, as its files store them; none can be read."""
    published = [
        Entry(name, info.shape, _unread, info.dtype) for name, info in component_tensors(place).items()
    ]
    tables = [table for network in NETWORKS for table in (network.published, network.ours)]
    return rename(place, published, tables) if published else {}


def _unread() -> None:
    raise AssertionError


def check_scales(place: Path, tensors: Mapping[str, TensorInfo | Entry]) -> None:
    """Refuse float8 weights that lack the scales which the others have, and scales of other shapes.

    Raises:
        CheckpointError: the first ones.
    """
    scales = {weight_of(name): name for name in tensors if SCALE.search(name)}
    if not scales and not any(MARKER.search(name) for name in tensors):
        return
    for weight, name in scales.items():
        if weight not in tensors or tensors[weight].dtype not in FLOAT8:
            raise CheckpointError(f"{place}: {name} belongs to no float8 weight; is it whole?")
        shape, rows = tensors[name].shape, tensors[weight].shape[0]
        if math.prod(shape) != 1 and (math.prod(shape) != rows or shape[0] != rows):
            wanted = f"one number, or one for each of {rows} rows"
            raise CheckpointError(f"{place}: {name} is {list(shape)}, expected {wanted}")
    lost = [name for name, one in tensors.items() if one.dtype in FLOAT8 and len(one.shape) == 2]
    lost = [name for name in lost if name not in scales and not UNUSED.search(name)]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        what = f"float8 weights without scales: {lost[0]}{more}"
        raise CheckpointError(f"{place}: {what}; download a whole file")


def weight_of(scale: str) -> str:
    """Return the name of the weight that a scale belongs to."""
    return SCALE.sub(".weight", scale)


def with_scales(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries with their scales, and without what is not needed."""
    found = list(entries)
    scales = {weight_of(entry.key): entry for entry in found if SCALE.search(entry.key)}
    return [
        replace(entry, scale=scales.get(entry.key))
        for entry in found
        if not SCALE.search(entry.key) and not UNUSED.search(entry.key)
    ]


def unused_note(files: Sequence[Path]) -> str | None:
    """Return a line about the tensors of other networks in a transformer's files; None if there are none."""
    names = list(tensor_infos(files))
    prefix = next((one for one in TRANSFORMER_PREFIXES if any(name.startswith(one) for name in names)), "")
    others = [name for name in names if not name.startswith(prefix) and not UNUSED.search(name)]
    if not others:
        return None
    kinds = ", ".join(dict.fromkeys(name.split(".")[0] for name in others))
    return f"{len(others)} of its {len(names)} tensors belong to other networks ({kinds}) and are not used"
