"""--status: one JSON file that says how far the run is, renamed into place every few seconds.

It is made of the run's events, and of nothing else; what goes wrong with the file never fails the run.
"""

import _thread  # whose threads nobody waits for: ``threading`` hangs where there is no memory to start one
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from videogen.cli.sources import Asked
from videogen.errors import InputError
from videogen.files import Record, TextError, parse_json, read_text, write_json
from videogen.results import progress
from videogen.results.output_paths import check_writable
from videogen.results.progress import Report, Reporter

logger = logging.getLogger(__name__)

EVERY = 2.0  # seconds
SUFFIX = ".status.json"
KIND = "videogen run"  # what tells a status file from other JSON
OF_VIDEO = ("stage", "about", "step", "steps", "seconds_per_step")
FIRST: Record = {
    **{"kind": KIND, "index": 0, "made": 0, "failed": 0, "segment": 0, "segments": 0},
    **dict.fromkeys(("videos", "mine", "seed", "output", "preview", *OF_VIDEO, "last_error", "exit_code")),
    "finished": False,
}
MILESTONES = (
    progress.RunStarted,
    progress.VideoStarted,
    progress.PreviewWritten,
    progress.Saved,
    progress.Failed,
    progress.RunFinished,
    progress.RunFailed,
)


@dataclass
class RunStatus:
    """How far a run is, kept up to date by its events."""

    facts: Record = field(
        default_factory=lambda: {**FIRST, "pid": os.getpid(), "started": _moment(time.time())}
    )
    segment_seconds: float = 0.0  # of the last denoising loop
    stage_began: float = 0.0
    video_began: float = 0.0
    video_ends: float | None = None  # times are seconds since 1970
    durations: list[float] = field(default_factory=list)
    is_making: bool = False

    def take(self, report: Report) -> None:
        """Take in what an event says."""
        facts, now = self.facts, report.time
        facts |= {"index": report.index, "segment": report.segment, "segments": report.segments}
        match report.event:
            case progress.RunStarted(videos=videos, mine=mine):
                facts |= {"videos": videos, "mine": videos if mine is None else mine}
            case progress.VideoStarted() as event:
                self.video_began, self.video_ends, self.is_making = now, None, True
                facts |= {"seed": event.seed, "output": event.output, "preview": None}
                facts |= dict.fromkeys(OF_VIDEO)
            case progress.StageStarted(stage=stage, about=about):
                self.stage_began = now
                facts |= {"stage": stage, "about": about}
            case progress.Progress() as event:
                self._progress(event, now, report.segments - report.segment if report.segment else 0)
            case progress.PreviewWritten(path=path):
                facts["preview"] = path
            case progress.Saved() | progress.Skipped() | progress.Failed() as event:
                self._video_ended(event, now)
            case progress.Message(level="error", message=message):
                facts["last_error"] = message
            case progress.RunFinished(failed=failed):
                facts |= {"finished": True, "exit_code": int(failed > 0)}
            case progress.RunFailed(exit_code=code, message=message):
                facts |= {"finished": True, "exit_code": code, "last_error": message}

    def _progress(self, event: progress.Progress, now: float, segments_after: int) -> None:
        if event.stage == "denoise":
            took = now - self.stage_began
            self.facts |= {"step": event.done, "steps": event.total}
            self.facts["seconds_per_step"] = round(took / max(1, event.done), 3)
            self.segment_seconds = took + (event.seconds_left or 0.0)
        if event.stage in ("denoise", "decode") and event.seconds_left is not None:
            self.video_ends = now + event.seconds_left + segments_after * self.segment_seconds

    def _video_ended(self, event: progress.Saved | progress.Skipped | progress.Failed, now: float) -> None:
        facts = self.facts
        facts["made"] += 1
        self.video_ends, self.is_making = now, False
        if isinstance(event, progress.Failed):
            facts |= {"failed": facts["failed"] + 1, "last_error": event.message}
        elif isinstance(event, progress.Saved):
            self.durations.append(now - self.video_began)
            facts |= {"output": event.path, "preview": None}

    def seconds_left(self, now: float) -> dict[str, float | None]:
        """Return the seconds that the video in work and the whole run still take, as far as is known."""
        if self.video_ends is None:
            return {"seconds_left": None, "seconds_left_all": None}
        video, mine = max(0.0, self.video_ends - now), self.facts["mine"]
        known = self.durations or [self.video_ends - self.video_began]
        after = 0 if mine is None else max(0, mine - self.facts["made"] - self.is_making)
        whole = None if mine is None else round(video + after * sum(known) / len(known), 1)
        return {"seconds_left": round(video, 1), "seconds_left_all": 0.0 if self.facts["finished"] else whole}

    def record(self) -> Record:
        """Return it as it is now, as the file has it."""
        now = time.time()
        return {**self.facts, "updated": _moment(now), **self.seconds_left(now), "memory": memory_now()}


