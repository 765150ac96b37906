"""Errors that end a run, each with the exit code of the command line contract."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


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


class CheckpointError(VideoGenError):
    """A model folder, hub repository or weight file that is missing, incomplete or not what it should be."""

    exit_code = 3


class OutOfMemoryError(VideoGenError):
    """The device or the machine ran out of memory."""

    exit_code = 4


@contextmanager
def reported_as(explain: Callable[[str], VideoGenError]) -> Iterator[None]:
    """Turn whatever a reader raises in the block into the error that ``explain`` makes of its message.

    Libraries raise errors of many kinds about damaged files, so the kinds are not listed. Errors for the user
    pass, and a lack of memory, which is not the file's fault.
    """
    try:
        yield
    except (VideoGenError, MemoryError):
        raise
    except Exception as error:
        raise explain(brief(first_line(error), 200)) from error


def brief(value: object, limit: int = 80) -> str:
    """Return one short line for a value of any length."""
    line = " ".join(str(value).split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return repr("") if not line else line if len(line) <= limit else f"{line[: limit - 1]}…"


def one_line(error: BaseException) -> str:
    """All that an exception says, in one line; with its type where that is needed to understand it."""
    text = " ".join(str(error).split())
    return (
        text if text and isinstance(error, VideoGenError) else f"{type(error).__name__}: {text}".rstrip(": ")
    )


def first_line(error: BaseException) -> str:
    """Return what an exception says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the closest of ``words`` to ``word``, if any is close."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.7)
    return close[0] if close else None
