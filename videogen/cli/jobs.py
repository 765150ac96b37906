"""Lists of videos: --jobs with prompts, a table (CSV, TSV), JSON lines, JSON, YAML, or lines from stdin."""

import csv
import io
import itertools
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from videogen.checkpoints import resolve
from videogen.cli.published import switch_of
from videogen.cli.sources import read_text, read_yaml
from videogen.cli.task_choice import with_task
from videogen.errors import InputError, brief
from videogen.files import parse_json
from videogen.planning.option_mapping import from_mapping, named
from videogen.planning.origins import Origin
from videogen.planning.request import Item, labelled
from videogen.tasks.hints import option_named
from videogen.tasks.option_types import guidance, paths, prompts, seeds
from videogen.tasks.options import OPTIONS, Option, merge
from videogen.tasks.table import find, variant

logger = logging.getLogger(__name__)

STDIN = "-"
MAX_VIDEOS = 10_000  # videos of one line
LISTS = (paths, prompts, seeds)  # types whose value is a list itself
EXAMPLE = 'for example {"prompt": "a cat", "seed": 1}'

Entry = tuple[str, Mapping[str, object]]
"""Where it stands, for messages, and the values there by spelling of their option."""


def read_jobs(file: str, base: Mapping[str, object], origins: Mapping[str, Origin]) -> list[Item]:
    """Read a --jobs file; its suffix or its first line says what kind it is.

    ``origins`` says where the ``base`` values come from.

    Raises:
        InputError: unreadable, empty, or a broken line, with its number.
    """
    suffix = Path(file).suffix.lower()
    if suffix in (".csv", ".tsv"):
        lines = io.StringIO(read_text("--jobs", file), newline="")
        entries = [_usable(entry) for entry in _table(file, lines, base)]
    elif suffix in (".yaml", ".yml"):
        content = read_yaml("--jobs", file, "write a list, a '- prompt: ...' for every video")
        entries = list(_listed(file, content))
    else:
        entries = list(_text(file, read_text("--jobs", file)))
    if not entries:
        raise InputError("--jobs", file, "is empty", "one prompt per line, or one JSON object per line")
    return [item for source, content in entries for item in items_of(content, source, base, origins)]


def items_of(
    content: Mapping[str, object], source: str, base: Mapping[str, object], origins: Mapping[str, Origin]
) -> Iterator[Item]:
    """Yield the videos of one entry: one, or one for each combination of the values in its lists.

    Raises:
        InputError: an unknown option, a bad value, or too many combinations.
    """
    options = {spelling: named(spelling, source) for spelling in content}
    with labelled(source):
        choices = {
            spelling: _choices(options[spelling], given, content, base) for spelling, given in content.items()
        }
    first = from_mapping({name: values[0] for name, values in choices.items()}, source, one_video=True)
    own_seeds = first.get("seed", base.get("seed", ()))
    videos = math.prod(len(values) for values in choices.values())
    videos *= max(1, len(own_seeds) if isinstance(own_seeds, tuple) else 1)
    if videos > MAX_VIDEOS:
        what = f"its lists make {videos:,} videos"
        raise InputError(source, None, what, f"at most {MAX_VIDEOS:,}; use shorter lists")
    for values in itertools.product(*choices.values()):
        own = from_mapping(dict(zip(choices, values, strict=True)), source, one_video=True)
        with labelled(source):
            known = {**origins, **dict.fromkeys(own, Origin.JOB_LIST)}
            yield Item(values=with_task(merge(base, own)), label=source, origins=known)


def stream(
    lines: Iterator[str], base: Mapping[str, object], origins: Mapping[str, Origin]
) -> Iterator[list[Item] | InputError]:
    """Yield the videos of every line as it comes; for a line that cannot be used, what is wrong with it.

    If the first line names columns, the lines are a table.

    Raises:
        InputError: columns that cannot be used.
    """
    lines, first = _peek(lines)
    for entry in _table(STDIN, lines, base) if _names_columns(first) else _single_lines(lines):
        try:
            source, content = _usable(entry)
            yield list(items_of(content, source, base, origins))
        except InputError as error:
            yield error


