"""Folders of the cache and for temporary files: which variable to set where one cannot be used."""

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from videogen.errors import CheckpointError, FolderError, VideoGenError, chain_of
from videogen.files import cache_root, free_bytes, work_folder

FULL = (errno.ENOSPC, errno.EDQUOT)
FEW_BYTES = 1 << 20  # a disk with less is full


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder for temporary files, which is removed at the end.

    Raises:
        FolderError: there is none, or not where $TMPDIR says: Python would take another without a word.
    """
    wanted = os.environ.get("TMPDIR")
    with ExitStack() as stack:
        try:
            if wanted:
                with tempfile.TemporaryFile(dir=wanted) as file:
                    file.write(b"written")
                    file.flush()
            folder = stack.enter_context(work_folder())
        except OSError as error:
            raise FolderError(_advice("the temporary folder", wanted, error.strerror, "TMPDIR")) from None
        yield folder


def check_cache() -> None:
    """Refuse variables that name no cache folder at all.

    Raises:
        FolderError: the home of a user who does not exist.
    """
    try:
        cache_root()
    except (RuntimeError, KeyError, OSError):
        given = os.environ.get("VIDEOGEN_CACHE") or os.environ.get("XDG_CACHE_HOME")
        what = "there is no such user"
        raise FolderError(_advice("the cache folder", given, what, "VIDEOGEN_CACHE")) from None


def trouble(error: BaseException) -> str | None:
    """Return what to say where a cache or temporary folder could not be used; None for other errors."""
    if isinstance(error, VideoGenError) and not isinstance(error, CheckpointError):
        return None
    for one in chain_of(error):
        if not isinstance(one, OSError) or one.errno is None:
            continue
        for what, folder, variable in _folders():
            named = str(one.filename or "").startswith(str(folder))
            if named or (one.filename is None and one.errno in FULL and free_bytes(folder) < FEW_BYTES):
                return _advice(what, folder, one.strerror, variable)
    return None


def _folders() -> Iterator[tuple[str, Path, str]]:
    """Yield the folders in use, each with the variable that says where it is."""
    yield "the cache folder", cache_root(), "VIDEOGEN_CACHE"
    if hub := sys.modules.get("huggingface_hub.constants"):
        yield "the cache folder of models", Path(hub.HF_HOME), "HF_HOME"
        yield "the cache folder of models", Path(hub.HF_HUB_CACHE), "HF_HUB_CACHE"
    yield "the temporary folder", Path(tempfile.gettempdir(), ".videogen-work."), "TMPDIR"


def _advice(what: str, folder: object, problem: str | None, variable: str) -> str:
    named = f"{what} {folder}" if folder else what
    return (
        f"{named}: {problem or 'cannot be used'}; set {variable} to a folder with space that can be written"
    )
