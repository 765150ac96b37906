"""Digests of files and folders of a result."""

import hashlib
from contextlib import suppress
from functools import cache
from pathlib import Path


def digest(path: Path) -> dict[str, int | str]:
    """Return size in bytes and SHA-256 of a file, or of a folder's files one after the other."""
    total, content = 0, hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if path.is_dir():
            content.update(file.name.encode())
        with file.open("rb") as opened:
            hashlib.file_digest(opened, lambda: content)
            total += opened.tell()
    return {"bytes": total, "sha256": content.hexdigest()}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file; every state of a large file is read once."""
    about = path.stat()
    return _sha256(path, about.st_size, about.st_mtime_ns)


@cache
def _sha256(path: Path, *_: int) -> str:
    return str(digest(path)["sha256"])


def digest_if_readable(path: Path) -> dict[str, int | str] | None:
    """Return the digest, or None of what is not there or cannot be read."""
    with suppress(OSError, ValueError):  # a damaged record may name what no file can be called
        return digest(path)
    return None
