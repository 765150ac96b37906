"""How events look on stderr: bars on a terminal, stamped lines elsewhere, JSON for programs, errors only."""

import _thread  # whose threads nobody waits for: ``threading`` hangs where there is no memory to start one
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from videogen.errors import brief
from videogen.results import progress
from videogen.results.formatting import format_bytes, format_seconds
from videogen.results.progress import Report
from videogen.results.run_summary import closing_line, list_line

if TYPE_CHECKING:
    from tqdm import tqdm

INTERRUPTED = 130
ANNOUNCE_AFTER = 1.0  # seconds; a stage that is over by then is not worth a line
LINE_EVERY = 30.0  # seconds
FALLBACK_COLUMNS = 100
NAME_LENGTH = 28  # of an output's name in front of a bar
STAGES = {
    "ray": "connecting to Ray",
    "libraries": "loading libraries",
    "download": "downloading",
    "load": "loading",
    "prompt": "writing the prompt",
    "text": "encoding the prompt",
    "clip": "encoding the image",
    "vae encode": "encoding the input",
    "audio": "encoding the sound",
    "denoise": "denoising",
    "decode": "decoding",
}


def stage_title(report: Report, stage: str, about: str) -> str:
    """Return what is being done, with the segment that it is done for."""
    words = [STAGES.get(stage, stage), about]
    if report.segments > 1 and report.segment:
        words.append(f"segment {report.segment} of {report.segments}")
    return " ".join(word for word in words if word)


def done_of_total(done: int, total: int, unit: str) -> str:
    """Return how much of something is done."""
    if unit == "byte":
        return f"{format_bytes(done)} of {format_bytes(total)}"
    return f"{unit} {done} of {total}"


def number_of(index: int, videos: int | None) -> str:
    """Return which video it is, and of how many if there are several."""
    return f"{index} of {videos}" if videos and videos > 1 else str(index)


def video_title(report: Report, event: progress.VideoStarted) -> str:
    """Return the line of a video that begins."""
    words = [f"video {number_of(report.index, event.videos)}"]
    words += [f"{event.failed} failed"] if event.failed else []
    words += [f"about {format_seconds(event.seconds_left)} left"] if event.seconds_left else []
    return f"{', '.join(words)}: seed {event.seed}, {event.width}x{event.height}, {event.num_frames} frames"


def message_of(report: Report) -> str:
    """Return the line for people about an event, empty where only bars and stages show it."""
    line = ""
    match report.event:
        case progress.VideoStarted() as event:
            line = video_title(report, event)
        case progress.SegmentFinished():
            line = f"segment {report.segment} of {report.segments} is finished"
        case progress.Saved() as event:
            line = closing_line(event)
        case progress.RunFinished() as event:
            line = list_line(event)
        case progress.Skipped(path=path):
            line = f"{path} is complete, skipped"
        case progress.Stopping(after=after):
            line = f"stopping {after}; Ctrl-C again stops at once" if after else "stopping"
        case progress.Message(level=level, message=text):
            line = text if level in ("info", "debug") else f"{level}: {text}"
        case progress.Failed(message=text):
            line = f"error: video {number_of(report.index, report.event.videos)} failed: {text}"
        case progress.RunFailed(exit_code=code, message=text):
            line = text if code == INTERRUPTED else f"error: {text}"
    return line


def is_error(event: progress.Event) -> bool:
    """Return whether an event is said even where only errors are wanted."""
    failed = isinstance(event, progress.Failed | progress.RunFailed)
    return failed or (isinstance(event, progress.Message) and event.level == "error")


@dataclass
class Errors:
    """Only errors and, if the log lets them through, its lines; as JSON if asked for."""

    errors_as_json: bool = False

    def __call__(self, report: Report) -> None:
        if is_error(report.event) and self.errors_as_json:
            self.say(json.dumps(report.record()))
        elif is_error(report.event) or isinstance(report.event, progress.Message):
            self.say(message_of(report))

    def say(self, line: str) -> None:
        """Print a line to stderr, unless it is empty."""
        with suppress(OSError):  # nobody can be told
            sys.stderr.write(f"{line}\n" if line else "")
            sys.stderr.flush()


