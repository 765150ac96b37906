"""Names and shapes of the tensors in weight files, without torch and without reading a tensor.

A model's features follow from its shapes, so it is validated before any framework is imported.
"""

import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from videogen.errors import CheckpointError

Shape = tuple[int, ...]
LONGEST = 16 << 20  # largest pickle to inspect, in bytes; a thousand tensors take 0.1 MB
WRAPPERS = ("module", "state_dict")  # keys under which training code stores weights


def tensor_shapes(files: Sequence[Path]) -> dict[str, Shape]:
    """Return name -> shape over all files; empty for pickles too old to inspect.

    Raises:
        CheckpointError: a broken or truncated file.
    """
    shapes: dict[str, Shape] = {}
    for file in files:
        shapes |= _safetensors(file) if file.suffix == ".safetensors" else dict(_pickled(file))
    return shapes


def check(file: Path) -> None:
    """Refuse a safetensors file whose header and size disagree, and a .pth that lost its end.

    Raises:
        CheckpointError: it is broken or truncated.
    """
    if file.suffix == ".safetensors":
        _safetensors(file)
        return
    with file.open("rb") as opened:
        packed = opened.read(2) == b"PK"
    if packed and not zipfile.is_zipfile(file):
        raise CheckpointError(f"{file}: broken or truncated (its end is missing); download it again")


def unwrapped(content: Any) -> Any:
    """Return the table of tensors inside a pickle's content."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    return content


def _safetensors(file: Path) -> dict[str, Shape]:
    try:
        with safe_open(file, framework="numpy") as handle:
            return {key: tuple(handle.get_slice(key).get_shape()) for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: broken or truncated ({error}); download it again") from None


def _pickled(file: Path) -> Iterator[tuple[str, Shape]]:
    """Yield names and shapes from a torch.save file, which is a zip with a pickle in it."""
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            (entry,) = (info for info in archive.infolist() if info.filename.endswith("/data.pkl"))
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > LONGEST:
                return  # not written by torch.save; torch.load decides later
            with archive.open(entry) as stream:
                content = ShapeUnpickler(stream).load()
    except Exception as error:
        raise CheckpointError(f"{file}: broken or truncated ({error}); download it again") from None
    table = unwrapped(content)
    for name, shape in table.items() if isinstance(table, Mapping) else ():
        if isinstance(name, str) and isinstance(shape, tuple) and all(isinstance(n, int) for n in shape):
            yield name, shape


class _Table(dict):
    """Dictionary that accepts a pickled state, as OrderedDict does."""

    def __setstate__(self, state: object) -> None:
        pass


class _Anything:
    """Placeholder for any other object a pickle names; can be called and filled, and does nothing."""

    def __new__(cls, *_: object, **__: object) -> "_Anything":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


class _Call:
    """Placeholder for a callable that a pickle names; nothing can be set on it."""

    __slots__ = ("make",)
    make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self.make(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)

    def __setstate__(self, state: object) -> None:
        pass


class ShapeUnpickler(pickle.Unpickler):
    """Unpickler that turns tensors into shapes.

    No name is ever imported, so no code in the pickle can run.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name.startswith("_rebuild_tensor_v"):
            return _Call(lambda _storage, _offset, size, *_: tuple(size))
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _Call(lambda data, *_: data)
        return _Call(lambda *_: _Table()) if name == "OrderedDict" else _Call(lambda *_: _Anything())

    def persistent_load(self, pid: object) -> None:
        """Ignore storages: they are not read."""
