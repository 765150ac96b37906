"""The first thing that runs: Ctrl-C is one line from the beginning, while the program itself is loaded."""

import os
import signal
import sys
from importlib import import_module
from typing import NoReturn

INTERRUPTED = 130


def _stop(*_: object) -> NoReturn:
    """End the process; nothing has been begun that would have to be undone."""
    as_json = any(word in ("--json", "json", "--progress=json") for word in sys.argv)
    line = '{"event": "error", "exit_code": 130, "message": "interrupted"}' if as_json else "interrupted"
    os.write(2, f"{line}\n".encode())
    os._exit(INTERRUPTED)


def run(module: str) -> NoReturn:
    """Run the ``program`` of a module."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    import_module(module).program()
    raise AssertionError("a program ends the process")


def generate() -> NoReturn:
    """Run generate_video.py."""
    run("videogen.cli.main")


def chain() -> NoReturn:
    """Run generate_continuous.py."""
    run("videogen.cli.chain")
