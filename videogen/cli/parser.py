"""Command line arguments to option values. Imports nothing heavy."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from videogen.cli.published import is_flag, switch_of
from videogen.errors import InputError
from videogen.tasks.hints import hint
from videogen.tasks.option_types import paths, seeds
from videogen.tasks.options import FLAG_NAMES, OPTIONS, Option
from videogen.tasks.table import TASKS

SHORT = {"-v": "--verbose", "-help": "--help"}


class _Parser(argparse.ArgumentParser):
    """Complaints in one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError("command line", None, message, "see --help")


def parse(arguments: Sequence[str]) -> tuple[dict[str, Any], str | None]:
    """Return (explicit option values, what help was asked for).

    The latter is the word after ``--help``, "" where none is, and None without ``--help``.

    Raises:
        InputError: an unknown flag, a missing or a bad value.
    """
    parser = _Parser(add_help=False, allow_abbrev=False, prog="generate_video.py")
    parser.add_argument("-h", "--help", nargs="?", const="")
    for option in OPTIONS.values():
        names = spellings(option)
        if option.parse is None:
            parser.add_argument(*names, dest=option.name, nargs="?")
        else:
            parser.add_argument(*names, dest=option.name, action="append")
    namespace, unknown = parser.parse_known_args(normalized(arguments))
    if unknown:
        word = unknown[0].partition("=")[0]
        if not word.startswith("-"):
            meant = {"help": "--help", **{task: f"--task_type {task}" for task in TASKS}}
            fix = meant.get(word, "quote texts with spaces; lists have commas: a,b")
            raise InputError(word, None, "not a flag", fix)
        raise InputError(word, None, "unknown flag", hint(word) or "see --help")
    raw = {name: value for name, value in vars(namespace).items() if name != "help" and value is not None}
    return {name: _checked(OPTIONS[name], value) for name, value in raw.items()}, namespace.help


def spellings(option: Option) -> list[str]:
    """Return the flags that mean an option, its own name first."""
    return [f"--{name}" for name in (option.name, *option.aliases)] + ["-v"] * (option.name == "verbose")


def _checked(option: Option, given: list[str] | str | bool) -> object:
    if isinstance(given, str):  # of a switch, as published: --offload True
        said = switch_of(given)
        if said is None:
            raise InputError(option.flag, given, "is a switch", "give it alone, or with True or False")
        return said
    if isinstance(given, bool) or option.repeat:
        return option.value(given)
    if option.parse in (paths, seeds):  # lists may come in pieces
        return option.value([part for piece in given for part in option.value(piece) or (piece,)])
    return option.value(given[-1])  # the last one counts


def normalized(arguments: Sequence[str]) -> list[str]:
    """Return flags in snake_case, joined to their values, so that a value may begin with a dash."""
    joined: list[str] = []
    rest = list(arguments)[::-1]
    while rest:
        word = rest.pop()
        flag, equals, value = SHORT.get(word, word).partition("=")
        spelling = flag[2:].replace("-", "_")
        option = OPTIONS.get(FLAG_NAMES.get(spelling, "")) if flag.startswith("--") else None
        if option is None:
            joined.append(SHORT.get(word, word))
        elif option.parse is None:
            if not equals and rest and rest[-1].lower() in ("true", "false"):
                value = rest.pop()
            joined.append(f"--{spelling}={value or True}")
        else:
            alone = not equals and (not rest or is_flag(rest[-1]))
            if alone and option.bare is None:
                example = f"--{spelling} {option.metavar or 'VALUE'}"
                raise InputError(f"--{spelling}", None, "needs a value", example)
            given = option.bare if alone else value if equals else rest.pop()
            drawn = spelling == "base_seed" and str(given).strip() == "-1"  # the published way to ask for any
            joined.append(f"--{spelling}={'random' if drawn else given}")
            for _ in range(option.words - 1):
                if rest and not is_flag(rest[-1]):
                    joined.append(f"--{spelling}={rest.pop()}")
    return joined
