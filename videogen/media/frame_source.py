"""When the frames of a video are shown, and reading them: all, or the last few, at any rate."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from videogen.media.inputs import InputFile, Source

AVERAGE_RATE_TOLERANCE = 0.02  # relative, between the container's average rate and that of the timestamps
MILLISECOND = Fraction(1, 1000)


class Keyframe(NamedTuple):
    """A frame at which decoding may start; times in ticks."""

    pts: int
    dts: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """Presentation times of the frames, in ticks of ``tick`` seconds.

    ``moments`` ascend; ``end`` is the end of the last frame. Without ``keyframes`` (ascending), decoding can
    only start at the beginning of the file.
    """

    moments: Sequence[int]
    end: int
    tick: Fraction
    keyframes: tuple[Keyframe, ...] = ()

    @property
    def seconds(self) -> Fraction:
        return (self.end - self.moments[0]) * self.tick

    def rate(self, declared: Fraction) -> Fraction:
        """Return the average frames per second: ``declared``, unless it is far off (variable rates)."""
        measured = len(self.moments) / self.seconds
        return declared if abs(declared / measured - 1) < AVERAGE_RATE_TOLERANCE else measured


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """Resampling to the source frame nearest to k / ``fps`` seconds; of two equally near, the later."""

    timeline: Timeline
    fps: Fraction

    @property
    def count(self) -> int:
        """Number of output frames that start before the last source frame ends.

        That end may be late by the rounding to ticks (mkv: 1 ms), which must not add a frame.
        """
        rounding = min(self.timeline.tick, MILLISECOND) if self.timeline.keyframes else 0
        return max(1, math.ceil((self.timeline.seconds - rounding) * self.fps))

    def source(self, k: int) -> int:
        """Return the index of the source frame for output frame ``k``."""
        moments = self.timeline.moments
        moment = moments[0] + k / (self.fps * self.timeline.tick)
        index = bisect_right(moments, moment) - 1
        if index + 1 < len(moments) and moment - moments[index] >= moments[index + 1] - moment:
            return index + 1
        return index


def regular(num_frames: int, source_fps: float, fps: float) -> Resampling:
    """Return the resampling of ``num_frames`` frames of which frame i is at i / source_fps seconds."""
    timeline = Timeline(moments=range(num_frames), end=num_frames, tick=1 / exact(source_fps))
    return Resampling(timeline=timeline, fps=exact(fps))


def exact(rate: float) -> Fraction:
    """Return a rate as the short decimal it was given as: 29.97 is 2997/100."""
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"frame rate {rate}: must be a number above 0")
    return Fraction(rate).limit_denominator(1_000_000) or Fraction(rate)


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSource(InputFile):
    """A video whose frames are read when they are asked for.

    ``width`` and ``height`` are upright (display matrix applied) and with square pixels, ``fps`` is the
    average rate, ``start`` the seconds from the file's start to the first frame.
    """

    width: int
    height: int
    num_frames: int
    fps: float
    seconds: float
    has_audio: bool = False
    start: float = 0.0

    def count(self, *, source_fps: float | None = None, fps: float = 24.0) -> int:
        """Return the number of frames that ``frames`` yields, without decoding."""
        return self._resampling(source_fps, fps).count

    def frames(
        self, *, source_fps: float | None = None, fps: float = 24.0, size: tuple[int, int] | None = None
    ) -> Iterator[np.ndarray]:
        """Yield the frames in the order shown, uint8 RGB [H, W, 3]; they must not be written into.

        Args:
            source_fps: None yields every frame as it is, whatever the rates (as published); 0 resamples by
                the file's own timestamps; anything else takes frame i to be shown at i / source_fps seconds.
            fps: frames per second that are yielded when resampling: the source frame nearest to k / fps
                seconds (of two equally near the later), k = 0, 1, ... until the last source frame ends.
            size: (width, height) that every frame is scaled to (``scaled``), whatever its aspect ratio; None
                is the video's own.

        Raises:
            InputError: the file cannot be decoded to its end.
        """
        resampling = self._resampling(source_fps, fps)
        return self._read(map(resampling.source, range(resampling.count)), size)

    def tail(
        self,
        count: int,
        *,
        source_fps: float | None = None,
        fps: float = 24.0,
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Return the last ``count`` items of ``frames``, uint8 [count, H, W, 3].

        Raises:
            InputError: there are fewer, or the file cannot be decoded.
        """
        resampling = self._resampling(source_fps, fps)
        total = resampling.count
        if not 0 < count <= total:
            raise self.source.error(f"has {total} frames, not {count}", "give a longer video")
        width, height = size or (self.width, self.height)
        images = np.empty((count, height, width, 3), np.uint8)
        self._fill(images, [resampling.source(k) for k in range(total - count, total)], size)
        return images

    @property
    def source(self) -> Source:
        """Return the file, as messages call it when it is read again."""
        return Source("input video", self.name, self.path)

    def _resampling(self, source_fps: float | None, fps: float) -> Resampling:
        if source_fps is None:
            return regular(self.num_frames, 1, 1)
        return self._by_timestamps(fps) if source_fps == 0 else regular(self.num_frames, source_fps, fps)

    def _by_timestamps(self, fps: float) -> Resampling:
        """Return the resampling by the file's own times."""
        return regular(self.num_frames, self.fps, fps)

    def _read(self, indices: Iterator[int], size: tuple[int, int] | None) -> Iterator[np.ndarray]:
        """Yield the frames at ascending ``indices``, each as often as it is among them."""
        raise NotImplementedError

    def _fill(self, images: np.ndarray, indices: Sequence[int], size: tuple[int, int] | None) -> None:
        """Read the frames at ascending ``indices`` into ``images``."""
        for place, image in enumerate(self._read(iter(indices), size)):
            images[place] = image
