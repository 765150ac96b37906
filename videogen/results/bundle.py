"""Bundles: results with inputs and job lines in one zip file, so that somebody else can make them again.

``jobs.jsonl`` has a JSON object of flags per result; ``inputs/`` the files, or folders of frames, that they
name, by digest, and ``results/N/`` the files of result N. Nothing in it names a path outside of it.
"""

import json
import re
import shutil
import stat
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from videogen import files
from videogen.errors import InputError, reported_as
from videogen.files import LARGEST_JSON, Record, parse_json
from videogen.media.output_formats import PNG_FILE

JOBS, INPUTS = "jobs.jsonl", "inputs"
MOST_ENTRIES = 500_000
MOST_EXPANSION = 100  # times as large as the zip file; videos and pictures do not shrink
SMALLEST = 1_000_000  # bytes of a zip file from which that is counted
INPUT_NAME = re.compile(rf"{INPUTS}/[\w-]+(\.\w+)?")
SUFFIX = re.compile(r"\.\w{1,5}")


class PackedInput(NamedTuple):
    """An input: its digest, its file or folder of frames, and frames per second where those do not say it."""

    digest: str
    path: Path
    fps: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """A result to pack: its files, what was asked for, and the inputs by option name."""

    results: Sequence[Path]
    request: Record
    inputs: Mapping[str, Sequence[PackedInput]]


def write(target: Path, packed: Sequence[Packed]) -> None:
    """Write a bundle, atomically.

    Raises:
        OutputError: it cannot be written.
    """
    with (
        files.writing(target),
        files.atomic_write(target) as temporary,
        zipfile.ZipFile(temporary, "w", strict_timestamps=False) as bundle,
    ):
        lines, there = [], set()
        for number, item in enumerate(packed, start=1):
            named: dict[str, list[str]] = {}
            for option, sources in item.inputs.items():
                for source in sources:
                    stem = f"{INPUTS}/{source.digest[:32]}"
                    name = f"{stem}{_suffix(source.path)}"
                    named.setdefault(option, []).append(name)
                    if name not in there:
                        _add(bundle, source.path, name)
                        there.add(name)
                        if source.fps is not None:
                            bundle.writestr(f"{stem}.json", json.dumps({"fps": source.fps}))
            lines.append(json.dumps(item.request | named, ensure_ascii=False))
            for path in item.results:
                _add(bundle, path, f"results/{number}/{path.name}")
        bundle.writestr(JOBS, "\n".join(lines) + "\n")


def _add(bundle: zipfile.ZipFile, path: Path, name: str) -> None:
    """Write a file, or the frames in a folder, under a name."""
    if not path.is_dir():
        bundle.write(path, name)
        return
    for file in sorted(path.iterdir()):
        if PNG_FILE.fullmatch(file.name):
            bundle.write(file, f"{name}/{file.name}")


def _suffix(path: Path) -> str:
    return path.suffix.lower() if SUFFIX.fullmatch(path.suffix) and not path.is_dir() else ""


def read(flag: str, file: Path, folder: Path, inputs: Collection[str]) -> list[Record]:
    """Return the job lines of a bundle, whose inputs are put into ``folder``.

    Args:
        inputs: the options that name inputs.

    Raises:
        InputError: it is no bundle, or one that would reach out of its folder or fill the disk.
    """
    fix = "ask for it again, packed with --bundle"
    with (
        reported_as(lambda why: InputError(flag, file, f"is not a readable bundle ({why})", fix)),
        zipfile.ZipFile(file) as bundle,
    ):
        _check(flag, file, bundle)
        names = set(bundle.namelist())
        if JOBS not in names:
            raise InputError(flag, file, f"has no {JOBS}", fix)
        with bundle.open(JOBS) as opened:
            text = opened.read(LARGEST_JSON + 1).decode("utf-8")
        requests = [parse_json(line) for line in text.splitlines() if line.strip()]
        if not requests:
            raise InputError(flag, file, "has no results", fix)
        for number, request in enumerate(requests, start=1):
            if not isinstance(request, dict) or not request:
                raise InputError(flag, file, f"line {number} of its {JOBS} is not a JSON object", fix)
            for option in inputs:
                named = request.get(option, [])
                if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
                    raise InputError(flag, file, f"line {number}: {option} must be a list of names", fix)
                if named:
                    request[option] = [_extract(flag, file, bundle, name, folder) for name in named]
    return requests


def _check(flag: str, file: Path, bundle: zipfile.ZipFile) -> None:
    """Refuse entries that lead elsewhere, and more than fits into a reasonable bundle.

    Raises:
        InputError: the first thing.
    """
    entries = bundle.infolist()
    fix = "do not use it"
    for entry in entries:
        path = PurePosixPath(entry.filename)
        climbs = path.is_absolute() or ".." in path.parts or re.search(r"[\\:\0]", entry.filename)
        if climbs or entry.filename != entry.orig_filename:
            raise InputError(flag, file, f"has a path that leads out of it ({entry.filename[:80]!r})", fix)
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InputError(flag, file, f"has a link in it ({entry.filename[:80]!r})", fix)
    if len(entries) > MOST_ENTRIES or len({entry.filename for entry in entries}) < len(entries):
        raise InputError(flag, file, f"has over {MOST_ENTRIES:,} entries, or two of one name", fix)
    size, packed = sum(entry.file_size for entry in entries), file.stat().st_size
    if size > MOST_EXPANSION * max(packed, SMALLEST):
        what = f"would grow from {packed:,} to {size:,} bytes"
        raise InputError(flag, file, what, fix)


def _extract(flag: str, file: Path, bundle: zipfile.ZipFile, name: str, folder: Path) -> str:
    """Put an input into ``folder``, unless it is there already; returns its path.

    Raises:
        InputError: the bundle has no such input.
    """
    target = folder / Path(name).name
    if INPUT_NAME.fullmatch(name) and target.exists():
        return str(target)
    content = {name: target}
    if name not in bundle.NameToInfo:
        frames = [other for other in bundle.NameToInfo if other.startswith(f"{name}/")]
        content = {other: target / other.removeprefix(f"{name}/") for other in frames}
        if not all(PNG_FILE.fullmatch(path.name) and path.parent == target for path in content.values()):
            content = {}
    if not INPUT_NAME.fullmatch(name) or not content:
        what = f"names {name[:80]!r}, which is no input in it"
        raise InputError(flag, file, what, "do not use it")
    if (record := f"{name.partition('.')[0]}.json") in bundle.NameToInfo:  # its frames per second
        content[record] = folder / Path(record).name
    for entry, path in content.items():
        path.parent.mkdir(exist_ok=True)
        with bundle.open(entry) as source, path.open("wb") as opened:
            shutil.copyfileobj(source, opened)
    return str(target)
