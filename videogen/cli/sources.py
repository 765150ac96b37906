"""Options from files: --config (YAML), --from_metadata (JSON or MP4), --jobs (text or JSON lines)."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from videogen.errors import InputError, nearest
from videogen.planning.request import Item
from videogen.results import sidecar
from videogen.tasks.options import FLAG_NAMES, OPTIONS, Option, RunSettings, merge
from videogen.tasks.table import TASKS

LARGEST_TEXT = 50_000_000  # bytes
# What a file may not say: it would have to be known before the file is read.
COMMAND_LINE_ONLY = ("config", "from_metadata", "list_tasks", "env", "version")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """All that was asked for: values of the videos by option name, and settings of the run.

    ``recorded``: as in ``Item``.
    """

    values: Mapping[str, object]
    recorded: Collection[str]
    settings: RunSettings


def gather(given: Mapping[str, object]) -> Asked:
    """Merge the sources of options: flags go before --config before --from_metadata."""
    settings = RunSettings.of(given)
    stronger = merge(from_config(settings.config) if settings.config else {}, given)
    earlier = from_metadata(settings.from_metadata, stronger) if settings.from_metadata else {}
    values = merge(earlier, stronger)
    return Asked(
        values={name: value for name, value in values.items() if not OPTIONS[name].about_run},
        recorded=earlier.keys() - stronger.keys(),
        settings=RunSettings.of(values),
    )


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
        try:
            values[option.name] = value_of(option, str(spelling), given)
        except InputError as error:
            error.args = (f"{source}: {error}",)
            raise
    return values


def from_config(file: str) -> dict[str, object]:
    """Values of a --config file.

    Raises:
        InputError: unreadable, empty, not a mapping, an unknown key or a bad value.
    """
    content = _yaml(file)
    if not isinstance(content, dict) or not content:
        state = "is empty" if not content else "must be 'flag: value' lines"
        raise InputError("--config", file, state, "for example 'prompt: a cat'")
    return from_mapping(content, f"--config {file}", one_video=False)


def from_metadata(file: str, stronger: Collection[str]) -> dict[str, object]:
    """Values of an earlier result. A model or an input that was a private path must be given again.

    Raises:
        InputError: no metadata in the file, or a local model or input that is not found from here.
    """
    request = sidecar.read_request("--from_metadata", file)
    model = str(request.get("model_id", ""))
    if model.startswith(sidecar.LOCAL_MODEL):
        del request["model_id"]
        if "model_id" not in stronger:
            what = f"made with the local model '{model.removeprefix(sidecar.LOCAL_MODEL)}'"
            raise InputError("--from_metadata", file, what, "add --model_id with its folder")
    task = TASKS.get(str(request.get("task_type")))
    for name in task.inputs if task is not None else ():
        recorded = request.get(name) if name not in stronger else None
        for item in recorded if isinstance(recorded, list) else ():
            if "://" not in str(item) and not Path(str(item)).is_file():
                what = f"was made from {item}, which is not in this folder"
                raise InputError("--from_metadata", file, what, f"add --{name} with its path")
    return from_mapping(request, f"--from_metadata {file}", one_video=True)


def read_jobs(file: str, base: Mapping[str, object], recorded: Collection[str]) -> list[Item]:
    """Read a --jobs file: JSON lines where the first line is a JSON object, else one prompt per line.

    Of the ``base`` values, those ``recorded`` come from an earlier result.

    Raises:
        InputError: unreadable, empty, or a broken line, with its number.
    """
    items: list[Item] = []
    text = _text("--jobs", file).splitlines()
    lines = [(number, line.strip()) for number, line in enumerate(text, start=1) if line.strip()]
    if not lines:
        raise InputError("--jobs", file, "is empty", "one prompt per line, or one JSON object per line")
    is_json = file.lower().endswith((".jsonl", ".json")) or lines[0][1].startswith("{")
    for number, line in lines:
        source = f"--jobs {file} line {number}"
        own: Mapping[str, object] = _json_line(line, source) if is_json else {"prompt": line}
        items.append(Item(values=merge(base, own), label=source, recorded=set(recorded) - own.keys()))
    return items


def _json_line(line: str, source: str) -> dict[str, object]:
    fix = 'for example {"prompt": "a cat", "seed": 1}'
    try:
        content = json.loads(line)
    except ValueError as error:
        raise InputError(source, None, f"is not JSON ({error})", fix) from None
    if not isinstance(content, dict):
        raise InputError(source, line, "is not a JSON object", fix)
    return from_mapping(content, source, one_video=True)


def _yaml(file: str) -> object:
    try:
        return yaml.safe_load(_text("--config", file))
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f" at line {line + 1}" if line is not None else ""
        fix = "write one 'flag: value' per line"
        raise InputError("--config", file, f"is not YAML{where}", fix) from None


def _text(flag: str, file: str) -> str:
    """Read a small text file."""
    path = Path(file).expanduser()
    try:
        if path.exists() and not path.is_file():
            raise InputError(flag, file, "is not a regular file", "give a text file")
        if path.stat().st_size > LARGEST_TEXT:
            raise InputError(flag, file, f"larger than {LARGEST_TEXT / 1e6:.0f} MB", "split it")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(flag, file, f"cannot be read ({error.strerror})", "check the path") from None
    except UnicodeDecodeError:
        raise InputError(flag, file, "is not UTF-8 text", "save it as UTF-8") from None
