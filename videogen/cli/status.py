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
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from videogen.cli.jobs import STDIN
from videogen.cli.sources import Asked
from videogen.errors import InputError
from videogen.files import Record, TextError, parse_json, read_text, write_json
from videogen.results import progress
from videogen.results.progress import Report, Reporter
from videogen.results.time_left import TimeLeft
from videogen.results.writable import check_file

logger = logging.getLogger(__name__)

EVERY = 2.0  # seconds
SUFFIX = ".status.json"
KIND = "videogen run"  # what tells a status file from other JSON
MILESTONES = (
    progress.RunStarted,
    progress.VideoStarted,
    progress.PreviewWritten,
    progress.Saved,
    progress.Failed,
    progress.RunFinished,
    progress.RunFailed,
)


@dataclass(kw_only=True, slots=True)
class RunFacts:
    """What the file says of the run."""

    kind: str = KIND
    pid: int = field(default_factory=os.getpid)
    started: str = field(default_factory=lambda: _moment(time.time()))
    index: int = 0
    videos: int | None = None
    mine: int | None = None
    made: int = 0
    failed: int = 0
    segment: int = 0
    segments: int = 0
    last_error: str | None = None
    finished: bool = False
    exit_code: int | None = None


@dataclass(kw_only=True, slots=True)
class VideoFacts:
    """What the file says of the video in work."""

    seed: int | None = None
    output: str | None = None
    preview: str | None = None
    stage: str | None = None
    about: str | None = None
    step: int | None = None
    steps: int | None = None
    seconds_per_step: float | None = None


@dataclass
class RunStatus:
    """How far a run is, kept up to date by its events; times are seconds since 1970."""

    run: RunFacts = field(default_factory=RunFacts)
    video: VideoFacts = field(default_factory=VideoFacts)
    time_left: TimeLeft = field(default_factory=TimeLeft)
    video_began: float = 0.0
    durations: list[float] = field(default_factory=list)
    is_making: bool = False

    def take(self, report: Report) -> None:
        """Take in what an event says."""
        run, video, now = self.run, self.video, report.time
        self.time_left.take(report)
        run.index, run.segment, run.segments = report.index, report.segment, report.segments
        match report.event:
            case progress.RunStarted(videos=videos, mine=mine):
                run.videos, run.mine = videos, mine
            case progress.VideoStarted(seed=seed, output=output):
                self.video = VideoFacts(seed=seed, output=output)
                self.video_began, self.is_making = now, True
            case progress.StageStarted(stage=stage, about=about):
                video.stage, video.about = stage, about
            case progress.Progress(stage="denoise", done=done, total=total):
                video.step, video.steps = done, total
                video.seconds_per_step = round((now - self.time_left.stage_began) / max(1, done), 3)
            case progress.PreviewWritten(path=path):
                video.preview = path
            case progress.Saved() | progress.Skipped() | progress.Failed() as event:
                self._video_ended(event, now)
            case progress.Message(level="error", message=message):
                run.last_error = message
            case progress.RunFinished(failed=failed):
                run.finished, run.exit_code = True, int(failed > 0)
            case progress.RunFailed(exit_code=code, message=message):
                run.finished, run.exit_code, run.last_error = True, code, message

    def _video_ended(self, event: progress.Saved | progress.Skipped | progress.Failed, now: float) -> None:
        self.run.made += 1
        self.time_left.ends, self.is_making = now, False
        if isinstance(event, progress.Failed):
            self.run.failed += 1
            self.run.last_error = event.message
        elif isinstance(event, progress.Saved):
            self.durations.append(now - self.video_began)
            self.video.output, self.video.preview = event.path, None

    def seconds_left(self, now: float) -> dict[str, float | None]:
        """Return the seconds that the video in work and the whole run still take, as far as is known."""
        video, ends, mine = self.time_left.seconds(now), self.time_left.ends, self.run.mine
        if video is None or ends is None:
            return {"seconds_left": None, "seconds_left_all": None}
        known = self.durations or [ends - self.video_began]
        after = 0 if mine is None else max(0, mine - self.run.made - self.is_making)
        whole = None if mine is None else round(video + after * sum(known) / len(known), 1)
        return {"seconds_left": video, "seconds_left_all": 0.0 if self.run.finished else whole}

    def record(self, now: float) -> Record:
        """Return what the file says at a time, but for what is of this moment alone."""
        return {**asdict(self.run), **asdict(self.video), **self.seconds_left(now)}


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
            now = time.time()
            record = {**self.status.record(now), "updated": _moment(now), "memory": memory_now()}
            write_json(self.path, record)
        except OSError as error:
            if not self.has_warned:
                self.has_warned = True
                logger.warning("--status %s: cannot be written (%s)", self.path, error.strerror or error)


@contextmanager
def write_status(asked: Asked, reporter: Reporter) -> Iterator[None]:
    """Write the status of the run, if it is asked for; what is reported after the block is written as well.

    A named file is there at once, that of a list when the first video begins.

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
    """Return the file: the one that is named, or for a list of jobs ``default_path``."""
    settings = asked.settings
    if settings.status is None:
        if settings.jobs is None:
            return None
        path, shard = default_path(asked.values, settings.jobs), settings.shard
        own = "" if shard is None else f".{shard.index}_of_{shard.count}"  # each share has a file of its own
        return path.with_name(f"{path.name.removesuffix(SUFFIX)}{own}{SUFFIX}")
    path = Path(settings.status).expanduser()
    check_file("--status", path, [".json"], may_replace=True)
    output = Path(str(asked.values.get("output") or "")).expanduser()
    if output.name and output.with_suffix(".json") == path:
        fix = f"try {path.with_suffix(SUFFIX)}"
        raise InputError("--status", path, "is the name of the video's record", fix)
    if path.exists() and not _is_status(path):
        what = "is there, and is no status of an earlier run"
        raise InputError("--status", path, what, "choose another name")
    return path


def default_path(values: Mapping[str, object], jobs: str) -> Path:
    """Return the file beside the folder of the outputs; of a pattern, beside what comes before its fields.

    Without a name for the outputs of all videos, it is beside the list, whose lines may name their own.
    """
    if folder := values.get("output_dir"):
        place = Path(str(folder)).expanduser()
    elif output := values.get("output"):
        place = Path(str(output)).expanduser().parent
    elif jobs != STDIN:
        return Path(jobs).expanduser().with_suffix(SUFFIX)
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