@dataclass
class StatusFile:
    """Renderer that also writes the state of the run to a file."""

    path: Path
    render: Callable[[Report], None]
    status: RunStatus = field(default_factory=RunStatus)
    is_begun: bool = False
    is_beating: bool = False
    has_warned: bool = False
    written: float = 0.0
    lock: "_thread.RLock" = field(default_factory=_thread.RLock)

    def __call__(self, report: Report) -> None:
        """Render an event, take it in, and write if that is due."""
        self.render(report)
        with self.lock:
            self.status.take(report)
            if isinstance(report.event, progress.RunStarted):
                self.begin()
            elif self.is_begun and (isinstance(report.event, MILESTONES) or self._is_old()):
                self._write()

    def begin(self) -> None:
        """Write from now on: when something happens, and every few seconds, as a sign of life."""
        with self.lock:
            self._write()
            if not self.is_begun:
                self.is_begun = self.is_beating = True
                with suppress(RuntimeError):  # no thread
                    _thread.start_new_thread(self._beat, ())

    def stop(self) -> None:
        """Write from now on only when something happens."""
        self.is_beating = False

    def _beat(self) -> None:
        while self.is_beating:
            time.sleep(EVERY / 4)
            with self.lock:
                if self.is_beating and self._is_old():
                    self._write()

    def _is_old(self) -> bool:
        return time.monotonic() - self.written >= EVERY

    def _write(self) -> None:
        self.written = time.monotonic()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, self.status.record())
        except OSError as error:
            if not self.has_warned:
                self.has_warned = True
                logger.warning("--status %s: cannot be written (%s)", self.path, error.strerror or error)


@contextmanager
def write_status(asked: Asked, reporter: Reporter) -> Iterator[None]:
    """Write the status of the run, if it is asked for; what is reported after the block is written as well.

    A named file is there at once, one beside the outputs when the first video begins.

    Raises:
        InputError: the file is another one, or cannot be written.
    """
    path = None if asked.settings.answers else _path(asked)
    if path is None:
        yield
        return
    status = StatusFile(path, reporter.render)
    reporter.render = status
    if asked.settings.status is not None:
        status.begin()
    try:
        yield
    finally:
        status.stop()


def _path(asked: Asked) -> Path | None:
    """Return the file: the one that is named, or for a list of jobs one beside the outputs."""
    settings, flag = asked.settings, "--status"
    if settings.status is None:
        if settings.jobs is None:
            return None
        path, shard = default_path(asked.values), settings.shard
        own = "" if shard is None else f".{shard.index}_of_{shard.count}"  # each share has a file of its own
        return path.with_name(f"{path.name.removesuffix(SUFFIX)}{own}{SUFFIX}")
    path = Path(settings.status).expanduser()
    if path.suffix != ".json":
        raise InputError(flag, settings.status, "must end in .json", f"try {path.with_suffix('.json')}")
    if path.exists() and not _is_status(path):
        raise InputError(flag, path, "is there, and is no status of an earlier run", "choose another name")
    check_writable(flag, path.parent)
    return path


def default_path(values: Mapping[str, object]) -> Path:
    """Return the file beside the folder of the outputs; of a pattern, beside what comes before its fields."""
    if folder := values.get("output_dir"):
        place = Path(str(folder)).expanduser()
    elif output := values.get("output"):
        place = Path(str(output)).expanduser().parent
    else:
        place = Path("result")
    place = next(above for above in (place, *place.parents) if "{" not in str(above))
    return place.with_name(f"{place.name}{SUFFIX}") if place.name else place / f"videogen{SUFFIX}"


def _is_status(path: Path) -> bool:
    try:
        content = parse_json(read_text(path))
    except (TextError, ValueError):
        return False
    return isinstance(content, dict) and content.get("kind") == KIND


def memory_now() -> dict[str, int]:
    """Return the bytes that this process has in RAM, and torch on its GPU."""
    import psutil  # noqa: PLC0415 - not needed for --help

    found = {"ram": psutil.Process().memory_info().rss}
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        found["gpu"] = cuda.memory_allocated()
    return found


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