@dataclass
class Lines(Errors):
    """A stamped line per stage that lasts, and while it does one every 30 seconds."""

    _begun: dict[tuple[int, str], Report] = field(default_factory=dict)  # by video and stage
    _last: float = 0.0

    def __call__(self, report: Report) -> None:
        match report.event:
            case progress.StageStarted() as event:
                self._last = time.monotonic()
                self._begun[report.index, event.stage] = report
                with suppress(RuntimeError):  # no thread
                    _thread.start_new_thread(self._announce, (report, event))
            case progress.StageFinished(stage=stage):
                self._begun.pop((report.index, stage), None)
            case progress.Progress() as event:
                if time.monotonic() - self._last >= LINE_EVERY:
                    self._last = time.monotonic()
                    self._stamped(report, self._how_far(report, event))
            case progress.VideoStarted() | progress.SegmentFinished() | progress.Skipped():
                self._stamped(report, message_of(report))
            case progress.Stopping() | progress.Saved() | progress.RunFinished():
                self.say(message_of(report))
            case _:
                super().__call__(report)

    def _stamped(self, report: Report, line: str) -> None:
        self.say(f"{time.strftime('%H:%M:%S', time.localtime(report.time))} {line}")

    def _announce(self, report: Report, event: progress.StageStarted) -> None:
        """Say that a stage has begun, if it lasts."""
        time.sleep(ANNOUNCE_AFTER)
        if self._begun.get((report.index, event.stage)) is report:
            self._stamped(report, self._title(report, event))

    @staticmethod
    def _title(report: Report, event: progress.StageStarted) -> str:
        size = format_bytes(event.total) if event.unit == "byte" else f"{event.total} {event.unit}s"
        return stage_title(report, event.stage, event.about) + (f": {size}" if event.total > 0 else "")

    @staticmethod
    def _how_far(report: Report, event: progress.Progress) -> str:
        left = f", about {format_seconds(event.seconds_left)} left" if event.seconds_left else ""
        far = done_of_total(event.done, event.total, event.unit)
        return f"{stage_title(report, event.stage, event.about)}: {far}{left}"


def columns() -> int:
    """Return how wide the terminal is, 0 if it does not say."""
    with suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns
    return 0


@dataclass
class Bars(Errors):
    """A bar for what has steps, frames or bytes, with the name of its video; a passing line for the rest."""

    _videos: dict[int, str] = field(default_factory=dict)  # what stands in front of their bars
    _open: "dict[tuple[int, str], tqdm]" = field(default_factory=dict)  # by video and stage

    def __call__(self, report: Report) -> None:
        match report.event:
            case progress.VideoStarted() as event:
                number = f"{report.index}/{event.videos}" if event.videos else str(report.index)
                self._videos[report.index] = (
                    f"{number} {brief(event.output, NAME_LENGTH)} seed {event.seed}: "
                )
                self.say(video_title(report, event))
            case progress.StageStarted() as event:
                self._close(report.index, event.stage)  # of a worker that was lost
                self._open[report.index, event.stage] = self._bar(report, event)
            case progress.Progress(stage=stage, done=done):
                bar = self._open[report.index, stage]
                bar.update(done - bar.n)
            case progress.StageFinished(stage=stage):
                self._close(report.index, stage)
            case progress.SegmentFinished():
                pass
            case progress.Skipped() | progress.Stopping() | progress.Saved() | progress.RunFinished():
                self.say(message_of(report))
            case _:
                super().__call__(report)

    def _close(self, index: int, stage: str) -> None:
        """Close the bar of a stage, if there is one."""
        if (bar := self._open.pop((index, stage), None)) is not None:
            bar.close()

    def _bar(self, report: Report, event: progress.StageStarted) -> "tqdm":
        from tqdm import tqdm  # noqa: PLC0415 - not needed for --help

        title = self._videos.get(report.index, "") + stage_title(report, event.stage, event.about)
        counted = event.total > 0
        in_bytes = event.unit == "byte"
        return tqdm(
            total=event.total or None,
            desc=title,
            unit="B" if in_bytes else event.unit or "it",
            unit_scale=in_bytes,
            leave=counted and not in_bytes,
            ncols=None if columns() else FALLBACK_COLUMNS,
            dynamic_ncols=bool(columns()),
            bar_format=None if counted else "{desc} ...",
            file=sys.stderr,
        )

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        if not (self._open and line):
            super().say(line)
            return
        from tqdm import tqdm  # noqa: PLC0415 - there is a bar

        with suppress(OSError):
            tqdm.write(line, file=sys.stderr)


@dataclass
class Json(Errors):
    """One JSON object per line for every event, to what stderr is when this is made."""

    def __call__(self, report: Report) -> None:
        with suppress(OSError, ValueError):  # nobody can be told
            self.stream.write(json.dumps(report.record()) + "\n")
            self.stream.flush()

    def __post_init__(self) -> None:
        self.stream = sys.stderr


Renderer = Callable[[Report], None]
RENDERERS: Mapping[str, Callable[[bool], Renderer]] = {
    "bars": Bars, "lines": Lines, "json": Json, "none": Errors,
}  # fmt: skip
"""What --progress names; made with whether errors are to be JSON."""
