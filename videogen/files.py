"""Atomic writes (a temporary file, renamed when it is complete), free names, JSON, and the cache folder."""

import getpass
import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from videogen.errors import CheckpointError, VideoGenError

LARGEST_TEXT = 50_000_000  # bytes
LARGEST_JSON = 16_000_000  # bytes of a document; Python needs about twenty times as many for it
DEEPEST = 64  # lists and mappings inside each other


class TextError(ValueError):
    """Error for a text file that cannot be read, with a fix."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.fix = fix


class OutputError(VideoGenError):
    """Error for a result that could not be written."""


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn an OSError in the block into an OutputError that names ``target``."""
    try:
        yield
    except OSError as error:
        fix = "free some space or choose another --output"
        raise OutputError(f"{target}: {error.strerror or error}; {fix}") from None


def save_tensors(target: Path, tensors: Mapping[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically."""
    from safetensors.torch import save  # noqa: PLC0415 - torch

    on_cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(target) as temporary:
        temporary.write_bytes(save(on_cpu, metadata))


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; rename it to ``target`` if the block succeeds, else remove it."""
    with temporary_sibling(target) as temporary:
        yield temporary
        temporary.replace(target)


@contextmanager
def temporary_sibling(target: Path) -> Iterator[Path]:
    """Yield a hidden temporary path beside ``target``, and remove at the end what is still there."""
    clean_stale(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part{target.suffix}")
    try:
        yield temporary
    finally:
        remove(temporary)


def publish(temporary: Path, target: Path, *, may_replace: bool) -> Path:
    """Rename a finished file or folder to ``target`` and return the name it got.

    If the target exists (another process was faster) and ``may_replace`` is false, a number is added to the
    name, so that no finished result is lost.
    """
    if may_replace and target.is_dir():
        aside = target.with_name(f".{target.name}.{os.getpid()}.old")
        target.rename(aside)
        temporary.rename(target)
        remove(aside)
        return target
    if may_replace:
        temporary.replace(target)
        return target
    for path in numbered(target):
        try:
            _rename_to_new(temporary, path)
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable")


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Rename ``temporary`` to ``path``.

    Raises:
        FileExistsError: ``path`` exists.
    """
    if temporary.is_file():
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            pass
        else:
            temporary.unlink()
            return
    if path.exists():
        raise FileExistsError(path)
    temporary.rename(path)


def remove(path: Path) -> None:
    """Delete a file or a folder if it exists."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def clean_stale(target: Path) -> None:
    """Remove temporary files for ``target`` of processes that no longer run."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*"):
        match = re.fullmatch(rf"\.{re.escape(target.name)}\.(\d+)\.(part.*|old)", path.name)
        if match and not _alive(int(match[1])):
            remove(path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def numbered(path: Path) -> Iterator[Path]:
    """Yield a.mp4, a_2.mp4, a_3.mp4, ..."""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}_{number}{path.suffix}")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(file: Path, limit: int = LARGEST_TEXT) -> str:
    """Read a regular UTF-8 file of at most ``limit`` bytes.

    Raises:
        TextError: it is none, or cannot be read.
    """
    try:
        if file.exists() and not file.is_file():  # reading a pipe or a device may never end
            raise TextError("is not a regular file", "give a text file")
        with file.open("rb") as opened:
            content = opened.read(limit + 1)
    except OSError as error:
        raise TextError(f"cannot be read ({error.strerror})", "check the path") from None
    if len(content) > limit:
        raise TextError(f"larger than {limit / 1e6:g} MB", "split it")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise TextError("is not UTF-8 text", "save it as UTF-8") from None


def parse_json(text: str) -> Any:
    """Parse JSON whose lists are at most ``DEEPEST`` deep, and whose strings are Unicode.

    Raises:
        ValueError: it is none; the message says why.
    """
    if len(text) > LARGEST_JSON:
        raise ValueError(f"larger than {LARGEST_JSON / 1e6:.0f} MB")
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_plain(content)
    return content


def check_plain(content: object) -> None:
    """Refuse what was parsed, if it is nested too deeply to be handled, or cannot be written as UTF-8.

    Raises:
        ValueError: the message says why.
    """
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ValueError("nested too deeply")
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                if not item.isascii():
                    item.encode()  # half of a surrogate pair is a UnicodeEncodeError, which is a ValueError
            elif isinstance(item, Mapping):
                below += (*item.keys(), *item.values())
            elif isinstance(item, list | tuple | set):
                below += item
        level = below


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object of a checkpoint.

    Raises:
        CheckpointError: the file is not readable or not a JSON object.
    """
    try:
        content = parse_json(read_text(file, LARGEST_JSON))
    except ValueError as error:
        raise CheckpointError(f"{file}: not readable as JSON ({error}); download it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: not a JSON object; download it again")
    return content


def cache_root() -> Path:
    """Return videogen's cache folder: $VIDEOGEN_CACHE, else one in the user's cache folder."""
    if root := os.environ.get("VIDEOGEN_CACHE"):
        return Path(root).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    root_path = Path(base).expanduser() if base else Path.home() / ".cache"
    if os.access(root_path if root_path.exists() else root_path.parent, os.W_OK):
        return root_path / "videogen"
    return Path(tempfile.gettempdir()) / f"videogen-{getpass.getuser()}"
