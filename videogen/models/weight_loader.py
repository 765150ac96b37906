"""Weight files: names and shapes first, tensors later; memory-mapped, strict, no pickled code is run.

Published tensor names are mapped to ours by the tables of ``checkpoints/networks``. ``meta_module`` builds
a module on the meta device and compares every name and shape; ``load_weights`` assigns the mapped tensors,
moved and cast a few at a time if asked, so the weights never exist twice in memory.
"""

import json
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import cast

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from videogen.checkpoints import gguf_files
from videogen.checkpoints.key_maps import Entry, KeyTable, Shape, rename
from videogen.checkpoints.layouts import FLOAT8, SCALES
from videogen.checkpoints.stored_tensors import check_scales, is_quantized, with_scales
from videogen.checkpoints.tensor_headers import RUNS_CODE, check_single, refuse_other_content, unwrapped
from videogen.checkpoints.weight_files import weight_files
from videogen.errors import CheckpointError, first_line
from videogen.models import quantized_linear
from videogen.models.device_copies import Uploader

STORED = {  # dtypes of files that are mapped; of safetensors the library reads the others
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NAMES = {dtype: name for name, dtype in STORED.items()}
LISTED = 5  # problems named in one error
COUNT = re.compile(r"layers|blocks|depth")  # names of numbers of layers in configs
FEW_LAYERS = 100  # that may be asked for whatever the tensors are called
LONGEST_LIST = 1000  # of a config, which may say one number for each layer
LARGEST_SIZE = 1 << 24  # of anything else, such as a vocabulary or the number of positions
READERS = 4  # tensors read at a time


def read_entries(place: Path, tables: Iterable[KeyTable]) -> dict[str, Entry]:
    """Return our name -> entry over all weight files of a component; reads headers only.

    Raises:
        CheckpointError: an unreadable, truncated or unsafe file, or names that no table knows.
    """
    entries: dict[str, Entry] = {}
    holders: dict[str, Path] = {}
    for file in weight_files(place):
        for entry in _headers(file):
            check_single(file, holders.setdefault(entry.key, file), entry.key)
            entries[entry.key] = entry
    check_scales(place, entries)
    return rename(place, with_scales(entries.values()), tables)


def tensor_entries(tensors: Mapping[str, object]) -> list[Entry]:
    """Return an entry for every tensor of a state dict."""
    return [
        Entry(key, tuple(tensor.shape), partial(_identity, tensor), NAMES.get(tensor.dtype, ""))
        for key, tensor in tensors.items()
        if isinstance(tensor, Tensor)
    ]


def _headers(file: Path) -> Iterator[Entry]:
    """Yield an entry for every tensor of a file without reading it."""
    refuse_other_content(file)
    if file.suffix == ".gguf":
        yield from _gguf_headers(file)
        return
    if file.suffix != ".safetensors":
        yield from tensor_entries(_load_pickle(file))
        return
    try:
        handle, places = safe_open(file, framework="pt"), _places(file)
        content = _content(file)
        for key in handle.keys():  # noqa: SIM118 - not a dict
            view, place = handle.get_slice(key), places[key]
            shape = tuple(view.get_shape())
            dtype = STORED.get(view.get_dtype())
            read: Callable[[], Tensor] = partial(handle.get_tensor, key)
            if dtype is not None and place % dtype.itemsize == 0:
                read = partial(_mapped, content, place, dtype, shape)
            yield Entry(key, shape, read, view.get_dtype())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: broken or truncated ({error}); download it again") from None


def _gguf_headers(file: Path) -> Iterator[Entry]:
    """Yield an entry for every tensor of a GGUF file; quantized ones are read as bytes, row by row."""
    content = _content(file)
    for tensor in gguf_files.tensors(file):
        dtype, shape = STORED.get(tensor.dtype, torch.uint8), tensor.shape
        if is_quantized(tensor.dtype):
            shape = (*shape[:-1], tensor.size // max(1, math.prod(shape[:-1])))
        read = partial(_mapped, content, tensor.offset, dtype, shape)
        yield Entry(tensor.name, tensor.shape, read, tensor.dtype)


def _content(file: Path) -> Tensor:
    """Return the bytes of a file: mapped, not read."""
    return torch.from_file(str(file), shared=False, size=file.stat().st_size, dtype=torch.uint8)


def _identity(tensor: Tensor) -> Tensor:
    return tensor


def _places(file: Path) -> dict[str, int]:
    """Return the byte offset of every tensor in a valid safetensors file."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    return {
        key: 8 + length + about["data_offsets"][0] for key, about in header.items() if key != "__metadata__"
    }


def _mapped(content: Tensor, place: int, dtype: torch.dtype, shape: Shape) -> Tensor:
    """Return a view of a mapped file.

    The library's own reader reads ahead, also what is never used.
    """
    size = math.prod(shape) * dtype.itemsize
    return content[place : place + size].view(dtype).view(shape)


def _load_pickle(file: Path) -> Mapping[str, object]:
    """Load a .pth state dict memory-mapped; refuse a pickle that holds anything but plain data."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and "unsupported" in str(error).lower():
            raise CheckpointError(f"{file}: {RUNS_CODE}") from None
        raise CheckpointError(
            f"{file}: broken or truncated ({first_line(error)}); download it again"
        ) from None
    content = unwrapped(content)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: holds a {type(content).__name__}, not a table of tensors")
    return content


def read_scales(place: Path, table: KeyTable, found: Mapping[str, Entry]) -> dict[str, Tensor]:
    """Return the scale of every layer with HunyuanVideo's published float8 weights, from the map beside them.

    Raises:
        CheckpointError: a layer without a scale, or a scale without a layer.
    """
    file, folder = weight_files(place)[0], place if place.is_dir() else place.parent
    maps = [] if file.suffix == ".safetensors" else sorted(folder.glob(SCALES))
    layers = {name.removesuffix(".weight") for name, entry in found.items() if is_quantized(entry.dtype)}
    if not layers or not (maps or file.name.endswith(FLOAT8)):
        return {}
    if not maps:
        raise CheckpointError(f"{place}: float8 weights without scales; {file.stem}_map.pt is missing")
    scales = {
        ours.removesuffix(".weight"): torch.as_tensor(scale)
        for name, scale in _load_pickle(maps[0]).items()
        if isinstance(scale, Tensor | float | int)
        for ours in table.names(f"{name}.weight")
    }
    if different := sorted(layers ^ scales.keys()):
        listed = ", ".join(different[:LISTED])
        raise CheckpointError(f"{maps[0]}: its scales are not those of the float8 layers ({listed})")
    return scales


def check_counts(values: object, found: Mapping[str, Entry]) -> None:
    """Refuse a config whose numbers of layers or sizes are beyond its tensors, before it is built.

    Raises:
        ValueError: the first one.
    """
    numbers = (int(part) for name in found for part in name.split(".") if part.isdecimal())
    most_layers = max(FEW_LAYERS, 1 + max(numbers, default=0))

    def check(name: str, value: object) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                check(str(key), inner)
        elif isinstance(value, list | tuple):
            if len(value) > LONGEST_LIST:
                raise ValueError(f"{name} is a list of {len(value)}")
            for inner in value:
                check(name, inner)
        elif isinstance(value, int):
            most = most_layers if COUNT.search(name) else LARGEST_SIZE
            if value > most:
                raise ValueError(f"{name} is {value}, its tensors allow {most}")

    check("config", values)


def meta_module(build: Callable[[], nn.Module], place: Path, found: Mapping[str, Entry]) -> nn.Module:
    """Build a module on the meta device and check that its names and shapes match a checkpoint.

    Raises:
        CheckpointError: missing, unexpected or wrong-shaped tensors; the first few are listed.
    """
    with init_empty_weights():
        module = build()
    expected = {name: tuple(tensor.shape) for name, tensor in _weights(module)}
    missing = [f"missing {name}" for name in expected if name not in found]
    unexpected = [f"unexpected {entry.key}" for name, entry in found.items() if name not in expected]
    shapes = [
        f"{entry.key} is {list(entry.shape)}, expected {list(expected[name])}"
        for name, entry in found.items()
        if name in expected and not _same(expected[name], entry.shape)
    ]
    problems = missing + unexpected + shapes
    if problems:
        more = f" and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        listed = "; ".join(problems[:LISTED])
        raise CheckpointError(f"{place}: does not fit the model: {listed}{more}; check --model_id")
    return module


def _same(expected: Shape, found: Shape) -> bool:
    """Return True if shapes are equal up to leading ones (published embeddings keep a batch axis)."""
    extra = len(found) - len(expected)
    return expected == found or (extra > 0 and set(found[:extra]) == {1} and found[extra:] == expected)


def load_weights(
    module: nn.Module,
    found: Mapping[str, Entry],
    dtype_of: Callable[[str], torch.dtype],
    device: torch.device | None = None,
    keeps_quantized: Callable[[str], bool] = lambda _: False,
    on_read: Callable[[int], None] = lambda _: None,
) -> nn.Module:
    """Assign tensors to a meta module: memory-mapped if the dtype fits, else moved and cast.

    Args:
        module: result of ``meta_module``; it is changed in place.
        found: entries of the weight files, by our names.
        dtype_of: name -> dtype.
        device: target; None is the CPU. Tensors are cast there, after the move.
        keeps_quantized: name of a linear layer's weight -> whether it stays in the format of its file.
        on_read: called with the number of elements of every tensor that has been read.
    """
    move = _mover(device)
    kept = {
        name
        for name, entry in found.items()
        if is_quantized(entry.dtype) and name.endswith(".weight") and keeps_quantized(name)
        if isinstance(module.get_submodule(name.removesuffix(".weight")), nn.Linear)
    }

    def converted(item: tuple[str, Tensor]) -> tuple[str, Tensor]:
        name, tensor = item
        entry = found[name]
        stored = entry.read()
        if name in kept:
            return name, move(stored)
        if is_quantized(entry.dtype):
            scale = None if entry.scale is None else move(entry.scale.read())
            stored = quantized_linear.dequantize(move(stored), entry.dtype, scale)
        return name, _convert(stored.view(tensor.shape), dtype_of(name), move)

    state = {}
    with ThreadPoolExecutor(READERS) as pool:  # parallel reads are faster
        for name, tensor in pool.map(converted, _weights(module)):
            state[name] = tensor
            on_read(math.prod(found[name].shape))
    for name in kept:
        entry, layer = found[name], module.get_submodule(name.removesuffix(".weight"))
        scale = None if entry.scale is None else entry.scale.read()
        quantized_linear.install(layer, state.pop(name), entry.dtype, scale)
    module.load_state_dict(state, strict=False, assign=True)  # meta_module() has checked; tied names follow
    if hasattr(module, "tie_weights"):
        cast(PreTrainedModel, module).tie_weights()
    left = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    assert not left, left
    return module.eval().requires_grad_(False)


def _weights(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the module's own tensors; tied names are left out."""
    tied = set(getattr(module, "_tied_weights_keys", None) or ())
    return [(name, tensor) for name, tensor in module.state_dict().items() if name not in tied]


def _mover(device: torch.device | None) -> Callable[[Tensor], Tensor]:
    """Return a function that moves a tensor to a device; None is the CPU, where it stays mapped."""
    if device is None:
        return _identity
    return Uploader(device) if device.type == "cuda" else lambda tensor: tensor.to(device)


def _convert(tensor: Tensor, dtype: torch.dtype, move: Callable[[Tensor], Tensor]) -> Tensor:
    """Move and cast a tensor."""
    moved = move(tensor)
    return moved.to(dtype) if tensor.is_floating_point() else moved
