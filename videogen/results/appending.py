"""Files that grow by whole lines, also when several processes append to one at the same time."""

import os
from contextlib import suppress
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
    with files.writing(path):
        files.make_folder_of(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            if fcntl is not None:
                with suppress(OSError):  # no locks there
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            cut_off = size and os.pread(descriptor, 1, size - 1) != b"\n"
            content = (b"\n" if cut_off else b"" if size else header.encode()) + text.encode()
            if (written := os.write(descriptor, content)) < len(content):
                os.ftruncate(descriptor, size)
                what = f"only {written} of {len(content)} bytes fit"
                raise files.WritingError(what, "free some space")
        finally:
            os.close(descriptor)
