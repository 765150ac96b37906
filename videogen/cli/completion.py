"""What a shell needs to complete our flags (--completion)."""

from videogen.cli.help import ALL, Program, help_parser
from videogen.tasks.options import OPTIONS
from videogen.tasks.table import TASKS


def script(shell: str, program: Program | None = None) -> str:
    """Return the completion script of the command for a shell (bash or zsh)."""
    import shtab  # noqa: PLC0415 - only for this

    parser = help_parser(ALL, program)
    parser.prog = "videogen" if program is None else "videogen-continuous"  # shells complete commands
    for action in parser._actions:
        option = OPTIONS.get(action.dest)
        metavar = str(action.metavar)
        if action.metavar is not None:
            action.metavar = metavar.replace(":", r"\:")  # zsh would take what follows for a command
        if action.dest in ("task_type", "help"):
            action.choices = [*TASKS, *[ALL] * (action.dest == "help")]
        elif option is not None and (choices := getattr(option.parse, "choices", None)):
            action.choices = list(choices)
        elif any(word in metavar for word in ("FILE", "PATH", "A,B")):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif "DIR" in metavar:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return shtab.complete(parser, shell).rstrip()
