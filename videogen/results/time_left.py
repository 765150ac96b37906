"""How long the video in work still takes, by what its run reports."""

from dataclasses import dataclass

from videogen.results.progress import Progress, Report, StageStarted, VideoStarted


@dataclass
class TimeLeft:
    """Estimate of when the video in work is decoded, kept up to date by events; seconds since 1970.

    What its decoding will take is known from an earlier one, of this video or of another; until then there is
    no estimate while steps are made.
    """

    ends: float | None = None
    pixels: int = 0  # of all frames of the video
    stage_began: float = 0.0
    denoising: float = 0.0  # seconds of the last denoising loop
    per_pixel: float | None = None  # seconds of the last decoding

    def take(self, report: Report) -> None:
        """Take in what an event says."""
        match report.event:
            case VideoStarted(width=width, height=height, num_frames=count):
                self.ends, self.pixels = None, width * height * count
            case StageStarted():
                self.stage_began = report.time
            case Progress(stage="denoise" | "decode", seconds_left=float()) as event:
                self._progress(event, report)

    def _progress(self, event: Progress, report: Report) -> None:
        left, segments = event.seconds_left or 0.0, max(report.segments, 1)
        stage, part = report.time - self.stage_began + left, self.pixels / segments
        decoding = None if self.per_pixel is None else self.per_pixel * part
        if event.stage == "denoise":
            self.denoising = stage
            left += decoding or 0.0
        else:
            decoding = stage if decoding is None else decoding  # its first frames say little of the others
            left = decoding * (1 - event.done / event.total)
            if event.done == event.total and part:
                self.per_pixel = stage / part
        after = segments - report.segment if report.segment else 0
        self.ends = None if decoding is None else report.time + left + after * (self.denoising + decoding)

    def seconds(self, now: float) -> float | None:
        """Return the seconds that are left; None where that is not known."""
        return None if self.ends is None else round(max(0.0, self.ends - now), 1)
