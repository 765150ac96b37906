"""Command line arguments to option values, and the help text. Imports nothing heavy."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from videogen.cli.published import is_flag, switch_of
from videogen.errors import InputError
from videogen.tasks.hints import hint
from videogen.tasks.option_types import guidance, paths, seeds, size
from videogen.tasks.options import FLAG_NAMES, GROUPS, OPTIONS, Option, defaults
from videogen.tasks.table import TASKS, find, summary, users_of
from videogen.tasks.task_spec import TaskSpec

DESCRIPTION = "Generate video from text, images, video and sound; --list_tasks names the models."
EPILOG = """examples:
  generate_video.py --task_type reference_to_video --model_id tiny --prompt "a robot waves" \\
      --ref_imgs ref_imgs/robot.png --output first.mp4
  generate_video.py --task_type reference_to_video --help        the flags and defaults of one task

exit codes: 0 done, 1 unexpected or some video failed, 2 invalid input, 3 missing or invalid checkpoint
            (or a cache or temporary folder that cannot be used), 4 out of memory, 130 interrupted
"""


class _Parser(argparse.ArgumentParser):
    """Complaints in one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError("command line", None, message, "see --help")


def parse(arguments: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """Return (explicit option values, whether help was asked for).

    Raises:
        InputError: an unknown flag, a missing or a bad value.
    """
    parser = _Parser(add_help=False, allow_abbrev=False, prog="generate_video.py")
    parser.add_argument("-h", "--help", action="store_true")
    for option in OPTIONS.values():
        names = _spellings(option)
        if option.parse is None:
            parser.add_argument(*names, dest=option.name, nargs="?")
        else:
            parser.add_argument(*names, dest=option.name, action="append")
    namespace, unknown = parser.parse_known_args(normalized(arguments))
    if unknown:
        word = unknown[0].partition("=")[0]
        if not word.startswith("-"):
            raise InputError(word, None, "not a flag", "quote texts with spaces; lists have commas: a,b")
        raise InputError(word, None, "unknown flag", hint(word) or "see --help")
    raw = {name: value for name, value in vars(namespace).items() if name != "help" and value is not None}
    return {name: _checked(OPTIONS[name], value) for name, value in raw.items()}, namespace.help


def _spellings(option: Option) -> list[str]:
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
        flag, equals, value = ("--verbose" if word == "-v" else word).partition("=")
        spelling = flag[2:].replace("-", "_")
        option = OPTIONS.get(FLAG_NAMES.get(spelling, "")) if flag.startswith("--") else None
        if option is None:
            joined.append(word)
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
    return joined


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What a help text says of the command; ``helps`` replace texts of options.

    ``chain``: it makes chains of videos, with this task unless another is named.
    """

    name: str
    usage: str
    description: str
    epilog: str
    chain: str | None = None
    helps: Mapping[str, str] = field(default_factory=dict)


def help_text(task_name: str | None, program: Program | None = None) -> str:
    """Return the help text of all tasks, or of one with its own defaults."""
    return help_parser(task_name, program).format_help()


def help_parser(task_name: str | None, program: Program | None = None) -> argparse.ArgumentParser:
    """Return a parser that knows what ``help_text`` says; each action's ``dest`` is an option's name."""
    if task_name is None and program is not None:
        task_name = program.chain
    task = find(task_name) if task_name is not None else None
    name = "videogen" if Path(sys.argv[0]).name == "videogen" else "generate_video.py"
    program = program or Program(
        name=name,
        usage=f"{name} --task_type TASK --prompt TEXT [flags]",
        description=f"{task.name}: {summary(task.name)}." if task else DESCRIPTION,
        epilog=EPILOG.replace("generate_video.py", name),
    )
    tasks = [task.name] if task else list(TASKS)
    parser = argparse.ArgumentParser(
        prog=program.name,
        description=program.description,
        epilog=program.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=program.usage,
        add_help=False,
    )
    for title, groups in GROUPS.items():
        options = [OPTIONS[field.name] for group in groups for field in fields(group)]
        shown = [
            option
            for option in options
            if (option.about_run or (program.chain and option.chain) or {*users_of(option.name)} & {*tasks})
            and not (program.chain and option.set_by_chain)
        ]
        if not shown:
            continue
        group = parser.add_argument_group(title)
        for option in shown:
            names = _spellings(option)
            text = (program.helps.get(option.name) or _described(option, task)).replace("%", "%%")
            if option.parse is None:
                group.add_argument(*names, action="store_true", help=text)
            else:
                group.add_argument(*names, metavar=option.metavar or "VALUE", help=text)
    about = "this text; with --task_type, that task's flags"
    parser.add_argument("-h", "--help", action="store_true", help=about)
    return parser


def _described(option: Option, task: TaskSpec | None) -> str:
    text = option.help
    if option.name == "task_type":
        text += f": {', '.join(TASKS)}"
    if choices := getattr(option.parse, "choices", None):
        text += f" ({', '.join(choices)})"
    if task is None:
        return text if option.common or option.about_run else f"{text} [{', '.join(users_of(option.name))}]"
    if option.name == "resolution":
        text += f" ({', '.join(task.size_tables())})"
    model = {"model_id": task.default_model(), "revision": task.revision()}
    default = {**defaults(), **task.defaults(), **model}.get(option.name)
    if option.parse in (size, guidance) and isinstance(default, tuple):
        default = ("*" if option.parse is size else ",").join(f"{part:g}" for part in default)
    return text if default is True or default in (None, (), False) else f"{text} (default {default!r})"
