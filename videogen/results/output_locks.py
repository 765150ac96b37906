"""Locks of results: of two processes that would write one result, the second is refused."""

import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from videogen import files


class OutputLocks:
    """Locks that this run holds until the block ends: a file ``.NAME.lock`` for each result, beside it.

    The file itself is locked, so a killed run leaves a file that locks nothing. On file systems without locks
    the file alone counts, and after a kill it must be deleted by hand; so it says whose it is.
    """

    def __init__(self) -> None:
        self.held: dict[Path, int | None] = {}
        self.made: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for path, descriptor in self.held.items():
            files.remove(path)
            files.close(descriptor)
        for folder in self.made:
            with suppress(OSError):  # there are results in it
                folder.rmdir()
        self.held, self.made = {}, []

    def release(self, folder: Path, name: str) -> None:
        """Unlock the results ``name`` in ``folder``, so that another process can lock them."""
        path = folder.absolute() / f".{name}.lock"
        if path in self.held:
            files.remove(path)
            files.close(self.held.pop(path))

    def acquire(self, folder: Path, name: str) -> str | None:
        """Lock the results ``name`` in ``folder``, which is made; return who has them instead, or None."""
        path = folder.absolute() / f".{name}.lock"
        while path not in self.held:
            missing = [parent for parent in path.parents if not parent.exists()]
            self.made = [*missing, *self.made]
            files.make_folder_of(path)
            with suppress(FileNotFoundError):  # its owner has just removed it
                created = _create(path)
                descriptor = files.open_to_lock(path)
                locked = files.lock(descriptor)
                if locked is False or (locked is None and not created):
                    files.close(descriptor)
                    return _owner(path, certain=locked is False)
                if locked is None or files.is_file_of(descriptor, path):
                    self.held[path] = descriptor
                    path.write_text(f"{platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
                else:
                    files.close(descriptor)
        return None


def _create(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _owner(path: Path, *, certain: bool) -> str:
    with suppress(OSError, ValueError):
        owner = path.read_text(encoding="utf-8").strip() or "just begun"
        return owner if certain else f"{owner}; if that run is gone, delete {path.name}"
    return "now ended"
