"""Files written whole or not at all, free names, JSON, and the folder of videogen's own cache."""

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


class OutputError(VideoGenError):
    """A result that could not be written."""


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """What goes wrong while a file is written becomes an OutputError that names it."""
    try:
        yield
    except OSError as error:
        fix = "free some space or choose another --output"
        raise OutputError(f"{target}: {error.strerror or error}; {fix}") from None


def save_tensors(target: Path, tensors: Mapping[str, Any]) -> None:
    """Write a safetensors file whole."""
    from safetensors.torch import save  # noqa: PLC0415 - torch

    with pending(target) as temporary, writing(target):
        temporary.write_bytes(save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))
        temporary.replace(target)


@contextmanager
def pending(target: Path) -> Iterator[Path]:
    """A temporary sibling of ``target``, gone at the end unless it was renamed."""
    clean_stale(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part{target.suffix}")
    try:
        yield temporary
    finally:
        remove(temporary)


def publish(temporary: Path, target: Path, *, may_replace: bool) -> Path:
    """Rename a finished file or folder into place, in one step; returns the name it got.

    Where the target exists and may not be replaced (another process was faster), a number is added: nothing
    that is finished is ever lost.
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
    raise AssertionError("numbers do not end")


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Rename, but fail where the name is taken."""
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
    """Delete a file or a folder, if there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def clean_stale(target: Path) -> None:
    """Remove what killed processes left behind for this target."""
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
    """a.mp4, a_2.mp4, a_3.mp4, ..."""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}_{number}{path.suffix}")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole: a temporary sibling, then a rename."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(file: Path) -> dict:
    """A JSON object, or a CheckpointError that names the file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not readable as JSON ({error}); download it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: not a JSON object; download it again")
    return content


def cache_root() -> Path:
    """Folder for what videogen itself keeps: $VIDEOGEN_CACHE, else the user's cache folder."""
    if root := os.environ.get("VIDEOGEN_CACHE"):
        return Path(root).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    root_path = Path(base).expanduser() if base else Path.home() / ".cache"
    if os.access(root_path if root_path.exists() else root_path.parent, os.W_OK):
        return root_path / "videogen"
    return Path(tempfile.gettempdir()) / f"videogen-{getpass.getuser()}"
