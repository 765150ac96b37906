"""Atomic writes (a temporary file, renamed when it is complete), locks, names, JSON, and the cache folder.

A temporary is named ``.NAME.PID-WORD.part.SUFFIX``, with a random word, because in containers every process
has the id 1. Its process holds a lock on it; a temporary without one is stale and is removed by the next
process that writes NAME.
"""

import errno
import getpass
import glob
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videogen.errors import VideoGenError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = Mapping[str, Tensor]

Record = dict[str, Any]
"""Content of a JSON object."""

STALE_AFTER = 86_400  # seconds; where nothing can be locked, a temporary of this age is stale
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of file systems without locks
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


class WritingError(Exception):
    """Error of a writer that does not know its target: what happened, and what to do."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}; {fix}")


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn an OSError in the block into an OutputError that names ``target``."""
    try:
        yield
    except WritingError as error:
        raise OutputError(f"{target}: {error}") from None
    except OSError as error:
        fix = "free some space or choose another --output"
        raise OutputError(f"{target}: {error.strerror or error}; {fix}") from None


def save_tensors(target: Path, tensors: "Tensors", metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically."""
    with atomic_write(target) as temporary:
        write_tensors(temporary, tensors, metadata)


def write_tensors(path: Path, tensors: "Tensors", metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file."""
    from safetensors.torch import save  # noqa: PLC0415 - torch

    on_cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    path.write_bytes(save(on_cpu, metadata))


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a temporary file to write to; rename it to ``target`` if the block succeeds, else remove it."""
    with temporary_sibling(target) as temporary:
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(target)


def make_folder_of(target: Path) -> None:
    """Make the folder of a file that will be written, if it is missing."""
    target.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def temporary_sibling(
    target: Path, *, folder: bool = False, kept_if: Callable[[], bool] = lambda: False
) -> Iterator[Path]:
    """Yield a new, hidden, locked file or folder beside ``target``; at the end remove it, if not ``kept_if``.

    Its folder is made if it is missing. What killed processes left of ``target`` is removed first.
    """
    make_folder_of(target)
    for path in stale_temporaries(target.parent, target.name):
        remove(path)
    is_ours = False
    while not is_ours:
        word = f"{os.getpid()}-{secrets.token_hex(4)}"
        temporary = target.with_name(f".{target.name}.{word}.part{target.suffix}")
        if temporary.exists():
            raise FileExistsError(temporary)
        descriptor = None
        try:  # Ctrl-C may come right after it was created
            descriptor, is_ours = _create_locked(temporary, folder=folder)
            if is_ours:
                yield temporary
        finally:
            if not (is_ours and kept_if()):
                remove(temporary)
            close(descriptor)


@contextmanager
def work_folder() -> Iterator[Path]:
    """Yield a private folder in the system's temporary folder, removed at the end."""
    with temporary_sibling(Path(tempfile.gettempdir()) / "videogen-work", folder=True) as folder:
        folder.chmod(0o700)
        yield folder


def _create_locked(temporary: Path, *, folder: bool) -> tuple[int | None, bool]:
    """Create a temporary and lock it.

    Returns:
        the descriptor that holds the lock, and False if another process took it for a stale one meanwhile.
    """
    if folder:
        temporary.mkdir()
    else:
        temporary.touch(exist_ok=False)
    try:
        descriptor = open_to_lock(temporary)
    except FileNotFoundError:
        return None, False
    locked = lock(descriptor)
    return descriptor, locked is None or (locked and is_file_of(descriptor, temporary))


def open_to_lock(path: Path) -> int | None:
    """Return a descriptor of a file or folder for ``lock``; None where there is no such thing.

    Raises:
        OSError: ``path`` is gone, or may not be opened.
    """
    if fcntl is None:
        return None
    with suppress(IsADirectoryError):  # network file systems lock only what is open for writing
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def lock(descriptor: int | None) -> bool | None:
    """Lock an open file until it is closed: False if another process has it, None if it cannot be locked."""
    if descriptor is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def close(descriptor: int | None) -> None:
    """Close what ``open_to_lock`` returned, and so unlock it."""
    if descriptor is not None:
        os.close(descriptor)


def is_file_of(descriptor: int | None, path: Path) -> bool:
    """Return whether the open file still has this name."""
    if descriptor is None:
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def stale_temporaries(folder: Path, name: str) -> Iterator[Path]:
    """Yield what killed processes left of files with this name; ``*`` in it stands for anything.

    Each is locked while it is the caller's, so that of several processes one gets it.
    """
    pieces = name.split("*")
    pattern = re.compile(rf"\.{'.*'.join(map(re.escape, pieces))}\.\d+(-[0-9a-f]+)?\.(part.*|old)")
    for path in sorted(folder.glob(f".{'*'.join(map(glob.escape, pieces))}.*")):
        if not pattern.fullmatch(path.name):
            continue
        descriptor = None
        try:
            descriptor = open_to_lock(path)
            locked = lock(descriptor)
            if locked or (locked is None and time.time() - path.lstat().st_mtime > STALE_AFTER):
                yield path
        except OSError:  # gone meanwhile, or another user's
            pass
        finally:
            close(descriptor)


def replace(temporary: Path, target: Path) -> None:
    """Rename a file or folder to ``target``, in the place of what is there."""
    if not target.is_dir():
        temporary.replace(target)
        return
    aside = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.old")
    target.rename(aside)
    try:
        temporary.rename(target)
    except OSError:
        aside.rename(target)
        raise
    remove(aside)


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or every file of a folder, is on the disk, so that it survives a power cut."""
    for file in path.iterdir() if path.is_dir() else (path,):
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def rename_to_new(temporary: Path, path: Path) -> None:
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
            remove(temporary)
            return
    if path.exists():
        raise FileExistsError(path)
    temporary.rename(path)


def remove(path: Path) -> None:
    """Delete a file or a folder if it exists and can be deleted; never hide an earlier error by another."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def numbered(path: Path) -> Iterator[Path]:
    """Yield a.mp4, a_2.mp4, a_3.mp4, ..."""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}_{number}{path.suffix}")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file atomically."""
    write_text(path, to_json(content))


def to_json(content: Mapping[str, object]) -> str:
    """Return the text of a JSON file."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


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


def free_bytes(folder: Path) -> int:
    """Return the bytes that are free on the disk where a folder is or will be.

    Raises:
        OSError: the disk does not say.
    """
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def cache_root() -> Path:
    """Return videogen's cache folder: $VIDEOGEN_CACHE, else one in the user's cache folder."""
    if root := os.environ.get("VIDEOGEN_CACHE"):
        return Path(root).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    root_path = Path(base).expanduser() if base else Path.home() / ".cache"
    if os.access(root_path if root_path.exists() else root_path.parent, os.W_OK):
        return root_path / "videogen"
    return Path(tempfile.gettempdir()) / f"videogen-{getpass.getuser()}"
