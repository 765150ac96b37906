"""Finding results: the record of one, from any of its files, and all results below a folder.

Records may come from others: no value is taken for what it should be.
"""

import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from videogen.errors import InputError
from videogen.files import Record
from videogen.media.output_formats import SUFFIXES, WITH_SOUND
from videogen.results import run_summary, sidecar
from videogen.results.output_paths import PARTS, PREVIEW, SHEET

logger = logging.getLogger(__name__)

NO_RESULT = "give a result of videogen (.mp4, .gif, .png ...), or the .json beside it"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A result: its video (a file, or a folder of PNGs), and what is recorded of it.

    ``embedded``: the record is the short one inside the video; ``sidecar`` is not there.
    """

    path: Path
    sidecar: Path
    record: Record
    embedded: bool = False

    @property
    def request(self) -> dict[str, Any]:
        """Return the options that made it, by name, as they were recorded."""
        request = self.record.get("request")
        return {str(name): value for name, value in request.items()} if isinstance(request, Mapping) else {}

    @property
    def sheet(self) -> Path | None:
        """Return its contact sheet, if there is one."""
        sheet = beside(self.path, SHEET)
        return sheet if sheet.is_file() else None

    @property
    def prompt(self) -> str:
        """Return what it shows, in words."""
        request = self.request
        given = request.get("prompt") or request.get("roll_prompts") or ""
        return " / ".join(map(str, given)) if isinstance(given, list) else str(given)

    @property
    def seed(self) -> object:
        """Return its seed."""
        return self.request.get("seed", self.record.get("seed", ""))

    @property
    def created(self) -> datetime:
        """Return when it was made; of a record without, when its file was last changed."""
        try:
            return datetime.fromisoformat(str(self.record.get("created"))).astimezone()
        except (ValueError, OverflowError, OSError):
            file = self.path if self.path.exists() else self.sidecar
            return datetime.fromtimestamp(file.stat().st_mtime).astimezone()

    def number(self, *names: str) -> float | None:
        """Return a number of the record: ``number("seconds", "total")``; None without one."""
        value: object = self.record
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if plain and math.isfinite(value) else None  # type: ignore[arg-type]

    @property
    def seconds_per_step(self) -> float | None:
        """Return the mean time of a step after the first, if steps are recorded."""
        steps = self.record.get("step_seconds")
        if not isinstance(steps, list) or not all(isinstance(step, int | float) for step in steps):
            return None
        return run_summary.seconds_per_step(steps) if steps else None

    @property
    def size(self) -> str:
        """Return its size, length and rate: '1280x720, 81 frames at 16 fps'."""
        width, height, frames, fps = map(self.number, ("width", "height", "num_frames", "fps"))
        if not (width and height and frames and fps):
            return ""
        unit = "frame" if frames == 1 else "frames"
        return f"{width:.0f}x{height:.0f}, {frames:.0f} {unit} at {fps:g} fps ({frames / fps:.3g} s)"


def beside(path: Path, ending: str) -> Path:
    """Return the path of a file beside a result, which may be a folder: its name, and another ending."""
    return path.with_name(f"{path.name if path.is_dir() else path.stem}{ending}")


def find(flag: str, file: str) -> Found:
    """Return the result that a file belongs to: the video, its record, contact sheet or preview.

    Raises:
        InputError: no such file, or nothing of videogen's is known of it.
    """
    path = Path(file).expanduser()
    if not path.exists():
        raise InputError(flag, file, "no such file", NO_RESULT)
    found = _of_record(path) if path.suffix.lower() == ".json" else _of_video(path)
    ending = next((ending for ending in (SHEET, PREVIEW) if path.name.endswith(ending)), None)
    if found is None and ending:
        found = _of_record(path.with_name(f"{path.name.removesuffix(ending)}.json"))
    if found is None:
        raise InputError(flag, file, "is no result of videogen, or its record is gone", NO_RESULT)
    return found


def find_all(flag: str, folder: str) -> list[Found]:
    """Return all results in a folder and its folders, in order of their names.

    Raises:
        InputError: no such folder, or it holds none.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(flag, folder, "no such folder", "give a folder with results")
    listed = {found.path: found for file in _files(root) if (found := _listed(file)) is not None}
    results = {path: found for path, found in listed.items() if path.exists() and path != found.sidecar}
    if gone := len(listed) - len(results):
        logger.warning("%s %s: %d records whose video is gone are left out", flag, folder, gone)
    if not results:
        what = "holds no results of videogen (videos with the .json beside them)"
        raise InputError(flag, folder, what, "give the folder that --output or --output_dir named")
    return [results[path] for path in sorted(results)]


def _files(root: Path) -> Iterator[Path]:
    """Yield all files below a folder but hidden ones and unfinished segments, without following links."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and not name.endswith(PARTS)]
        yield from (Path(folder) / name for name in names if not name.startswith("."))


def _listed(file: Path) -> Found | None:
    """Return the result of a record, or of a video that has lost it."""
    suffix = file.suffix.lower()
    return _of_record(file) if suffix == ".json" else _of_video(file) if suffix in WITH_SOUND else None


def _of_record(file: Path) -> Found | None:
    record = sidecar.read_record(file) if file.is_file() else None
    if record is None or not isinstance(record.get("request"), dict):
        return None
    name = record.get("output")
    if isinstance(name, str) and name and Path(name).name == name:
        renamed = file.with_name(f"{file.stem}{Path(name).suffix}")  # the video and its record alike
        path = renamed if renamed.exists() else file.with_name(name)
        return Found(path=path, sidecar=file, record=record)
    candidates = [file.with_suffix(suffix) for suffix in SUFFIXES] + [file.with_suffix("")]
    path = next((path for path in candidates if path.exists()), file)
    return Found(path=path, sidecar=file, record=record)


def _of_video(path: Path) -> Found | None:
    record_file = beside(path, ".json")
    found = _of_record(record_file)
    if found is not None and found.path.name == path.name:
        return found
    record = sidecar.read_record(path) if path.suffix.lower() in WITH_SOUND and path.is_file() else None
    if record is None or not isinstance(record.get("request"), dict):
        return None
    return Found(path=path, sidecar=record_file, record=record, embedded=True)
