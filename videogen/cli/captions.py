"""--caption_only: what the models that write prompts say, without a video; with --jobs, of many videos."""

import csv
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from videogen import files
from videogen.cli.jobs import STDIN, read_jobs
from videogen.cli.sources import Asked, read_text
from videogen.cli.task_choice import with_task
from videogen.engine.prompt_writer import write_captions
from videogen.errors import InputError, VideoGenError, one_line, or_error
from videogen.media.download import Fetcher
from videogen.planning.request import Item, check_runtime, labelled
from videogen.prompts.chat_models import FoundModel
from videogen.prompts.roles import find_prompt_writers
from videogen.results.appending import append, keep_lines
from videogen.results.progress import Reporter
from videogen.results.writable import check_file
from videogen.tasks.list_options import WHOLE
from videogen.tasks.options import OPTIONS, Options, RunSettings, defaults, merge
from videogen.tasks.table import find

logger = logging.getLogger(__name__)

# Columns of a table of captions, by the role of the model that describes, and with an enhancer.
STRUCTURAL = ("shot_type", "shot_angle", "shot_position", "camera_motion", "environment", "lighting")
COLUMNS = {"captioner": (*STRUCTURAL, "subjects"), "describer": ("description",)}
PROSE = ("t2v_fusion_caption", "i2v_fusion_caption")
VIDEO = "input_video"


def caption(asked: Asked, workdir: Path, *, dry_run: bool) -> str:
    """Return what the models that write prompts say of one video or prompt, as JSON."""
    from videogen.media.video_reader import read_video  # noqa: PLC0415 - PyAV

    options = _options(with_task(asked.values))
    given = options.input_video
    if given is None and not (options.prompt and options.prompt_enhancer):
        what = "needs --input_video, or --prompt with --prompt_enhancer"
        raise InputError("--caption_only", None, what, "give one of the two")
    role, found = _writers(options, describes=given is not None)
    fetcher = Fetcher(folder=workdir, timeout=options.download_timeout)
    video = None if given is None else read_video("--input_video", given, fetcher)
    for note in video.notes if video is not None else ():
        logger.warning(note)
    if dry_run:
        return json.dumps(_titles(found), indent=2, ensure_ascii=False)
    (said,) = write_captions(options, [video], role)
    if isinstance(said, VideoGenError):
        raise said
    return json.dumps(said, indent=2, ensure_ascii=False)


def caption_list(asked: Asked, workdir: Path, reporter: Reporter) -> Iterator[str]:
    """Write the captions of a list of videos to a table, a row as soon as it is known; yields its path.

    A video that cannot be read or described has no row, which is an error of the run's end.

    Raises:
        InputError: a list or a table that cannot be used.
    """
    from videogen.media.video_reader import read_video  # noqa: PLC0415 - PyAV

    settings = asked.settings
    table = _table_path(asked.values.get("output"), settings)
    items = [
        item for number, item in enumerate(_items(asked), start=1) if (settings.shard or WHOLE).holds(number)
    ]
    options = _options(items[0].values if items else asked.values)
    role, found = _writers(options, describes=True)
    columns = (VIDEO, *COLUMNS[role], *(PROSE if "enhancer" in found and role == "captioner" else ()))
    known = known_rows(table, columns) if settings.resume and table.exists() else set()
    waiting = [item for item in items if item.values[VIDEO] not in known]
    fetcher = Fetcher(folder=workdir, timeout=options.download_timeout)
    read = partial(read_video, "--input_video", fetcher=fetcher)
    videos = [or_error(partial(read, str(item.values[VIDEO]))) for item in waiting]
    if settings.dry_run:
        for item, video in zip(waiting, videos, strict=True):
            if isinstance(video, VideoGenError):
                with labelled(item.label):
                    raise video
        yield json.dumps({**_titles(found), "videos": len(waiting), "table": str(table)})
        return
    reporter.start_run(len(items))
    for _ in range(len(items) - len(waiting)):
        reporter.count(skipped=True)
    if settings.overwrite:
        files.remove(table)
    with reporter.stage("prompt", "captions", total=len(waiting), unit="video") as advance:
        readable = [video for video in videos if not isinstance(video, VideoGenError)]
        said = write_captions(options, readable, role, batch=settings.caption_batch)
        for item, video in zip(waiting, videos, strict=True):
            facts = video if isinstance(video, VideoGenError) else next(said)
            if failed := isinstance(facts, VideoGenError):
                logger.error("%s: %s", item.label, one_line(facts))
            else:
                row = _row(columns, facts | {VIDEO: item.values[VIDEO]})
                append(table, row, header=_line(columns))
            reporter.count(failed=failed)
            advance(1)
    yield str(table)


