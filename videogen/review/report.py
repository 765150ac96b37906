"""--report: one web page over many results, which needs no network, and the same as a table."""

import csv
import io
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import attrgetter, methodcaller
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader

from videogen import __version__, files
from videogen.errors import InputError
from videogen.media import output_formats
from videogen.results.output_paths import kind_of
from videogen.results.writable import check_file
from videogen.review.found import Found
from videogen.review.poster import Poster, poster_of
from videogen.review.settings import changed_options, shown, values_of
from videogen.review.show import time_and_memory

logger = logging.getLogger(__name__)

TABLE = "results.csv"
GENERATOR = '<meta name="generator" content="videogen">'  # how an earlier page is recognised
FORMULA = re.compile(r"[=+\-@\t\r]")  # what a spreadsheet takes for a formula, at the beginning of a cell
POSTERS_BYTES, LARGEST_POSTER = 5_000_000, 24_000  # of all posters of a page, and of one, before base64
WORKERS = 4  # files decoded at once
# Column of the table -> what stands there; before them is the file, behind them are the options.
COLUMNS: Mapping[str, Callable[[Found], object]] = {
    "created": lambda found: found.created.isoformat(timespec="seconds"),
    "task": lambda found: found.request.get("task_type"),
    "model": lambda found: found.request.get("model_id"),
    **{name: attrgetter(name) for name in ("seed", "prompt")},
    **{name: methodcaller("number", name) for name in ("width", "height", "num_frames", "fps")},
    "seconds": methodcaller("number", "seconds", "total"),
    "seconds_per_step": attrgetter("seconds_per_step"),
    **{f"{place}_bytes": methodcaller("number", "peak_memory", place) for place in ("gpu", "ram")},
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the page says of one result. ``url`` is relative to the page; ``kind`` is what shows it."""

    name: str
    url: str
    kind: str
    sheet: str
    poster: Poster
    prompt: str
    task: str
    model: str
    seed: str
    size: str
    fps: float
    took: str
    memory: str
    made: str
    changed: list[tuple[str, str]]
    order: dict[str, float | None]
    options: dict[str, str]


def check_report(flag: str, page: Path, *, overwrite: bool) -> None:
    """Refuse a page that cannot be written, before anything is read.

    What is there is replaced if it is an earlier report.

    Raises:
        InputError: as ``check_file``, or something else is there.
    """
    written = (
        (page, ".html", GENERATOR),
        (page.with_name(TABLE), ".csv", ",".join(["file", *COLUMNS])),
    )
    for path, suffix, mark in written:
        check_file(flag, path, [suffix], may_replace=True)
        if path.exists() and not overwrite and mark not in _beginning(path):
            fix = "add --overwrite, or --output with another name"
            raise InputError(flag, path, "exists, and is no earlier report", fix)


def write_report(results: Sequence[Found], page: Path, *, title: str) -> tuple[Path, Path]:
    """Write the page, and the table beside it; returns their paths.

    Raises:
        OutputError: they cannot be written.
    """
    table = page.with_name(TABLE)
    with files.writing(page):
        files.write_text(page, render(results, page.parent, title=title))
        files.write_text(table, to_csv(results, page.parent))
    return page, table


def render(results: Sequence[Found], folder: Path, *, title: str) -> str:
    """Return the page over results, as it will be in a folder."""
    results = sorted(results, key=lambda found: found.created, reverse=True)  # as the page says at first
    varying = _varying(results)
    limit = min(LARGEST_POSTER, POSTERS_BYTES // len(results))
    with ThreadPoolExecutor(WORKERS) as pool:
        posters = list(pool.map(lambda found: poster_of(found, limit), results))
    for poster in posters:
        if poster.problem:
            logger.warning("%s", poster.problem)
    pairs = zip(results, posters, strict=True)
    cards = [_card(found, poster, folder, varying) for found, poster in pairs]
    data = [
        {"name": card.name, "fps": card.fps, "order": card.order, "options": card.options} for card in cards
    ]
    environment = Environment(loader=PackageLoader("videogen.review", ""), autoescape=True, trim_blocks=True)
    page = environment.get_template("report.html")
    return page.render(
        title=title, cards=cards, data=data, varying=varying, version=__version__, generator=GENERATOR
    )


def to_csv(results: Sequence[Found], folder: Path) -> str:
    """Return the table of results: facts, times, memory, and every option that any of them has."""
    names = dict.fromkeys(name for found in results for name in found.request)
    options = [name for name in names if name not in ("task_type", "model_id", *COLUMNS)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", *COLUMNS, *options])
    for found in results:
        values = [_name(found.path, folder), *(read(found) for read in COLUMNS.values())]
        writer.writerow(map(_cell, [*values, *(found.request.get(name) for name in options)]))
    return text.getvalue()


def _card(found: Found, poster: Poster, folder: Path, varying: Iterable[str]) -> Card:
    kind = kind_of(str(found.path)) or ""
    mime = output_formats.MIME_TYPES.get(kind, "") if found.path.exists() else ""
    took, memory = time_and_memory(found)
    request = found.request
    return Card(
        name=_name(found.path, folder),
        url=_url(found.path, folder),
        kind=mime.partition("/")[0],
        sheet=_url(found.sheet, folder) if found.sheet else "",
        poster=poster,
        prompt=found.prompt,
        task=shown(request.get("task_type", "")),
        model=shown(request.get("model_id", "")),
        seed=str(found.seed),
        size=found.size,
        fps=found.number("fps") or 24,
        took=took,
        memory=memory,
        made=f"{found.created:%Y-%m-%d %H:%M}",
        changed=[(name, shown(value)) for name, _, value in changed_options(found)],
        order={
            "made": found.created.timestamp(),
            "time": found.number("seconds", "total"),
            "memory": found.number("peak_memory", "gpu") or found.number("peak_memory", "ram"),
        },
        options={name: shown(request[name]) for name in varying if name in request},
    )


def _varying(results: Sequence[Found]) -> list[str]:
    """Return the options that do not have the same value in all results."""
    names = dict.fromkeys(name for found in results for name in found.request)
    everywhere = {name for name in names if all(name in found.request for found in results)}
    return [name for name in names if name not in everywhere or len(values_of(name, results)) > 1]


def _url(path: Path, folder: Path) -> str:
    """Return a path as seen from a folder, as a link."""
    return quote(os.fsencode(Path(os.path.relpath(path, folder)).as_posix()))


def _name(path: Path, folder: Path) -> str:
    """Return a path as seen from a folder; bytes that are no UTF-8 are shown as such."""
    return os.fsencode(Path(os.path.relpath(path, folder)).as_posix()).decode(errors="replace")


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(2000).decode(errors="replace")


def _cell(value: object) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    text = "" if value is None else f"{value:.10g}" if isinstance(value, float) else shown(value)
    try:
        float(text)
    except ValueError:
        return f"'{text}" if FORMULA.match(text) else text
    return text