def _usable(entry: Entry | InputError) -> Entry:
    if isinstance(entry, InputError):
        raise entry
    return entry


def _peek(lines: Iterable[str]) -> tuple[Iterator[str], str]:
    """Return lines as they were, and the first that is neither blank nor a comment; "" if there is none."""
    lines, seen = iter(lines), []
    for line in lines:
        seen.append(line)
        if line.strip() and not line.startswith("#"):
            return itertools.chain(seen, lines), line
    return iter(seen), ""


def _names_columns(line: str) -> bool:
    """Return whether a line is the first of a table: names of options, or words with 'prompt' among them."""
    columns = [cell.strip().strip('"') for cell in re.split(r"[,;\t]", line)]
    is_wordy = all(re.fullmatch(r"[\w-]+", column) for column in columns)
    return (len(columns) > 1 and all(map(option_named, columns))) or (is_wordy and "prompt" in columns)


def _single_lines(lines: Iterable[str]) -> Iterator[Entry | InputError]:
    """Yield the entries of lines that are prompts or JSON."""
    for number, line in enumerate(lines, start=1):
        try:
            yield from _lines([(number, line)], STDIN)
        except InputError as error:
            yield error


def _choices(
    option: Option, given: object, content: Mapping[str, object], base: Mapping[str, object]
) -> Sequence[object]:
    """Return the values that an option has one after the other: those of a list, unless that is its value."""
    if not isinstance(given, list) or not given:
        return [given]
    nested = all(isinstance(value, list) for value in given)
    if (option.repeat or option.parse in LISTS) and not nested:
        return [given]
    if option.parse is guidance and len(given) == 2 and not nested and _has_two_experts(content, base):
        return [given]  # low and high noise
    return given


def _has_two_experts(content: Mapping[str, object], base: Mapping[str, object]) -> bool:
    own = {named(spelling, "--jobs").name: value for spelling, value in content.items()}
    values = with_task({**base, **{name: own[name] for name in ("task_type", "model_id") if name in own}})
    task, revision = find(str(values.get("task_type"))), values.get("revision")
    model = str(values.get("model_id") or task.default_model())
    found = resolve.locate(model, None if revision is None else str(revision), task)
    return variant(task.name, found.family).network.experts == 2


def _text(file: str, text: str) -> Iterator[Entry]:
    """Yield the entries of a text file: JSON, JSON lines or prompts."""
    if Path(file).suffix.lower() == ".json" and text.lstrip()[:1] in ("[", "{"):
        try:
            content = parse_json(text)
        except ValueError as error:
            if text.lstrip().startswith("["):
                raise InputError("--jobs", file, f"is not JSON ({error})", EXAMPLE) from None
        else:
            yield from _listed(file, content)
            return
    yield from _lines(list(enumerate(text.splitlines(), start=1)), file)


def _lines(lines: Sequence[tuple[int, str]], file: str) -> Iterator[Entry]:
    """Yield the entries of numbered lines; blank ones, and those that begin with #, are none."""
    written = [(number, line.strip()) for number, line in lines if line.strip()]
    used = [(number, line) for number, line in written if not line.startswith("#")]
    if len(used) < len(written):
        logger.info("--jobs %s: lines that begin with # are comments (%d)", file, len(written) - len(used))
    by_name = file.lower().endswith((".jsonl", ".json"))
    is_json = by_name or (bool(used) and used[0][1].startswith("{"))
    for number, line in used:
        where = f"--jobs {file} line {number}"
        yield where, _json_line(line, where) if is_json else {"prompt": line}


def _json_line(line: str, source: str) -> Mapping[str, object]:
    try:
        content = parse_json(line)
    except ValueError as error:
        raise InputError(source, None, f"is not JSON ({error})", EXAMPLE) from None
    if not isinstance(content, dict):
        raise InputError(source, line, "is not a JSON object", EXAMPLE)
    return content


