"""Frames of results, one at a time: of video files, GIFs, .npy, PNGs and folders of them."""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from videogen.errors import InputError
from videogen.media.download import Fetcher
from videogen.media.inputs import MOST_FRAMES, Source
from videogen.media.probe import decode_packets, open_video, use_threads
from videogen.media.shown import look_of, to_rgb
from videogen.media.stored_frames import is_stored, read_stored
from videogen.media.video_reader import read_video
from videogen.review.found import Found

FIX = "make it again, or leave it out"


class Frames(NamedTuple):
    """The frames of a video [H, W, 3], in order, and how many there are."""

    length: int
    each: Iterator[np.ndarray]


def open_frames(flag: str, found: Found) -> Frames:
    """Return all frames of a result, which are read as they are taken, and checked to the last.

    Raises:
        InputError: the video is gone, or damaged.
    """
    _check_there(flag, found)
    if found.path.suffix.lower() == ".png" and found.path.is_file():
        return Frames(1, iter([_picture(flag, found.path)]))
    video = read_video(flag, str(found.path), Fetcher(folder=Path()))
    return Frames(video.num_frames, video.frames())


def middle_frame(flag: str, found: Found) -> np.ndarray:
    """Return the frame in the middle [H, W, 3], or the last one before it that can be read.

    Raises:
        InputError: the video is gone, or has no frame that can be read.
    """
    _check_there(flag, found)
    path, wanted = found.path, int(min(found.number("num_frames") or 1, MOST_FRAMES)) // 2
    source = Source(flag, str(path), path)
    if path.suffix.lower() == ".png" and path.is_file():
        return _picture(flag, path)
    if is_stored(path):
        stored = read_stored(source)
        return next(islice(stored.frames(), min(wanted, stored.num_frames - 1), None))
    with open_video(source) as (container, stream):
        use_threads(stream)
        pictures = deque(islice(decode_packets(container.demux(stream)), wanted + 1), maxlen=1)
        if pictures:
            picture = pictures[0]
            return to_rgb(picture, look_of(picture, stream.sample_aspect_ratio)[0], None)
    raise InputError(flag, path, "has no frames", FIX)


def _check_there(flag: str, found: Found) -> None:
    if not found.path.exists() or found.path == found.sidecar:
        raise InputError(flag, found.path, "its record is there, but the video is gone", FIX)


def _picture(flag: str, path: Path) -> np.ndarray:
    with Source(flag, str(path), path).reported(FIX), Image.open(path, formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))
