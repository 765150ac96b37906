"""The help texts: two screens for everybody, all that a task uses, and everything. Imports nothing heavy.

What is said of an option stands in its row, and what is another for a task in the row of the task.
"""

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from videogen.cli.parser import spellings
from videogen.errors import InputError, brief
from videogen.tasks.option_types import size
from videogen.tasks.options import GROUPS, OPTIONS, Option, defaults
from videogen.tasks.table import TASKS, VARIANTS, find, summary, users_of
from videogen.tasks.task_spec import TaskSpec

ALL = "all"  # after --help: every flag of all tasks
LONGEST_DEFAULT = 60  # characters; the published negative prompts have hundreds
COLUMN = 26  # where texts begin in lists of names
EPILOG = """example (a small trained model, seconds on a CPU):
  {name} --task_type text_to_video --model_id miniature --output first.mp4 \\
      --prompt "a red ball moves left over grass"

exit codes: 0 done, 1 unexpected or some video failed, 2 invalid input, 3 missing or invalid
            checkpoint (or a cache or temporary folder that cannot be used), 4 out of memory,
            130 interrupted
"""
MORE = {
    "--task_type TASK --help": "the flags and defaults of a task, what it requires first",
    f"--help {ALL}": "every flag",
    "--list_tasks": "the tasks with their default models",
    "--jobs, --ray, --serve": "a list of videos, on a cluster, a server",
    "--show, --diff, --report": "what made a video, how two differ, a page over many",
    "README.md, docs/": "recipes, memory, speed, lists of videos, several GPUs, errors",
}
INSTALLED = {"generate_video.py": "videogen", "generate_continuous.py": "videogen-continuous"}
Sections = Sequence[tuple[str, Sequence[Option]]]
"""Titles, and the options below them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What a help text says of a command.

    Args:
        chain: it makes chains of videos, with this task unless another is named.
        required: options that it cannot do without.
        helps: option -> its text, where that is not what its row says.
    """

    name: str
    usage: str
    description: str
    epilog: str
    chain: str | None = None
    required: tuple[str, ...] = ()
    helps: Mapping[str, str] = field(default_factory=dict)

    def options(self, tasks: Sequence[str]) -> list[Option]:
        """Return the options that mean something to the command, for any of some tasks."""
        used = {name for name in OPTIONS if {*users_of(name)} & {*tasks}}
        writers = any(OPTIONS[name].writes_prompt for name in used)
        return [
            option
            for option in OPTIONS.values()
            if not (self.chain and option.set_by_chain)
            and (
                option.name in used
                or (self.chain and option.chain)
                or (option.about_run and (writers or not option.writes_prompt))
            )
        ]


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Several spellings of a flag share what stands for its value; names with hyphens stay whole."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = ", ".join(action.option_strings)
        return names if action.nargs == 0 else f"{names} {action.metavar}"

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


@dataclass(frozen=True, slots=True)
class _PublishedModel:
    """A published model by its name, whether it is downloaded or not."""

    name: str
    tiny: str | None = None


def help_text(topic: str | None, program: Program | None = None, model: str | None = None) -> str:
    """Return the help text of a task, of ``ALL``, or what everybody needs first.

    Args:
        model: whose defaults are shown, if it is a published model of the task.
    """
    parser = help_parser(topic, program, model) if topic is not None else _first_page(program)
    return _as_started(parser.format_help())


def help_parser(
    topic: str, program: Program | None = None, model: str | None = None
) -> argparse.ArgumentParser:
    """Return a parser that knows what ``help_text`` says; each action's ``dest`` is an option's name."""
    if program is not None:
        task = find(program.chain if topic == ALL else topic, "--help")
        if program.chain and not task.describes:
            raise InputError("--help", topic, "makes no chains", f"nearest {program.chain}")
        return _parser(program, _by_use(program, task), task, model=model)
    program = _videos()
    if topic == ALL:
        return _parser(program, _by_group(program.options([*TASKS])), None)
    task = find(topic, "--help")
    task = next((row for row in VARIANTS[task.name] if model and row.model(model)), task)
    flags = " ".join(f"--{name} {OPTIONS[name].metavar}" for name in task.required())
    of_task = Program(
        name=program.name,
        usage=f"{program.name} --task_type {task.name} {flags} [flags]",
        description=f"{task.name}: {summary(task.name)}.",
        epilog=f"Defaults are those of {_model_of(task, model)}; --dry_run shows those of a run.\n"
        f"{program.name} --help: all tasks, an example, exit codes",
        required=task.required(),
    )
    return _parser(of_task, _by_use(of_task, task), task, model=model)


