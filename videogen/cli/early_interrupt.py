"""Ctrl-C is one line from the moment in which this is imported, while the program itself is loaded.

Only the start of a process imports it, first of all. It imports nothing that the interpreter has not loaded
by then, as that is when Ctrl-C would be a traceback.
"""

import _signal  # what ``signal`` wraps in enums
import os
import sys


def _stop(*_: object) -> None:
    """End the process; nothing has been begun that would have to be undone."""
    as_json = any(word in ("--json", "json", "--progress=json") for word in sys.argv)
    line = '{"event": "error", "exit_code": 130, "message": "interrupted"}' if as_json else "interrupted"
    os.write(2, f"{line}\n".encode())
    os._exit(130)


if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _stop)