def _options(values: Mapping[str, object]) -> Options:
    options = Options.of(merge(defaults(), values))
    check_runtime(options)
    return options


def _writers(options: Options, *, describes: bool) -> tuple[str, dict[str, FoundModel]]:
    """Return the role of the model that describes videos, and the models that are used, by role."""
    task = find(options.task_type) if options.task_type else None
    role = "describer" if task is not None and task.describes else "captioner"
    found = find_prompt_writers(options, needed=(role,) if describes else ())
    for writer in found.values():
        if writer.note:
            logger.warning(writer.note)
    return role, found


def _titles(found: Mapping[str, FoundModel]) -> dict[str, str]:
    return {role: writer.title for role, writer in found.items()}


def _table_path(output: object, settings: RunSettings) -> Path:
    """Return the path of the table.

    Raises:
        InputError: none is given, it is no .csv, or something is there.
    """
    if output is None:
        raise InputError("--caption_only", None, "writes a table with --jobs", "add --output captions.csv")
    path = Path(str(output)).expanduser()
    may_replace, fix = settings.resume or settings.overwrite, "add --resume or --overwrite"
    check_file("--output", path, [".csv"], may_replace=may_replace, fix=fix)
    return path


def _items(asked: Asked) -> list[Item]:
    """Return the videos of the list, which differ in nothing but the video.

    Raises:
        InputError: one without a video, or with a model of its own.
    """
    jobs = str(asked.settings.jobs)
    if jobs == STDIN:
        raise InputError("--caption_only", None, "reads no lines from stdin", "write them to a file first")
    for name in ("prompt", "roll_prompts"):
        if asked.values.get(name):
            raise InputError(f"--{name}", None, "is not for captions of a list", "leave it out")
    items = read_jobs(jobs, asked.values, asked.origins)
    matters = [o.name for o in OPTIONS.values() if o.writes_prompt or o.names_device or o.is_prompt]
    for item in items:
        if not item.values.get(VIDEO):
            what = "names no video to describe"
            raise InputError(item.label, None, what, f"give a table with a column {VIDEO}")
        for name in ("task_type", *matters):
            if item.values.get(name) != asked.values.get(name):
                what = "is the same for all captions of a list"
                raise InputError(f"{item.label}: --{name}", None, what, "give it as a flag, or leave it out")
    return items


def known_rows(table: Path, columns: Sequence[str]) -> set[str]:
    """Return the videos of a table that have their row; what a crash cut off is removed from it.

    Raises:
        InputError: a table of another kind.
        OutputError: it cannot be written.
    """
    lines = read_text("--resume", str(table)).splitlines()
    if lines and lines[0] != _line(columns).strip():
        what = f"has other columns than {', '.join(columns)}"
        raise InputError("--resume", table, what, "choose another --output")
    rows = [cells for cells in map(_cells, lines[1:]) if len(cells) == len(columns)]
    if 1 + len(rows) < len(lines):
        keep_lines(table, lambda line: len(_cells(line)) == len(columns))
    return {cells[0] for cells in rows}


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:
        return []


def _row(columns: Sequence[str], said: Mapping[str, object]) -> str:
    """Return the row of a video: the fields of its structural caption, and what was said in prose."""
    fields = said.get("structural_caption")
    known = {**said, **(fields if isinstance(fields, dict) else {})}
    return _line([_cell(known.get(column, "")) for column in columns])


def _cell(value: object) -> str:
    """Return a value in one line, so that every line of the table is a row."""
    return " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
