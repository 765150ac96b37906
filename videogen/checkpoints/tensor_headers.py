"""Names, shapes and dtypes of the tensors in weight files, without torch and without reading a tensor.

A model's features follow from its shapes, so it is validated before any framework is imported.
"""

import io
import pickletools
import re
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open

from videogen.checkpoints import gguf_files
from videogen.errors import CheckpointError, brief, reported_as
from videogen.files import parse_json
from videogen.media.file_contents import EDGE, other_content

Shape = tuple[int, ...]
MAX_HEADER_BYTES = 4_000_000  # bytes of a header; a thousand tensors take 0.1 MB
LONGEST_PICKLE = 1_000_000  # bytes; they take 0.1 MB there as well, but more time
MOST_AXES = 8
MOST_PARTS = 100_000  # entries of a zip file; torch.save writes one per tensor
WRAPPERS = ("module", "state_dict")  # keys under which training code stores weights
RUNS_CODE = "refused, because reading this pickle would run code; convert it to safetensors"
PICKLES = {".pt", ".pth", ".bin", ".ckpt"}
# How files begin -> the suffix that says so.
FORMATS = (
    (re.compile(rb"GGUF"), ".gguf"),
    (re.compile(rb"PK\x03\x04"), ".pt"),
    (re.compile(rb".{5}\0{3}\s*\{", re.DOTALL), ".safetensors"),
)
LEGACY = 0x1950A86A20F9469CFC6C  # begins what torch.save wrote before its files were zip files
NAMING = ("GLOBAL", "STACK_GLOBAL", "INST")  # instructions that name what is called
# What a pickle of tensors names; torch refuses to call anything else.
PLAIN = re.compile(
    r"torch(\.(_utils|_tensor|storage|serialization|nn\.parameter|sparse|cuda|cuda\.sparse))? \w+"
    r"|collections (OrderedDict|Counter)|_codecs encode|(builtins|__builtin__) (set|bytearray|complex)"
)


class TensorInfo(NamedTuple):
    """Shape of a tensor, and its dtype as the file calls it; "" where a pickle does not say."""

    shape: Shape
    dtype: str


def tensor_infos(files: Sequence[Path]) -> dict[str, TensorInfo]:
    """Return name -> shape and dtype over all files; empty for pickles too old to inspect.

    Raises:
        CheckpointError: a broken or truncated file, or a tensor that two files hold.
    """
    infos: dict[str, TensorInfo] = {}
    holders: dict[str, Path] = {}
    for file in files:
        found = _tensors(file)
        for name in found:
            check_single(file, holders.setdefault(name, file), name)
        infos |= found
    return infos


def tensor_shapes(files: Sequence[Path]) -> dict[str, Shape]:
    """Return name -> shape over all files (see ``tensor_infos``)."""
    return {name: info.shape for name, info in tensor_infos(files).items()}


def check_single(file: Path, holder: Path, name: str) -> None:
    """Refuse a tensor that another file holds as well.

    Raises:
        CheckpointError: nobody says which of them counts.
    """
    if holder != file:
        what = f"{holder.name} and {file.name} both hold {name}, and no index says which counts"
        raise CheckpointError(f"{file.parent}: {what}; move one of them away")


def check(file: Path) -> None:
    """Refuse a weight file whose header cannot be read, disagrees with its size, or lost its end.

    Raises:
        CheckpointError: it is broken or truncated, or something else altogether.
    """
    _tensors(file)


def refuse_other_content(file: Path) -> None:
    """Refuse a file that is no weight file at all, whatever its name says.

    Raises:
        CheckpointError: with what it is.
    """
    with _reading(file):
        other = other_content(file) or _odd_format(file)
    if other:
        raise CheckpointError(f"{file}: {other}")


def _odd_format(file: Path) -> str | None:
    """Return what a file is that begins like no weights, or like those of another suffix."""
    with file.open("rb") as opened:
        start = opened.read(EDGE)
    is_cut = bool(start) and gguf_files.MAGIC.startswith(start)  # a GGUF file of three bytes is no text
    if not is_cut and start.isascii() and start.translate(None, b"\r\n").decode().isprintable():
        text = start.decode()
        return f"is a text ({brief(repr(text), 60)}), not the file itself; download it again"
    kind = next((kind for begin, kind in FORMATS if begin.match(start)), file.suffix)
    same = {file.suffix, kind} <= PICKLES or file.suffix == kind
    return None if same else f"holds what belongs in a {kind} file; rename it"


