"""Names and shapes of the tensors in weight files, without torch and without reading a tensor.

A model's features follow from its shapes, so it is validated before any framework is imported.
"""

import pickletools
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from safetensors import safe_open

from videogen.errors import CheckpointError, reported_as

Shape = tuple[int, ...]
LONGEST = 4_000_000  # bytes of a header; a thousand tensors take 0.1 MB
LONGEST_PICKLE = 1_000_000  # bytes; they take 0.1 MB there as well, but more time
MOST_AXES = 8
MOST_PARTS = 100_000  # entries of a zip file; torch.save writes one per tensor
WRAPPERS = ("module", "state_dict")  # keys under which training code stores weights


def tensor_shapes(files: Sequence[Path]) -> dict[str, Shape]:
    """Return name -> shape over all files; empty for pickles too old to inspect.

    Raises:
        CheckpointError: a broken or truncated file.
    """
    shapes: dict[str, Shape] = {}
    for file in files:
        shapes |= _safetensors(file) if file.suffix == ".safetensors" else _pickled(file)
    return shapes


def check(file: Path) -> None:
    """Refuse a weight file whose header cannot be read, disagrees with its size, or lost its end.

    Raises:
        CheckpointError: it is broken or truncated.
    """
    if file.suffix == ".safetensors":
        _safetensors(file)
        return
    with _reading(file), file.open("rb") as opened:
        if opened.read(2) == b"PK" and not zipfile.is_zipfile(file):
            raise ValueError("its end is missing")
    _pickled(file)


def unwrapped(content: object) -> object:
    """Return the table of tensors inside a pickle's content."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    return content


def _reading(file: Path) -> AbstractContextManager[None]:
    return reported_as(lambda why: CheckpointError(f"{file}: broken or truncated ({why}); download it again"))


def _safetensors(file: Path) -> dict[str, Shape]:
    with _reading(file):
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
        if LONGEST < length < file.stat().st_size:  # a longer one is a damaged file, as the library says
            raise ValueError(f"its header has {length / 1e6:.0f} MB, more than {LONGEST / 1e6:.0f}")
        with safe_open(file, framework="numpy") as handle:
            return {key: tuple(handle.get_slice(key).get_shape()) for key in handle.keys()}  # noqa: SIM118


def _pickled(file: Path) -> dict[str, Shape]:
    """Return names and shapes from a torch.save file, a zip with a pickle in it; {} if older."""
    with _reading(file):
        if not zipfile.is_zipfile(file):
            return {}
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            (entry,) = (info for info in entries if info.filename.endswith("/data.pkl"))
            if any(info.compress_type != zipfile.ZIP_STORED for info in entries):
                raise ValueError("its entries are compressed")
            if max(entry.file_size, entry.compress_size) > LONGEST_PICKLE or len(entries) > MOST_PARTS:
                raise ValueError("its table of tensors is too large")
            table = unwrapped(_content(archive.read(entry)))
    return {
        name: value.shape
        for name, value in (table.items() if isinstance(table, dict) else ())
        if isinstance(value, _Tensor)
    }


class _Tensor:
    """A tensor in a pickle, of which only the shape is kept."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape


def _content(pickled: bytes) -> object:
    """Return the content of a pickle: dictionaries with names as keys, tuples, numbers, texts and tensors.

    Its instructions are followed here and not by ``pickle``, which imports what they name and lets a few
    bytes ask for gigabytes. Anything else becomes None.
    """
    stack: list[object] = []
    marks: list[int] = []
    stored: dict[object, object] = {}
    for code, value, _ in pickletools.genops(pickled):
        if code.name == "MARK":
            marks.append(len(stack))
        elif code.name == "STOP":
            return stack[-1]
        elif code.name.endswith("PUT"):
            stored[value] = stack[-1]
        else:
            made = _made(code.name, value, _taken(code, stack, marks), stored)
            stack += [made] * len(code.stack_after)
    raise AssertionError("unreachable: genops wants a STOP")


def _taken(code: pickletools.OpcodeInfo, stack: list[object], marks: list[int]) -> list[object]:
    """Take from the stack what an instruction uses: the last items, or those from before the last mark on."""
    count, above = len(code.stack_before), len(stack)
    if pickletools.markobject in code.stack_before:
        count, above = code.stack_before.index(pickletools.markobject), marks.pop()
    if above - count < (marks[-1] if marks else 0):
        raise ValueError("its table of tensors is damaged")
    items = stack[above - count :]
    del stack[above - count :]
    return items


def _made(name: str, value: object, items: list[object], stored: dict[object, object]) -> object:
    """Return what an instruction makes of its own value and of the items that it took."""
    made = value
    match name:
        case "GET" | "BINGET" | "LONG_BINGET":
            made = stored[value]
        case "MEMOIZE":
            made = stored[len(stored)] = items[0]
        case "EMPTY_DICT":
            made = {}
        case "TUPLE" | "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
            made = tuple(items)
        case "SETITEM" | "SETITEMS":
            made = items[0]
            _fill(made, items[1:])
        case "BUILD":  # items[1] is a state to set
            made = items[0]
        case "REDUCE":
            made = _result(*items)
        case "STACK_GLOBAL" if all(isinstance(item, str) for item in items):
            made = " ".join(map(str, items))
    return made


def _fill(table: object, pairs: list[object]) -> None:
    """Put the pairs whose key is a name into a dictionary."""
    if isinstance(table, dict):
        table.update(
            (key, value) for key, value in zip(pairs[::2], pairs[1::2], strict=True) if isinstance(key, str)
        )


def _result(called: object, arguments: object) -> object:
    """Return what a pickle makes by calling a name: a tensor, a dictionary, or else None."""
    match called, arguments:
        case "torch._utils _rebuild_parameter", (_Tensor() as tensor, *_):
            return tensor
        case str(name), (_, _, tuple(size), *_) if name.startswith("torch._utils _rebuild_tensor_v"):
            if len(size) > MOST_AXES or not all(isinstance(n, int) and 0 <= n < 1 << 48 for n in size):
                raise ValueError("a tensor has no possible shape")
            return _Tensor(size)
        case "collections OrderedDict", _:
            return {}
    return None