def _model_of(task: TaskSpec, model: str | None) -> str:
    """Return the model whose defaults are shown."""
    return model if model and task.model(model) else task.default_model()


def _videos() -> Program:
    """Return the command that makes videos."""
    name = "generate_video.py"
    return Program(
        name=name,
        usage=f"{name} --task_type TASK --prompt TEXT [flags]",
        description="Generate video from text, images, video and sound.",
        epilog=EPILOG.format(name=name),
    )


def _as_started(text: str) -> str:
    """Return a text with the names of commands as they are when installed, if one of those was started."""
    if Path(sys.argv[0]).name not in INSTALLED.values():
        return text
    for script, command in INSTALLED.items():
        text = text.replace(script, command)
    return text


def _first_page(program: Program | None) -> argparse.ArgumentParser:
    """Return a parser of the flags that most runs use, with the tasks, and where the rest is said."""
    chain, program = program is not None, program or _videos()
    task = find(program.chain) if chain else None
    first = [
        option
        for option in program.options([task.name] if task else [*TASKS])
        if option.usual
        or option.name in program.required
        or (chain and (option.chain or option.chain_default))
    ]
    parser = _parser(program, [("flags that most runs use", first)], task, users=False)
    if task is None:
        needs = {name: " ".join(f"--{needed}" for needed in task.required()) for name, task in TASKS.items()}
        tasks = [f"  {name:<{COLUMN}}{needs[name]}\n{'':{COLUMN + 2}}{summary(name)}" for name in TASKS]
        parser.description = "\n".join([program.description, "", "tasks, and what they require:", *tasks])
    more = "\n".join(f"  {what:<{COLUMN}}{said}" for what, said in MORE.items())
    parser.epilog = f"more:\n{more}\n\n{program.epilog}"
    return parser


def _by_use(program: Program, task: TaskSpec) -> Sections:
    """Return the options of a task: what is required, what most runs use, then the others by group."""
    shown = program.options([task.name])
    required = [OPTIONS[name] for name in program.required]
    usual = [option for option in shown if option.usual and option not in required]
    others = [option for option in shown if option not in required and option not in usual]
    return [("required", required), ("used most", usual), *_by_group(others)]


def _by_group(options: Sequence[Option]) -> Sections:
    names = {
        title: {row.name for group in groups for row in fields(group)} for title, groups in GROUPS.items()
    }
    return [(title, [option for option in options if option.name in names[title]]) for title in names]


def _parser(
    program: Program,
    sections: Sections,
    task: TaskSpec | None,
    *,
    users: bool = True,
    model: str | None = None,
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program.name,
        usage=program.usage,
        description=program.description,
        epilog=program.epilog,
        formatter_class=_Formatter,
        add_help=False,
    )
    given: dict[str, object] = {}
    if task is not None:
        meant = _PublishedModel(_model_of(task, model))
        given = {**defaults(), **task.defaults(meant), "model_id": meant.name, "revision": task.revision()}
    for title, options in sections:
        group = parser.add_argument_group(title)
        for option in options:
            text = program.helps.get(option.name) or _described(option, task, given)
            if users and task is None and not (option.common or option.about_run):
                text += f" [{_users(option)}]"
            text = text.replace("%", "%%")
            if option.parse is None:
                group.add_argument(*spellings(option), action="store_true", help=text)
            else:
                action = "append" if option.repeat else "store"
                metavar = option.metavar or "VALUE"
                group.add_argument(*spellings(option), action=action, metavar=metavar, help=text)
    about = "what most runs need; the flags of a task; every flag"
    group.add_argument("-h", "--help", nargs="?", metavar=f"[TASK|{ALL}]", help=about)
    return parser


def _described(option: Option, task: TaskSpec | None, given: Mapping[str, object]) -> str:
    """Return what is said of an option: by the task, if it has its own text, else by its row."""
    rows = VARIANTS[task.name] if task else ()
    text = next((row.helps[option.name] for row in rows if option.name in row.helps), None)
    if text is None:
        choices = getattr(option.parse, "choices", None)
        text = f"{option.help} ({', '.join(choices)})" if choices else option.help
    if task is None:
        return text
    if option.lists_sizes:
        text += f" ({', '.join(task.size_tables())})"
    default = given.get(option.name)
    if default is True or default in (None, (), False):
        return text
    if isinstance(default, tuple):
        default = ("*" if option.parse is size else ",").join(f"{part:.10g}" for part in default)
    return f"{text} (default {brief(default, LONGEST_DEFAULT)})"


def _users(option: Option) -> str:
    users = users_of(option.name)
    others = [name for name in TASKS if name not in users]
    return f"not {', '.join(others)}" if len(others) < len(users) else ", ".join(users)
