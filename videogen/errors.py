"""Errors that end a run, each with the exit code of the command line contract."""

import difflib
import errno
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# How torch, its libraries, the C++ runtime and the operating system say that memory ran out.
OUT_OF_MEMORY = re.compile(
    r"out of memory|outofmemory|(can.?t|cannot|unable to|failed to) allocate|not enough memory|bad_?alloc"
    r"|alloc(ation)?_failed|could not create a (primitive|memory)|can.?t start new thread",
    re.IGNORECASE,
)

SIMILAR = 0.75  # share of equal letters; with less, what is named as nearest is mostly something else


class VideoGenError(Exception):
    """Anything the user is told in one line. ``exit_code`` is what the command line returns."""

    exit_code = 1


class InputError(VideoGenError):
    """An argument or an input file that cannot be used.

    Args:
        flag: the flag as the user types it.
        given: what was given; None when nothing was.
        allowed: what is allowed.
        fix: the nearest thing that would work.
    """

    exit_code = 2

    def __init__(self, flag: str, given: object, allowed: str, fix: str) -> None:
        super().__init__(f"{flag if given is None else f'{flag} {brief(given)}'}: {allowed}; {fix}")
        self.flag, self.given, self.verdict = flag, given, f"{allowed}; {fix}"


class CallError(InputError, ValueError):
    """An argument of a Python call that cannot be used; a ValueError, as diffusers raises."""


class CheckpointError(VideoGenError):
    """A model folder, hub repository or weight file that is missing, incomplete or not what it should be."""

    exit_code = 3


class FolderError(VideoGenError):
    """A cache or temporary folder that cannot be used; the message names the variable to set."""

    exit_code = 3


class OutOfMemoryError(VideoGenError):
    """The device or the machine ran out of memory."""

    exit_code = 4


class CancelledError(VideoGenError):
    """A video that was called off while it was being made, or before."""

    exit_code = 130


@contextmanager
def reported_as(explain: Callable[[str], VideoGenError]) -> Iterator[None]:
    """Turn whatever a reader raises in the block into the error that ``explain`` makes of its message.

    Libraries raise errors of many kinds about damaged files, so the kinds are not listed. Errors for users
    pass, and a lack of memory. What was raised becomes a note, not the cause: a file that asks for gigabytes
    is damaged, and no lack of memory.
    """
    failure: VideoGenError | None = None
    try:
        yield
    except (VideoGenError, MemoryError):
        raise
    except Exception as error:
        failure = explain(brief(first_line(error), 200))
        failure.add_note(traceback.format_exc())
    if failure is not None:
        raise failure


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, and all that it came from or was raised after."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or one in seen:
            continue
        seen.append(one)
        yield one
        waiting += [one.__context__, one.__cause__, *getattr(one, "exceptions", ())]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, however a library spells it, and whatever was raised after it.

    What this project says itself may quote a file name or a prompt, and is not searched for words.
    """
    return any(
        isinstance(one, MemoryError | OutOfMemoryError)
        or (isinstance(one, OSError) and one.errno == errno.ENOMEM)
        or (not isinstance(one, VideoGenError) and bool(OUT_OF_MEMORY.search(f"{type(one).__name__}: {one}")))
        for one in chain_of(error)
    )


def exit_code_of(error: BaseException) -> int:
    """Return the exit code that an error ends a run of one video with."""
    if isinstance(error, VideoGenError):
        return error.exit_code
    return OutOfMemoryError.exit_code if is_out_of_memory(error) else 1


def brief(value: object, limit: int = 80) -> str:
    """Return one short line for a value of any length: the end of a path, the beginning of anything else."""
    line = " ".join(str(value).split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    if len(line) > limit:
        is_path = isinstance(value, Path) or line.startswith("/")
        return f"…{line[1 - limit :]}" if is_path else f"{line[: limit - 1]}…"
    return line or repr("")


def one_line(error: BaseException) -> str:
    """Return all that an exception says in one line, with its type where that is needed to understand it."""
    text = " ".join(str(error).split())
    return (
        text if text and isinstance(error, VideoGenError) else f"{type(error).__name__}: {text}".rstrip(": ")
    )


def first_line(error: BaseException) -> str:
    """Return what an exception says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the closest of ``words`` to ``word``, if any is so close that it was probably meant."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=SIMILAR)
    return close[0] if close else None


def or_error(write: Callable[[], T]) -> T | VideoGenError:
    """Return what a function returns, or its error, unless that concerns more than this one item."""
    try:
        return write()
    except (CheckpointError, OutOfMemoryError):
        raise
    except VideoGenError as error:
        return error
