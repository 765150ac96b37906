"""Files that grow by whole lines, also when several processes append to one at the same time."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import compress
from pathlib import Path

from videogen import files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def append(path: Path, text: str, *, header: str = "") -> None:
    """Append lines to a file, all of them or none; a new or empty file begins with ``header``.

    Its folder is made if it is missing. The lock is for file systems on which appending alone does not keep
    writers apart (NFS). A line that a crash of the machine cut off is ended first.

    Raises:
        OutputError: they cannot be written.
    """
    with _locked(path) as (descriptor, _):
        size = os.fstat(descriptor).st_size
        cut_off = size and os.pread(descriptor, 1, size - 1) != b"\n"
        content = (b"\n" if cut_off else b"" if size else header.encode()) + text.encode()
        if (written := os.write(descriptor, content)) < len(content):
            os.ftruncate(descriptor, size)
            what = f"only {written} of {len(content)} bytes fit"
            raise files.WritingError(what, "free some space")


def keep_lines(path: Path, is_kept: Callable[[str], bool]) -> None:
    """Remove the other lines of a file, unless nothing keeps writers apart there; others may be appending.

    Raises:
        OutputError: it cannot be written.
    """
    with _locked(path) as (_, alone):
        lines = files.read_text(path).splitlines(keepends=True)
        if alone and not all(kept := [is_kept(line.rstrip("\n")) for line in lines]):
            files.write_text(path.resolve(), "".join(compress(lines, kept)))


@contextmanager
def _locked(path: Path) -> Iterator[tuple[int, bool]]:
    """Open a file to append to it, and lock it; yields a descriptor, and False where there are no locks.

    A file that was replaced or deleted while this waited is opened anew.
    """
    with files.writing(path):
        files.make_folder_of(path)
        is_current = False
        while not is_current:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            try:
                locked = _lock(descriptor)
                if is_current := files.is_file_of(descriptor, path.resolve()):
                    yield descriptor, locked
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Wait for the lock of an open file; return False where there are none."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return fcntl is not None
