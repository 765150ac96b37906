"""Videos that Python callers hand over: files, arrays or lists of images, read like input files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from videogen.errors import InputError
from videogen.media.download import Fetcher
from videogen.media.video_reader import InputVideo, read_video, scaled


@dataclass(frozen=True, slots=True)
class FrameArray:
    """Frames in memory, uint8 [F, H, W, 3], at any rate; the part of ``InputVideo`` that pipelines use."""

    pictures: np.ndarray
    name: str = "the given frames"
    fps: float = 24.0
    has_audio: bool = False

    @property
    def width(self) -> int:
        return self.pictures.shape[2]

    @property
    def height(self) -> int:
        return self.pictures.shape[1]

    def count(self, *, source_fps: float | None = None, fps: float = 24.0) -> int:
        """How many frames there are."""
        if source_fps is not None:
            what = f"frames in memory cannot be resampled to {fps:g}"
            raise InputError("source_fps=", source_fps, what, "give a file, or resample them first")
        return len(self.pictures)

    def frames(self, *, size: tuple[int, int] | None = None, **_rates: Any) -> Iterator[np.ndarray]:
        """One [H, W, 3] after the other, scaled to ``size`` (width, height) if that is another."""
        for picture in self.pictures:
            yield scaled(picture, size)

    def tail(self, count: int, *, size: tuple[int, int] | None = None, **_rates: Any) -> np.ndarray:
        """The last ``count`` items of ``frames``, [count, H, W, 3]."""
        last = self.pictures[-count:]
        if size in (None, (self.width, self.height)):
            return last
        return np.stack([scaled(picture, size) for picture in last])


def as_video(name: str, given: Any) -> InputVideo | FrameArray:
    """What a Python caller gave as a video: a path, uint8 [F, H, W, 3], or a sequence of images.

    Raises:
        InputError: none of these, or a file that is not a video.
    """
    if isinstance(given, InputVideo | FrameArray):
        return given
    if isinstance(given, str | Path):
        if "://" in str(given):
            raise InputError(f"{name}=", given, "must be a file", "download it first")
        return read_video(f"{name}=", str(given), Fetcher(folder=Path()))
    if isinstance(given, Sequence) and given and isinstance(given[0], Image.Image):
        if len({image.size for image in given}) > 1:
            raise InputError(f"{name}=", "images", "must be of one size", "resize them first")
        given = np.stack([np.asarray(image.convert("RGB")) for image in given])
    if not (
        isinstance(given, np.ndarray) and given.dtype == np.uint8 and given.ndim == 4 and given.shape[3] == 3
    ):
        what = "must be a path, a list of PIL images or a uint8 array [F, H, W, 3]"
        raise InputError(f"{name}=", type(given).__name__, what, "for example load_video(path)")
    return FrameArray(given)
