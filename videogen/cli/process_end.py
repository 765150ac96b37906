"""The end of a process."""

import atexit
import os
import sys
import threading
from typing import NoReturn

FLUSH_FAILED = 120  # Python's own exit code for it


def end(code: int) -> NoReturn:
    """End the process as Python does, threads and exit functions first, but leave every module as it is.

    Taking them apart takes more than a second with torch, diffusers and transformers loaded, for nothing.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = FLUSH_FAILED
    os._exit(code)
