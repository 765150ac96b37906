"""The standard streams of a process, also where they are closed or full, and its end."""

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

FLUSH_FAILED = 120  # Python's own exit code for it


def open_missing_streams() -> None:
    """Give closed streams (``2>&-``) the null device; else a file of ours would get their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is the stream's own
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def discard_stdout() -> None:
    """Send what is still to be printed nowhere."""
    with suppress(OSError):  # it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end(code: int) -> NoReturn:
    """End the process as Python does, threads and exit functions first, but leave every module as it is.

    Taking them apart takes more than a second with torch, diffusers and transformers loaded, for nothing.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        code = FLUSH_FAILED
    with suppress(OSError):  # messages that nobody reads change no result
        sys.stderr.flush()
    os._exit(code)