def _tensors(file: Path) -> dict[str, TensorInfo]:
    refuse_other_content(file)
    if file.suffix == ".safetensors":
        return _safetensors(file)
    if file.suffix == ".gguf":
        return {tensor.name: TensorInfo(tensor.shape, tensor.dtype) for tensor in gguf_files.tensors(file)}
    with _reading(file), file.open("rb") as opened:
        if opened.read(2) == b"PK" and not zipfile.is_zipfile(file):
            raise ValueError("its end is missing")
    return {name: TensorInfo(shape, "") for name, shape in _pickled(file).items()}


def unwrapped(content: object) -> object:
    """Return the table of tensors inside a pickle's content: its own, or the only one in it."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if isinstance(content, Mapping) and not _holds_tensors(content):
        tables = [table for table in content.values() if isinstance(table, Mapping) and _holds_tensors(table)]
        return tables[0] if len(tables) == 1 else content
    return content


def _holds_tensors(table: Mapping[object, object]) -> bool:
    return any(hasattr(value, "shape") for value in table.values())


def _reading(file: Path) -> AbstractContextManager[None]:
    return reported_as(lambda why: CheckpointError(f"{file}: broken or truncated ({why}); download it again"))


def _safetensors(file: Path) -> dict[str, TensorInfo]:
    with _reading(file):
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if MAX_HEADER_BYTES < length < size:  # a longer one is a damaged file, as the library says
                raise ValueError(
                    f"its header has {length / 1e6:.0f} MB, more than {MAX_HEADER_BYTES / 1e6:.0f}"
                )
            header = opened.read(length) if length < size else b""
        _check_size(header, 8 + length, size)
        with safe_open(file, framework="numpy") as handle:
            slices = {key: handle.get_slice(key) for key in handle.keys()}  # noqa: SIM118
            return {key: TensorInfo(tuple(one.get_shape()), one.get_dtype()) for key, one in slices.items()}


def _check_size(header: bytes, start: int, size: int) -> None:
    """Refuse a file that is shorter than its header says; the library does not say by how much."""
    try:
        tensors = parse_json(header.decode())
        ends = [about["data_offsets"][1] for name, about in tensors.items() if name != "__metadata__"]
        whole = start + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return  # the library says what is wrong
    if whole > size:
        raise ValueError(f"{size:,} of its {whole:,} bytes are there")


def _pickled(file: Path) -> dict[str, Shape]:
    """Return names and shapes from a torch.save file, a zip with a pickle in it, or several pickles.

    {} if it is neither.
    """
    with _reading(file):
        try:
            return _shapes(_zipped(file) if zipfile.is_zipfile(file) else _legacy(file))
        except _RunsCodeError:
            raise CheckpointError(f"{file}: {RUNS_CODE}") from None


def _zipped(file: Path) -> object:
    """Return the content of a zip file with a pickle in it."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        (entry,) = (info for info in entries if info.filename.endswith("/data.pkl"))
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries):
            raise ValueError("its entries are compressed")
        if max(entry.file_size, entry.compress_size) > LONGEST_PICKLE or len(entries) > MOST_PARTS:
            raise ValueError("its table of tensors is too large")
        return _content(archive.read(entry))


def _legacy(file: Path) -> object:
    """Return the content of a file of pickles: a number, a version, facts of the machine, and the tensors."""
    with file.open("rb") as opened:
        pickles = io.BytesIO(opened.read(LONGEST_PICKLE))
    try:
        return [_content(pickles) for _ in range(3)][-1] if _content(pickles) == LEGACY else None
    except (ValueError, LookupError):
        return None


def _shapes(content: object) -> dict[str, Shape]:
    table = unwrapped(content)
    return {
        name: value.shape
        for name, value in (table.items() if isinstance(table, dict) else ())
        if isinstance(value, _Tensor)
    }


class _Tensor:
    """A tensor in a pickle, of which only the shape is kept."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape


class _RunsCodeError(Exception):
    """A pickle that calls something else than what makes tensors."""


def _content(pickled: bytes | io.BytesIO) -> object:
    """Return the content of a pickle: dictionaries with names as keys, tuples, numbers, texts and tensors.

    Its instructions are followed here and not by ``pickle``, which imports what they name and lets a few
    bytes ask for gigabytes. Anything else becomes None.

    Raises:
        _RunsCodeError: it would run code.
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
    if name in NAMING and not PLAIN.fullmatch(str(made)):
        raise _RunsCodeError
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
