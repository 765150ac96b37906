"""--report: one web page over many results, which needs no network, and the same as a table."""

import csv
import io
import logging
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader

from videogen import __version__, files
from videogen.errors import InputError
from videogen.media import output_formats
from videogen.results.output_paths import check_writable, kind_of
from videogen.review.found import Found
from videogen.review.outputs import make_folder
from videogen.review.poster import Poster, poster_of
from videogen.review.settings import changed_options, shown, values_of
from videogen.review.show import time_and_memory

logger = logging.getLogger(__name__)

FLAG, TABLE = "--report", "results.csv"
GENERATOR = '<meta name="generator" content="videogen">'  # how an earlier page is recognised
FORMULA = re.compile(r"[=+\-@\t\r]")  # what a spreadsheet takes for a formula, at the beginning of a cell
POSTERS_BYTES, LARGEST_POSTER = 5_000_000, 24_000  # of all posters of a page, and of one, before base64
WORKERS = 4  # files decoded at once
FACTS = ("file", "created", "task", "model", "seed", "prompt", "width", "height", "num_frames", "fps")


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


def check_report(page: Path, *, overwrite: bool) -> None:
    """Refuse a page that cannot be written, before anything is read.

    What is there is replaced if it is an earlier report.

    Raises:
        InputError: another suffix, something else is there, or the folder cannot be written.
    """
    if page.suffix.lower() != ".html":
        raise InputError("--output", page, "must end in .html", f"try {page.with_suffix('.html').name}")
    for path, mark in ((page, GENERATOR), (page.with_name(TABLE), ",".join(FACTS))):
        if path.is_dir() or (path.exists() and not overwrite and mark not in _beginning(path)):
            fix = "add --overwrite, or --output with another name"
            raise InputError(FLAG, path, "exists, and is no earlier report", fix)
    check_writable(FLAG, page.parent)


def write_report(results: Sequence[Found], page: Path, *, title: str) -> tuple[Path, Path]:
    """Write the page, and the table beside it; returns their paths.

    Raises:
        OutputError: they cannot be written.
    """
    table = page.with_name(TABLE)
    make_folder(page)
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
    data = [{name: asdict(card)[name] for name in ("name", "fps", "order", "options")} for card in cards]
    environment = Environment(loader=PackageLoader("videogen.review", ""), autoescape=True, trim_blocks=True)
    page = environment.get_template("report.html")
    return page.render(
        title=title, cards=cards, data=data, varying=varying, version=__version__, generator=GENERATOR
    )


def to_csv(results: Sequence[Found], folder: Path) -> str:
    """Return the table of results: facts, times, memory, and every option that any of them has."""
    names = list(dict.fromkeys(name for found in results for name in found.request))
    options = [name for name in names if name not in ("task_type", "model_id", "seed", "prompt", *FACTS)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*FACTS, "seconds", "seconds_per_step", "gpu_bytes", "ram_bytes", *options])
    for found in results:
        request = found.request
        facts = [_name(found.path, folder), found.created.isoformat(timespec="seconds")]
        facts += [shown(request.get(name, "")) for name in ("task_type", "model_id")]
        facts += [str(found.seed), found.prompt]
        numbers = [*((name,) for name in FACTS[-4:]), ("seconds", "total")]
        values = [found.number(*name) for name in numbers] + [found.seconds_per_step]
        values += [found.number("peak_memory", place) for place in ("gpu", "ram")]
        facts += ["" if value is None else f"{value:.10g}" for value in values]
        facts += [shown(request[name]) if name in request else "" for name in options]
        writer.writerow(map(_cell, facts))
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


def _cell(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    try:
        float(text)
    except ValueError:
        return f"'{text}" if FORMULA.match(text) else text
    return text
