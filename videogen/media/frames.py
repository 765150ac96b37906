"""Videos that Python callers pass (files, arrays, lists of images), and single frames of any video."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from videogen.errors import InputError
from videogen.media.download import Fetcher
from videogen.media.picture import to_srgb
from videogen.media.shown import scaled
from videogen.media.stored_frames import StoredFrames
from videogen.media.video_reader import InputVideo, read_video, read_with_decord


@dataclass(frozen=True, slots=True)
class FrameArray:
    """Frames in memory, uint8 [F, H, W, 3], with the methods of ``InputVideo`` that pipelines use."""

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
        """Return the number of frames."""
        if source_fps is not None:
            what = f"frames in memory cannot be resampled to {fps:g}"
            raise InputError("source_fps=", source_fps, what, "give a file, or resample them first")
        return len(self.pictures)

    def frames(self, *, size: tuple[int, int] | None = None, **_rates: float | None) -> Iterator[np.ndarray]:
        """Yield the frames [H, W, 3], scaled to ``size`` (width, height)."""
        for picture in self.pictures:
            yield scaled(picture, size)

    def tail(self, count: int, *, size: tuple[int, int] | None = None, **_rates: float | None) -> np.ndarray:
        """Return the last ``count`` items of ``frames``, [count, H, W, 3]."""
        last = self.pictures[-count:]
        if size in (None, (self.width, self.height)):
            return last
        return np.stack([scaled(picture, size) for picture in last])


def as_picture(name: str, given: object) -> Image.Image:
    """Return an image for what a Python caller passed: an image, or uint8 [H, W, 3].

    Raises:
        InputError: neither.
    """
    if isinstance(given, np.ndarray) and given.dtype == np.uint8 and given.ndim == 3 and given.shape[2] == 3:
        return Image.fromarray(given)
    if not isinstance(given, Image.Image):
        what = "must be PIL images or uint8 arrays [H, W, 3]"
        raise InputError(f"{name}=", type(given).__name__, what, "use load_image(path)")
    return given


def as_video(name: str, given: object) -> InputVideo | StoredFrames | FrameArray:
    """Return a video for what a Python caller passed: a path, uint8 [F, H, W, 3], or a sequence of images.

    Raises:
        InputError: none of these, or a file that is not a video.
    """
    if isinstance(given, InputVideo | StoredFrames | FrameArray):
        return given
    if isinstance(given, str | Path):
        if "://" in str(given):
            raise InputError(f"{name}=", given, "must be a file", "download it first")
        return read_video(f"{name}=", str(given), Fetcher(folder=Path()))
    if isinstance(given, Sequence) and given and isinstance(given[0], Image.Image):
        if len({image.size for image in given}) > 1:
            raise InputError(f"{name}=", "images", "must be of one size", "resize them first")
        given = np.stack([np.asarray(to_srgb(image)[0]) for image in given])
    if not (
        isinstance(given, np.ndarray) and given.dtype == np.uint8 and given.ndim == 4 and given.shape[3] == 3
    ):
        what = "must be a path, a list of PIL images or a uint8 array [F, H, W, 3]"
        raise InputError(f"{name}=", type(given).__name__, what, "for example load_video(path)")
    return FrameArray(given)


def frames_at(
    video: InputVideo | StoredFrames | FrameArray, indices: Sequence[int], *, prefer_decord: bool = False
) -> Iterator[np.ndarray]:
    """Yield the frames at ascending ``indices``, uint8 RGB [H, W, 3].

    Frames are read one at a time, and none after the last index. ``prefer_decord`` reads them with decord, as
    the published video-to-video code does, where decord is installed and can read the file.
    """
    if prefer_decord and isinstance(video, InputVideo) and (images := read_with_decord(video, indices)):
        yield from images
        return
    for index, image in enumerate(islice(video.frames(), indices[-1] + 1)):
        yield from [image] * indices.count(index)
