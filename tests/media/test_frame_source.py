"""Resampling: which frames are shown at another rate."""

from fractions import Fraction

import av
import numpy as np
import pytest

from videogen.errors import InputError


def nearest(times, end, fps):
    """Indices, written down as the rule says it."""
    chosen, k = [], 0
    while Fraction(k) / fps < end:
        chosen.append(min(range(len(times)), key=lambda i: (abs(times[i] - Fraction(k) / fps), -i)))
        k += 1
    return chosen


@pytest.mark.parametrize(
    ("source_fps", "fps"), [(48, 24), (12, 24), (30, 24), (16, 24), (24, 24), (23.976, 24)]
)
def test_resampling_from_a_given_rate(read, source_fps, fps):
    video = read("b_frames.mp4")
    frames, rate = list(video.frames()), Fraction(str(source_fps))
    expected = nearest([i / rate for i in range(36)], 36 / rate, fps)
    chosen = list(video.frames(source_fps=source_fps, fps=fps))
    assert len(chosen) == len(expected) == video.count(source_fps=source_fps, fps=fps)
    assert all(np.array_equal(chosen[k], frames[i]) for k, i in enumerate(expected))


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv"])
@pytest.mark.parametrize("fps", [24, 10])
def test_resampling_by_the_files_own_times(read, name, fps):
    video = read(name)
    with av.open(str(video.path)) as container:
        times = [Fraction(frame.pts) * frame.time_base for frame in container.decode(video=0)]
    expected = nearest([t - times[0] for t in times], Fraction(3, 2), fps)
    frames, chosen = list(video.frames()), list(video.frames(source_fps=0, fps=fps))
    assert len(chosen) == len(expected)
    assert all(np.array_equal(chosen[k], frames[i]) for k, i in enumerate(expected))


@pytest.mark.parametrize(
    "name", ["b_frames.mp4", "b_frames.mkv", "vp9.webm", "mpeg4.avi", "cut.mp4", "b_frames.flv"]
)
def test_a_rate_that_is_right_changes_nothing(read, name):
    video = read(name)
    assert np.array_equal(list(video.frames(source_fps=0)), list(video.frames()))


def test_bad_rates_and_counts(read):
    video = read("b_frames.mp4")
    for rates in ({"source_fps": -1}, {"source_fps": float("nan")}, {"source_fps": 0, "fps": 0}):
        with pytest.raises(ValueError, match="must be a number above 0"):
            video.count(**rates)
    with pytest.raises(InputError, match=r"b_frames.mp4: has 36 frames, not 37; give a longer video"):
        video.tail(37)
    with pytest.raises(InputError, match="has 36 frames, not 0"):
        video.tail(0)
