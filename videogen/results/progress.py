"""What a run reports while it goes on: typed events, and the object that passes them on. Needs no torch.

The engine, the pipelines and the loaders report to a ``Reporter``; what becomes of an event is up to its
``render`` (bars, lines and JSON are in cli/renderers.py).
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import ClassVar


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Base of all events; ``name`` is what the JSON calls it."""

    name: ClassVar[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStarted(Event):
    """``videos`` of the list, of which this run makes ``mine``; None where they come one by one."""

    name: ClassVar[str] = "start"
    videos: int | None
    mine: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoStarted(Event):
    """A video is about to be made; ``seconds_left`` is for all that are still to be made."""

    name: ClassVar[str] = "video"
    videos: int | None
    failed: int
    seconds_left: float | None
    seed: int
    width: int
    height: int
    num_frames: int
    output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StageStarted(Event):
    """A part of the work begins; ``total`` is in ``unit``, 0 where its size is not known."""

    name: ClassVar[str] = "stage"
    stage: str
    about: str
    total: int
    unit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress(Event):
    """How far the stage is: a step is done, frames are decoded, bytes are read."""

    name: ClassVar[str] = "progress"
    stage: str
    about: str
    done: int
    total: int
    unit: str
    seconds_left: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StageFinished(Event):
    """The stage has ended, by itself or by an error."""

    name: ClassVar[str] = "stage_finished"
    stage: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviewWritten(Event):
    """A preview of the clean latents that a step predicts is there; the next one takes its place."""

    name: ClassVar[str] = "preview"
    step: int
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentFinished(Event):
    """A segment of a long video is kept; ``--resume`` goes on behind it."""

    name: ClassVar[str] = "segment"


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved(Event):
    """A video is complete; ``seconds`` are those of its stages, ``peak_memory`` bytes by place."""

    name: ClassVar[str] = "saved"
    path: str
    sidecar: str
    seconds: Mapping[str, float]
    seconds_per_step: float
    peak_memory: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped(Event):
    """An earlier run has completed the video."""

    name: ClassVar[str] = "skipped"
    path: str
    sidecar: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed(Event):
    """One video of several could not be made."""

    name: ClassVar[str] = "failed"
    videos: int | None
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFinished(Event):
    """There is nothing more to make; of ``videos`` some failed, and some were complete before."""

    name: ClassVar[str] = "done"
    videos: int
    failed: int
    skipped: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopping(Event):
    """Ctrl-C was heard; what still ends first is named by ``after``."""

    name: ClassVar[str] = "stopping"
    after: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Message(Event):
    """A line of the log: level 'debug', 'info', 'warning' or 'error'."""

    name: ClassVar[str] = "message"
    level: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFailed(Event):
    """The whole run ends here."""

    name: ClassVar[str] = "error"
    exit_code: int
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """An event with its time (seconds since 1970), and where in the run it happened.

    ``index`` is the number of the video, from 1, and 0 outside of one; ``segment`` of ``segments`` likewise.
    """

    time: float
    index: int
    segment: int
    segments: int
    event: Event

    def record(self) -> dict[str, object]:
        """Return it as plain data, as the JSON has it."""
        moment = datetime.fromtimestamp(self.time).astimezone().isoformat(timespec="milliseconds")
        place = {"index": self.index} if self.index else {}
        if self.segments > 1 and self.segment:
            place |= {"segment": self.segment, "segments": self.segments}
        return {"event": self.event.name, "time": moment, **place, **asdict(self.event)}


def ignore(report: Report) -> None:
    """Render nothing."""


@dataclass
class Reporter:
    """Passes events on with their place in the run, and carries the wish to stop to where work can stop.

    ``videos`` is how many the list has, None where that is not known; ``mine`` of them are made in this run,
    ``at_once`` at the same time.
    """

    render: Callable[[Report], None] = ignore
    videos: int | None = None
    mine: int | None = None
    index: int = 0
    segment: int = 0
    segments: int = 0
    made: int = 0
    failed: int = 0
    skipped: int = 0
    at_once: int = 1
    is_stepping: bool = False
    wants_stop: bool = False
    _run_began: float = 0.0
    _began: float = 0.0
    _begun: dict[int, float] = field(default_factory=dict)
    _durations: list[float] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        """Pass an event on."""
        place = {"index": self.index, "segment": self.segment, "segments": self.segments}
        self.render(Report(time=time.time(), event=event, **place))

    def start_run(self, videos: int | None, *, mine: int | None = None) -> None:
        """Report how many videos the list has; ``mine`` is how many this run makes, unless it makes all."""
        self.videos, self.mine = videos, videos if mine is None else mine
        self._run_began = time.monotonic()
        self.emit(RunStarted(videos=videos, mine=self.mine))

    def start_video(
        self, index: int, *, seed: int, size: tuple[int, int], num_frames: int, segments: int, output: str
    ) -> None:
        """Report the video that is made next, and from now on events are about it."""
        self.index, self.segment, self.segments = index, 0, segments
        self._began = time.monotonic()
        event = VideoStarted(
            videos=self.videos,
            failed=self.failed,
            seconds_left=self._seconds_left(),
            seed=seed,
            width=size[0],
            height=size[1],
            num_frames=num_frames,
            output=output,
        )
        self.emit(event)

    def _seconds_left(self) -> float | None:
        """Return how long the videos that are still to be made take, if they are like those before."""
        if self.mine is None or not self._durations:
            return None
        mean = sum(self._durations) / len(self._durations)
        return round(mean * (self.mine - self.made) / self.at_once, 1)

    def end_video(self, event: Saved | Skipped | Failed) -> None:
        """Report what became of a video."""
        self.count(skipped=isinstance(event, Skipped), failed=isinstance(event, Failed))
        if isinstance(event, Saved):
            self._durations.append(time.monotonic() - self._began)
        self.segment = 0
        self.emit(event)

    def count(self, *, skipped: bool = False, failed: bool = False) -> None:
        """Count something that was asked for, and is no video that was begun: it has no event of its own."""
        self.made += 1
        self.skipped += skipped
        self.failed += failed

    def relay(self, report: Report) -> None:
        """Pass on what another process reports of a video of this run, with the counts of the whole run."""
        event = report.event
        match event:
            case VideoStarted():
                self._begun[report.index] = time.monotonic()
                left = self._seconds_left()
                event = replace(event, videos=self.videos, failed=self.failed, seconds_left=left)
            case Failed():
                event = replace(event, videos=self.videos)
        if isinstance(event, Saved | Skipped | Failed):
            self.count(skipped=isinstance(event, Skipped), failed=isinstance(event, Failed))
            began = self._begun.pop(report.index, None)
            if began is not None and isinstance(event, Saved):
                self._durations.append(time.monotonic() - began)
        self.render(replace(report, event=event))

    def end_run(self) -> None:
        """Report the end of the last video."""
        self.index = self.segments = 0
        seconds = round(time.monotonic() - self._run_began, 3)
        self.emit(RunFinished(videos=self.made, failed=self.failed, skipped=self.skipped, seconds=seconds))

    @contextmanager
    def stage(
        self, name: str, about: str = "", *, total: int = 0, unit: str = "", every: float = 0.0
    ) -> Iterator[Callable[[float], None]]:
        """Report a part of the work; yields a function that reports how much more of it is done.

        Args:
            name: 'load', 'denoise', 'decode' ...
            about: what is loaded, ...
            total: how much there is to do, in ``unit``.
            every: seconds between reports; the last is always made.
        """
        started = last = time.monotonic()
        done = 0.0
        self.emit(StageStarted(stage=name, about=about, total=total, unit=unit))

        def advance(more: float) -> None:
            nonlocal done, last
            done += more
            now = time.monotonic()
            if now - last >= every or done >= total:
                last = now
                left = round((now - started) / done * (total - done), 1) if 0 < done <= total else None
                far = Progress(
                    stage=name, about=about, done=round(done), total=total, unit=unit, seconds_left=left
                )
                self.emit(far)

        try:
            yield advance
        finally:
            self.emit(StageFinished(stage=name, seconds=round(time.monotonic() - started, 3)))

    @contextmanager
    def steps(self, total: int) -> Iterator[Callable[[float], None]]:
        """Report denoising steps; between them a wish to stop is fulfilled.

        Raises:
            KeyboardInterrupt: the run is to stop.
        """
        with self.stage("denoise", total=total, unit="step") as advance:
            self.is_stepping = True
            try:
                yield advance
            finally:
                self.is_stepping = False
            self.check_stop()

    def check_stop(self) -> None:
        """End the run if that is wanted.

        Raises:
            KeyboardInterrupt: it is.
        """
        if self.wants_stop:
            raise KeyboardInterrupt


class ReporterHandler(logging.Handler):
    """Passes our log on as events."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self.reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self.reporter.emit(Message(level=record.levelname.lower(), message=self.format(record)))