def _listed(file: str, content: object) -> Iterator[Entry]:
    """Yield the entries of a JSON or YAML document: a mapping of flags, or a list of mappings and prompts."""
    for number, entry in enumerate(content if isinstance(content, list) else [content], start=1):
        source = f"--jobs {file} entry {number}" if isinstance(content, list) else f"--jobs {file}"
        if entry is None and not isinstance(content, list):
            return
        if isinstance(entry, str) and isinstance(content, list):
            entry = {"prompt": entry}  # noqa: PLW2901
        if not isinstance(entry, dict) or not entry:
            what = "must be flags with values, or a list of such"
            raise InputError(source, brief(entry), what, EXAMPLE)
        yield source, entry


def _table(file: str, lines: Iterable[str], base: Mapping[str, object]) -> Iterator[Entry | InputError]:
    """Yield the rows of a table whose first row names the columns; an empty cell is not given.

    For a row that cannot be used, what is wrong with it.

    Raises:
        InputError: unknown or repeated columns, none that says what a video shows.
    """
    columns: list[str] = []
    for number, cells in _rows(file, lines):
        source = f"--jobs {file} line {number}"
        if isinstance(cells, InputError):
            yield cells
        elif not columns:
            columns = [cell.strip() for cell in cells]
            _check_columns(columns, source, base)
        elif len(cells) != len(columns):
            cell = "cell" if len(cells) == 1 else "cells"
            what = f"has {len(cells)} {cell}, and the first row has {len(columns)}"
            yield InputError(source, None, what, "quote a cell that has commas or tabs in it")
        else:
            row = {column: cell.strip() for column, cell in zip(columns, cells, strict=True) if cell.strip()}
            yield source, {column: _cell(named(column, source), cell) for column, cell in row.items()}


def _rows(file: str, lines: Iterable[str]) -> Iterator[tuple[int, list[str] | InputError]]:
    """Yield the rows of a table, each with the number of its first line, without blank ones and comments."""
    lines, header = _peek(lines)
    tabs = file.lower().endswith(".tsv") or ("\t" in header and "," not in header)
    delimiter = "\t" if tabs else ";" if ";" in header and "," not in header else ","
    row_lines: list[str] = []

    def recorded() -> Iterator[str]:
        for line in lines:
            row_lines.append(line)
            yield line

    reader = csv.reader(recorded(), delimiter=delimiter, strict=True)
    while True:
        row_lines.clear()
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            fix = "close every quote, and double those inside a cell"
            yield number, InputError(f"--jobs {file} line {number}", None, f"is no row ({error})", fix)
            continue
        if cells is None:
            return
        if any(cell.strip() for cell in cells) and not row_lines[0].startswith("#"):
            yield number, cells


def _check_columns(columns: Sequence[str], source: str, base: Mapping[str, object]) -> None:
    known = [name for column in columns if (name := option_named(column))]
    if not known:
        fix = "write a first line such as prompt,seed,output"
        raise InputError(source, ",".join(columns), "names no column", fix)
    for column in columns:
        if not column:
            raise InputError(source, None, "has a column without a name", "name it, or leave it out")
        name = named(column, source).name
        if known.count(name) > 1:
            raise InputError(source, column, f"is there twice ({OPTIONS[name].flag})", "leave one out")
    shown_by = [name for name, option in OPTIONS.items() if option.shows]
    if not any(name in known or base.get(name) for name in shown_by):
        what = f"has no column 'prompt' (it has {', '.join(columns)})"
        raise InputError(source, None, what, "add one, or give --prompt")


def _cell(option: Option, cell: str) -> object:
    """Return the value of a cell; a switch is written as true or false."""
    if option.parse is None or (option.bare is not None and cell.lower() in ("true", "false")):
        said = switch_of(cell)
        return cell if said is None else said
    return cell
