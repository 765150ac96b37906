"""The commands as processes. Where a package is missing they say so, and --env works all the same."""

import importlib
import sys
from typing import NoReturn


def videos() -> NoReturn:
    """Make videos."""
    _start("videogen.cli.main")


def chain() -> NoReturn:
    """Make a chain of videos."""
    _start("videogen.cli.chain")


def _start(module: str) -> NoReturn:
    try:
        program = importlib.import_module(module).program
    except ModuleNotFoundError as error:
        if str(error.name).startswith("videogen"):
            raise
        if "--env" in sys.argv:
            from videogen.cli.environment import environment  # noqa: PLC0415 - only for this

            sys.exit("\n".join(environment().lines()))
        sys.exit(f"error: {error.name} is not installed: pip install -r requirements.txt (--env: what else)")
    sys.exit(program())
