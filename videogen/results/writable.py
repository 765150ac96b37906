"""Checks that a file can be written, before anything is made that would be lost."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from videogen.errors import InputError


def check_file(
    flag: str,
    path: Path,
    suffixes: Sequence[str],
    *,
    may_replace: bool,
    fix: str = "add --overwrite, or choose another name",
) -> None:
    """Refuse a file that could not be written at the end of a run.

    Args:
        suffixes: the ones that it may have.
        may_replace: a file that is there may be replaced.
        fix: what to do where one is there that may not.

    Raises:
        InputError: another suffix, what is there already, or a folder that cannot be written.
    """
    if path.suffix.lower() not in suffixes:
        near = f"try {path.with_name(path.stem + suffixes[0])}"
        raise InputError(flag, path, f"must end in {', '.join(suffixes)}", near)
    if path.is_dir():
        raise InputError(flag, path, "is a folder", "choose another name")
    if path.exists() and not may_replace:
        raise InputError(flag, path, "exists already", fix)
    check_writable(flag, path.parent)


def check_writable(flag: str, folder: Path) -> None:
    """Check that ``folder`` is writable or can be created; leave nothing behind.

    Raises:
        InputError: it cannot.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    problem = None
    if not there.is_dir():
        problem = f"{there} is a file"
    elif not there.stat().st_mode & 0o222 or not os.access(
        there, os.W_OK
    ):  # root could, but was asked not to
        problem = "is not writable"
    else:
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            problem = f"is not writable ({error.strerror})"
    if problem:
        raise InputError(flag, folder, problem, "choose another folder")
