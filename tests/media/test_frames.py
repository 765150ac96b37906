"""Frames that Python callers hand over."""

import numpy as np
import pytest
from PIL import Image

from videogen.errors import InputError
from videogen.media.frames import FrameArray, as_video

NOISE = np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), np.uint8)
PICTURES = NOISE.repeat(8, 1).repeat(8, 2)  # 96 x 64


def test_without_a_size_nothing_is_copied():
    video = FrameArray(PICTURES)
    for size in (None, (96, 64)):
        assert all(frame.base is PICTURES for frame in video.frames(size=size))
        assert video.tail(3, source_fps=None, size=size).base is PICTURES
        assert np.array_equal(video.tail(3, size=size), PICTURES[-3:])


@pytest.mark.parametrize("size", [(48, 32), (65, 49), (96, 40), (40, 64), (192, 128)])
def test_frames_are_scaled(size):
    video = FrameArray(PICTURES[:, :, ::-1])  # not contiguous
    frames = np.stack(list(video.frames(source_fps=None, size=size)))
    assert frames.shape == (5, size[1], size[0], 3)
    assert frames.dtype == np.uint8
    assert np.array_equal(video.tail(2, size=size), frames[-2:])
    resized = [
        Image.fromarray(picture[:, ::-1]).resize(size, Image.Resampling.BICUBIC) for picture in PICTURES
    ]
    assert np.abs(frames - np.stack(resized).astype(int)).mean() < 3


def test_chroma_of_every_pixel_counts():
    stripes = np.zeros((1, 64, 96, 3), np.uint8)
    stripes[:, :, 1::2, 0] = 255
    (image,) = FrameArray(stripes).frames(size=(32, 32))
    assert np.abs(image[:, 2:-2].mean((0, 1)) - (127, 0, 0)).max() < 8


def test_what_is_no_video():
    images = [Image.fromarray(picture) for picture in PICTURES]
    video = as_video("video", images)
    assert np.array_equal(list(video.frames()), PICTURES)
    assert as_video("video", video) is video
    with pytest.raises(InputError, match="must be a path, a list of PIL images or a uint8 array"):
        as_video("video", PICTURES[0])
