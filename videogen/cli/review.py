"""--show, --diff, --sheet and --report: what is said about results that are there already."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

from videogen.cli.sources import Asked
from videogen.errors import InputError
from videogen.review.found import find, find_all
from videogen.tasks.option import typed
from videogen.tasks.options import OPTIONS, RunSettings

logger = logging.getLogger("videogen")


def review_of(asked: Asked) -> list[str] | None:
    """Return what the command asked for prints about results; None if it is none of these commands.

    Raises:
        InputError: no results, or flags that the command does not use.
    """
    given = {name: value for name, value in vars(asked.settings).items() if value != OPTIONS[name].default}
    command = next((name for name in COMMANDS if name in given), None)
    if command is None:
        return None
    answer, used = COMMANDS[command]
    given |= asked.values
    for name, value in given.items():
        if name not in (command, *used, *COMMON):
            raise InputError(OPTIONS[name].flag, typed(value), f"is not used by --{command}", "leave it out")
    output = given.get("output")
    return answer(asked.settings, None if output is None else Path(str(output)).expanduser())


def _show(settings: RunSettings, _: Path | None) -> list[str]:
    from videogen.review import show  # noqa: PLC0415 - only for this

    assert settings.show is not None
    found = find("--show", settings.show)
    return [json.dumps(show.to_json(found))] if settings.json else show.lines(found)


def _diff(settings: RunSettings, output: Path | None) -> list[str]:
    from videogen.review import compare, outputs  # noqa: PLC0415 - numpy, PyAV

    if len(settings.diff) != 2:
        what = f"compares two results, and {len(settings.diff)} are named"
        raise InputError("--diff", " ".join(settings.diff), what, "for example --diff a.mp4 b.mp4")
    one, other = (find("--diff", file) for file in settings.diff)
    if output is not None:
        outputs.check_output(output, outputs.VIDEO_SUFFIXES, (one, other), overwrite=settings.overwrite)
    written = [] if output is None else [str(output)]
    if settings.dry_run:
        return [*compare.option_lines(one, other), *written]
    likeness = compare.compare(one, other, output)
    if settings.json:
        differing = {name: [first, second] for name, first, second in compare.differences(one, other)}
        content = {"files": list(settings.diff), "options": differing, **likeness.to_json()}
        return [json.dumps({**content, **({"output": written[0]} if written else {})})]
    return [*compare.option_lines(one, other), *likeness.lines(), *written]


def _sheet(settings: RunSettings, output: Path | None) -> list[str]:
    from videogen.review import outputs, sweep  # noqa: PLC0415 - numpy, PyAV
    from videogen.review.settings import axis  # noqa: PLC0415

    assert settings.sheet is not None
    axes = {"--rows": settings.rows, "--columns": settings.columns}
    if not any(axes.values()):
        raise InputError("--sheet", settings.sheet, "needs options to arrange by", "give --rows or --columns")
    results = find_all("--sheet", settings.sheet)
    names = list(dict.fromkeys(axis(flag, given, results) for flag, given in axes.items() if given))
    if output is None:
        output = Path(settings.sheet).expanduser() / f"sheet_{'_'.join(names)}.png"
    outputs.check_output(output, (".png", *outputs.VIDEO_SUFFIXES), results, overwrite=settings.overwrite)
    arranged = sweep.arrange(results, names)
    for note in arranged.notes:
        logger.warning(note)
    if not settings.dry_run:
        sweep.write_sweep(arranged, output)
    if settings.json:
        return [json.dumps({"path": str(output), "values": dict(zip(names, arranged.values, strict=True))})]
    return [str(output)]


def _report(settings: RunSettings, output: Path | None) -> list[str]:
    from videogen.review.report import check_report, write_report  # noqa: PLC0415 - numpy, PyAV, Jinja2

    assert settings.report is not None
    results = find_all("--report", settings.report)
    page = output or Path(settings.report).expanduser() / "report.html"
    check_report("--output" if output else "--report", page, overwrite=settings.overwrite)
    if settings.dry_run:
        return [str(page)]
    written = write_report(results, page, title=page.parent.resolve().name)
    if settings.json:
        return [json.dumps({"path": str(written[0]), "table": str(written[1]), "results": len(results)})]
    return [str(path) for path in written]


Answer = Callable[[RunSettings, Path | None], list[str]]
COMMON = ("json", "verbose", "quiet", "progress", "config", "dry_run")
# Command -> what answers it, and the flags that it uses besides ``COMMON``.
COMMANDS: dict[str, tuple[Answer, tuple[str, ...]]] = {
    "show": (_show, ()),
    "diff": (_diff, ("output", "overwrite")),
    "sheet": (_sheet, ("rows", "columns", "output", "overwrite")),
    "report": (_report, ("output", "overwrite")),
}
