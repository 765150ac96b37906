"""The commands as processes. Where a package is missing they say so, and --env works all the same."""

import importlib
import sys
from typing import NoReturn

from videogen.cli import early_interrupt  # noqa: F401 - listens from here on

OLDEST = (3, 11)  # as pyproject.toml says; an older one cannot read the other modules


def videos() -> NoReturn:
    """Make videos."""
    _start("videogen.cli.main")


def chain() -> NoReturn:
    """Make a chain of videos."""
    _start("videogen.cli.chain")


def _start(module: str) -> NoReturn:
    if sys.version_info < OLDEST:
        here, oldest = (".".join(map(str, version)) for version in (sys.version_info[:2], OLDEST))
        sys.exit(f"error: Python {here}: {oldest} or newer is needed; make the environment with that one")
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
