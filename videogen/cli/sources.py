"""Options from files: --config (YAML), --from_metadata (JSON or MP4); those of --jobs are in jobs.py."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from videogen.errors import InputError, brief
from videogen.files import LARGEST_TEXT, Record, TextError, check_plain
from videogen.files import read_text as read_file
from videogen.planning import option_rules
from videogen.planning.option_mapping import from_mapping, named
from videogen.planning.origins import Origin
from videogen.results import sidecar
from videogen.tasks.option_types import prompts
from videogen.tasks.options import OPTIONS, RunSettings, merge
from videogen.tasks.table import INPUTS, TASKS

LARGEST_YAML = 500_000  # bytes; PyYAML takes up to five seconds for them
MAX_NODES = 100_000  # of a YAML file, with every alias written out
BUNDLE = re.compile(r"(?P<file>.*\.zip)(?::(?P<number>\d+))?", re.IGNORECASE | re.DOTALL)
LONGEST_SHOWN = 300  # characters of a path or URL in a message


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """All that was asked for: values of the videos by option name, and settings of the run.

    ``origins``: as in ``Item``. ``notes`` and ``warnings`` are what to say about a --from_metadata file.
    """

    values: Mapping[str, object]
    origins: Mapping[str, Origin]
    settings: RunSettings
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()


def gather(given: Mapping[str, object]) -> Asked:
    """Merge the sources of options: flags go before --config before --from_metadata.

    Raises:
        InputError: a file that cannot be used, or one that --dry_run would have to fetch something for.
    """
    config = from_config(str(given["config"])) if "config" in given else {}
    stronger = merge(config, given)
    option_rules.check_combination({k: v for k, v in stronger.items() if OPTIONS[k].about_run})
    settings, source = RunSettings.of(stronger), RunSettings.of(given).from_metadata
    is_one_result = source is not None and not names_bundle(settings)
    earlier, ignored = from_metadata(str(source), stronger) if is_one_result else ({}, [])
    values = merge(earlier, stronger)
    taken = {name: value for name, value in earlier.items() if name not in stronger and name in values}
    if settings.dry_run:
        for name, url in urls(taken):
            what = f"fetches nothing, and {brief(source, LONGEST_SHOWN)} names {brief(url)}"
            raise InputError(
                "--dry_run", None, what, f"download it, and add {OPTIONS[name].flag} with its path"
            )
    cannot_say = f"{brief(source, LONGEST_SHOWN)} cannot say {', '.join(ignored)}"
    warning = f"{cannot_say}: give them as flags, where they are wanted"
    return Asked(
        values={name: value for name, value in values.items() if not OPTIONS[name].about_run},
        origins={
            **dict.fromkeys(config.keys() - given.keys(), Origin.CONFIG),
            **dict.fromkeys(taken, Origin.METADATA),
        },
        settings=settings,
        notes=[f"{brief(source, LONGEST_SHOWN)} names {what}" for what in fetched_for(taken)],
        warnings=[warning] if ignored else [],
    )


def names_bundle(settings: RunSettings) -> bool:
    """Return whether --from_metadata names a bundle, or one result in it (FILE.zip:3); see cli/bundles.py."""
    return settings.from_metadata is not None and bool(BUNDLE.fullmatch(settings.from_metadata))


def urls(values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the URLs of inputs among values, each with the name of its option."""
    for name, given in values.items():
        items = given if isinstance(given, tuple) else (given,)
        items = items if name in INPUTS else ()
        yield from ((name, str(item)) for item in items if "://" in str(item))


def fetched_for(values: Mapping[str, object]) -> Iterator[str]:
    """Yield the models, LoRAs and URLs among values, as the user is told."""
    for name, value in values.items():
        if OPTIONS[name].names_model:
            yield f"the model {brief(value)}"
    loras = values.get("lora")
    yield from (
        f"the LoRA {brief(lora.name, LONGEST_SHOWN)}" for lora in (loras if isinstance(loras, tuple) else ())
    )
    yield from (f"the URL {brief(url, LONGEST_SHOWN)}" for _, url in urls(values))


def from_config(file: str) -> dict[str, object]:
    """Return the values of a --config file.

    Raises:
        InputError: unreadable, empty, not a mapping, an unknown key or a bad value.
    """
    content = read_yaml("--config", file, "write one 'flag: value' per line")
    if not isinstance(content, dict) or not content:
        state = "is empty" if not content else "must be 'flag: value' lines"
        raise InputError("--config", file, state, "for example 'prompt: a cat'")
    return from_mapping(content, f"--config {file}", one_video=False)


def from_metadata(file: str, stronger: Collection[str]) -> tuple[dict[str, object], list[str]]:
    """Return the values of an earlier result, and the names of those that no file of others may say.

    A model or an input that was a private path must be given again.

    Raises:
        InputError: no metadata in the file, or a local model or input that is not found from here.
    """
    return from_request(sidecar.read_request("--from_metadata", file), file, stronger)


def from_request(
    request: Record, file: str, stronger: Collection[str]
) -> tuple[dict[str, object], list[str]]:
    """Return the values of a recorded request, as ``from_metadata``; ``file`` says where it stands.

    Raises:
        InputError: as there.
    """
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
            if "://" not in str(item) and not Path(str(item)).exists():  # of frames it is a folder
                what = f"was made from {item}, which is not in this folder"
                raise InputError("--from_metadata", file, what, f"add --{name} with its path")
    flag, ignored = f"--from_metadata {file}", []
    for spelling in list(request):
        option = named(spelling, flag)
        if not option.recorded:
            ignored.append(option.name)
            del request[spelling]
        elif option.parse is prompts and isinstance(request[spelling], str):  # the name of a file here
            raise InputError(flag, spelling, "must be a list of prompts", f"give {option.flag} as a flag")
    return from_mapping(request, flag, one_video=True), ignored


def read_yaml(flag: str, file: str, fix: str) -> object:
    """Return what a YAML file holds.

    Raises:
        InputError: unreadable, or not YAML, with the line; ``fix`` says what to write.
    """
    text = read_text(flag, file, LARGEST_YAML)
    try:
        return parse_yaml(text)
    except Exception as error:  # values such as 2001-99-99 are no YAMLError
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f" at line {line + 1}" if line is not None else ""
        raise InputError(flag, file, f"is not YAML{where}", fix) from None


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
        if _expanded_nodes(root, {}) > MAX_NODES:
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
    counted[id(node)] = MAX_NODES + 1  # if it holds itself
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    counted[id(node)] = 1 + sum(_expanded_nodes(child, counted) for child in children)
    return counted[id(node)]


def read_text(flag: str, file: str, limit: int = LARGEST_TEXT) -> str:
    """Return a text file.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        return read_file(Path(file).expanduser(), limit)
    except TextError as error:
        raise InputError(flag, file, str(error), error.fix) from None
