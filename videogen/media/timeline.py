"""When the frames of a video are shown, and which of them are shown at another rate."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

RATE_TOLERANCE = 0.02  # between the container's average rate and that of the timestamps
MILLISECOND = Fraction(1, 1000)


class Keyframe(NamedTuple):
    """Where decoding may start, in ticks."""

    pts: int
    dts: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """When each frame is shown, in ticks of ``tick`` seconds: ``moments`` ascend, ``end`` ends the last one.

    Without ``keyframes`` (ascending), decoding can only start at the beginning.
    """

    moments: Sequence[int]
    end: int
    tick: Fraction
    keyframes: tuple[Keyframe, ...] = ()

    @property
    def seconds(self) -> Fraction:
        return (self.end - self.moments[0]) * self.tick

    def rate(self, declared: Fraction) -> Fraction:
        """Average frames per second: what the container declares, unless it is far off (variable rates)."""
        measured = len(self.moments) / self.seconds
        return declared if abs(declared / measured - 1) < RATE_TOLERANCE else measured

    def is_steady(self) -> bool:
        """Whether the frame rate is constant, but for the rounding of timestamps to ticks."""
        steps, start = len(self.moments) - 1, self.moments[0]
        span = self.moments[-1] - start
        slack = min(steps, span / 4)  # a tick, or a quarter of a frame where ticks are as long as frames
        return all(abs((moment - start) * steps - i * span) <= slack for i, moment in enumerate(self.moments))


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """Which source frame is shown at k / ``fps`` seconds: the nearest, and of two equally near the later."""

    timeline: Timeline
    fps: Fraction

    @property
    def count(self) -> int:
        """How many output frames start before the last source frame ends.

        That end may be late by the rounding to ticks (mkv: 1 ms), which must not add a frame.
        """
        rounding = min(self.timeline.tick, MILLISECOND) if self.timeline.keyframes else 0
        return max(1, math.ceil((self.timeline.seconds - rounding) * self.fps))

    def source(self, k: int) -> int:
        """Index of the source frame for output frame ``k``."""
        moments = self.timeline.moments
        moment = moments[0] + k / (self.fps * self.timeline.tick)
        index = bisect_right(moments, moment) - 1
        if index + 1 < len(moments) and moment - moments[index] >= moments[index + 1] - moment:
            return index + 1
        return index


def regular(num_frames: int, source_fps: float, fps: float) -> Resampling:
    """Frame i is at i / source_fps seconds."""
    timeline = Timeline(moments=range(num_frames), end=num_frames, tick=1 / exact(source_fps))
    return Resampling(timeline=timeline, fps=exact(fps))


def exact(rate: float) -> Fraction:
    """A rate as people mean it: 29.97 is 2997/100."""
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"frame rate {rate}: must be a number above 0")
    return Fraction(rate).limit_denominator(1_000_000) or Fraction(rate)
