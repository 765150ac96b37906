"""Option values from a mapping: YAML, JSON, a line of a job list, or the keywords of a Python call."""

from collections.abc import Mapping

from videogen.errors import InputError
from videogen.tasks.hints import hint, option_named
from videogen.tasks.options import OPTIONS, Option


def named(spelling: str, source: str) -> Option:
    """Return the option of a key in a file; aliases and dashes are understood.

    Raises:
        InputError: no such option.
    """
    name = option_named(spelling)
    if name is None or OPTIONS[name].command_line_only:
        raise InputError(source, spelling, "no such option", hint(spelling) or "see --help")
    return OPTIONS[name]


def value_of(option: Option, spelling: str, given: object) -> object:
    """Check a value; ``base_seed: -1`` (upstream's way of asking for a random seed) means 'random'."""
    if spelling.lstrip("-").replace("-", "_") == "base_seed" and str(given).strip() == "-1":
        given = "random"
    return option.value(given)


def from_mapping(content: Mapping[str, object], source: str, *, one_video: bool) -> dict[str, object]:
    """Check the values of a mapping from a file; ``one_video`` refuses options about the whole run."""
    values: dict[str, object] = {}
    for spelling, given in content.items():
        option = named(str(spelling), source)
        if one_video and option.about_run:
            fix = f"give {option.flag} on the command line"
            raise InputError(source, spelling, "is about the whole run", fix)
        if isinstance(given, list) and any(isinstance(part, list | dict) for part in given):
            raise InputError(source, spelling, "holds lists inside a list", "give one value, or a plain list")
        try:
            values[option.name] = value_of(option, str(spelling), given)
        except InputError as error:
            error.args = (f"{source}: {error}",)
            raise
    return values
