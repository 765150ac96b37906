"""Options from files: --config (YAML), --from_metadata (JSON or MP4), --jobs (text or JSON lines)."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from videogen.errors import InputError, nearest
from videogen.files import LARGEST_TEXT, TextError, check_plain, parse_json, read_text
from videogen.planning.request import Item
from videogen.results import sidecar
from videogen.tasks.options import FLAG_NAMES, OPTIONS, Option, merge
from videogen.tasks.table import TASKS

LARGEST_YAML = 500_000  # bytes; PyYAML takes up to five seconds for them
MOST_NODES = 100_000  # of a YAML file, with every alias written out
# What a file may not say: it would have to be known before the file is read.
COMMAND_LINE_ONLY = ("config", "from_metadata", "list_tasks", "env", "version")


def named(spelling: str, source: str) -> Option:
    """Return the option of a key in a file; aliases and dashes are understood.

    Raises:
        InputError: no such option.
    """
    name = FLAG_NAMES.get(spelling.lstrip("-").replace("-", "_"))
    if name is None or name in COMMAND_LINE_ONLY:
        close = nearest(spelling, FLAG_NAMES)
        raise InputError(source, spelling, "no such option", f"nearest {close}" if close else "see --help")
    return OPTIONS[name]


def value_of(option: Option, spelling: str, given: object) -> Any:
    """Check a value; ``base_seed: -1`` (upstream's way of asking for a random seed) means 'random'."""
    if spelling.lstrip("-").replace("-", "_") == "base_seed" and str(given).strip() == "-1":
        given = "random"
    return option.value(given)


def from_mapping(content: Mapping[Any, object], source: str, *, one_video: bool) -> dict[str, Any]:
    """Check the values of a mapping from a file; ``one_video`` refuses options about the whole run."""
    values: dict[str, Any] = {}
    for spelling, given in content.items():
        option = named(str(spelling), source)
        if one_video and option.about_run:
            raise InputError(
                source, spelling, "is about the whole run", f"give {option.flag} on the command line"
            )
        if isinstance(given, list) and any(isinstance(part, list | dict) for part in given):
            raise InputError(source, spelling, "holds lists inside a list", "give one value, or a plain list")
        try:
            values[option.name] = value_of(option, str(spelling), given)
        except InputError as error:
            error.args = (f"{source}: {error}",)
            raise
    return values


def from_config(file: str) -> dict[str, Any]:
    """Values of a --config file.

    Raises:
        InputError: unreadable, empty, not a mapping, an unknown key or a bad value.
    """
    content = _yaml(file)
    if not isinstance(content, dict) or not content:
        state = "is empty" if not content else "must be 'flag: value' lines"
        raise InputError("--config", file, state, "for example 'prompt: a cat'")
    return from_mapping(content, f"--config {file}", one_video=False)


def from_metadata(file: str, stronger: Mapping[str, Any]) -> dict[str, Any]:
    """Values of an earlier result. A model or an input that was a private path must be given again.

    Raises:
        InputError: no metadata in the file, or a local model or input that is not found from here.
    """
    request = sidecar.read_request("--from_metadata", file)
    model = str(request.get("model_id", ""))
    if model.startswith(sidecar.LOCAL_MODEL):
        del request["model_id"]
        if "model_id" not in stronger:
            name = model.removeprefix(sidecar.LOCAL_MODEL)
            raise InputError(
                "--from_metadata",
                file,
                f"made with the local model '{name}'",
                "add --model_id with its folder",
            )
    task = TASKS.get(str(request.get("task_type")))
    for name in task.inputs if task is not None else ():
        recorded = request.get(name) if name not in stronger else None
        for item in recorded if isinstance(recorded, list) else ():
            if "://" not in str(item) and not Path(str(item)).is_file():
                what = f"was made from {item}, which is not in this folder"
                raise InputError("--from_metadata", file, what, f"add --{name} with its path")
    return from_mapping(request, f"--from_metadata {file}", one_video=True)


def read_jobs(file: str, base: dict[str, Any], recorded: Collection[str] = ()) -> list[Item]:
    """Read a --jobs file: JSON lines where the first line is a JSON object, else one prompt per line.

    Of the ``base`` values, those ``recorded`` come from an earlier result.

    Raises:
        InputError: unreadable, empty, or a broken line, with its number.
    """
    items: list[Item] = []
    lines = [
        (number, line.strip())
        for number, line in enumerate(_text("--jobs", file).splitlines(), start=1)
        if line.strip()
    ]
    if not lines:
        raise InputError("--jobs", file, "is empty", "one prompt per line, or one JSON object per line")
    is_json = file.lower().endswith((".jsonl", ".json")) or lines[0][1].startswith("{")
    for number, line in lines:
        source = f"--jobs {file} line {number}"
        own = _json_line(line, source) if is_json else {"prompt": line}
        items.append(Item(values=merge(base, own), label=source, recorded=set(recorded) - own.keys()))
    return items


def _json_line(line: str, source: str) -> dict[str, Any]:
    fix = 'for example {"prompt": "a cat", "seed": 1}'
    try:
        content = parse_json(line)
    except ValueError as error:
        raise InputError(source, None, f"is not JSON ({error})", fix) from None
    if not isinstance(content, dict):
        raise InputError(source, line, "is not a JSON object", fix)
    return from_mapping(content, source, one_video=True)


def _yaml(file: str) -> object:
    text = _text("--config", file, LARGEST_YAML)
    try:
        return parse_yaml(text)
    except Exception as error:  # values such as 2001-99-99 are no YAMLError
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f" at line {line + 1}" if line is not None else ""
        fix = "write one 'flag: value' per line"
        raise InputError("--config", file, f"is not YAML{where}", fix) from None


def parse_yaml(text: str) -> object:
    """Parse YAML of plain values whose aliases do not multiply it.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: it is none.
    """
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if _expanded_nodes(root, {}) > MOST_NODES:
            raise ValueError("too large with its aliases written out")
        content = loader.construct_document(root)
    finally:
        loader.dispose()
    check_plain(content)
    return content


def _expanded_nodes(node: yaml.Node, counted: dict[int, int]) -> int:
    """Return the number of nodes in a tree with every alias written out."""
    if id(node) in counted:
        return counted[id(node)]
    counted[id(node)] = MOST_NODES + 1  # if it holds itself
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    counted[id(node)] = 1 + sum(_expanded_nodes(child, counted) for child in children)
    return counted[id(node)]


def _text(flag: str, file: str, limit: int = LARGEST_TEXT) -> str:
    try:
        return read_text(Path(file).expanduser(), limit)
    except TextError as error:
        raise InputError(flag, file, str(error), error.fix) from None
