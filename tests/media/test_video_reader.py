"""Input videos: every frame, or the last few, whatever the container, codec, rotation and rate."""

import subprocess
import sys
from dataclasses import replace

import av
import imageio_ffmpeg
import numpy as np
import pytest

from tests.media.videos import FILES, PICTURE, X264
from videogen.media.frames import frames_at
from videogen.media.shown import scaled
from videogen.media.video_reader import fill_from_keyframe, read_with_decord

# Those that are scaled in the fast tests; the others are in the slow ones.
SCALED = (
    "b_frames.mp4",
    "uneven.mkv",
    "10bit.mp4",
    "vp9_odd.webm",
    "rgb.mkv",
    "turned.mp4",
    "cut.mp4",
    "still.gif",
)


SAME_WITH_DECORD = {
    *("b_frames.mp4", "b_frames.mkv", "b_frames.mov", "fragments.mp4", "444.mp4", "vp9.webm", "422.mp4"),
    *("bt709.mp4", "bt601.mp4", "full_range.mp4", "bt709_full_range.mp4", "bt709_422.mp4", "vp9_444.webm"),
}


FROM_THE_START = {"refresh.mp4", "b_frames.avi", "mpeg4_b.avi", "b_frames.h264", "cut_open_gop.mkv"}


def decoded(path):
    """What PyAV decodes, not turned."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("name", FILES)
def test_frames_and_tail(read, name):
    video = read(name)
    frames = np.stack(list(video.frames()))
    if name != "interlaced.mp4":  # test_shown.py
        expected = decoded(video.path)
        assert np.array_equal(frames, np.rot90(expected, axes=(1, 2)) if name == "turned.mp4" else expected)
    assert video.num_frames == video.count() == len(frames)
    assert frames.shape[1:] == (video.height, video.width, 3)
    for source_fps in (None, 0, 29.97):
        every = list(video.frames(source_fps=source_fps))
        assert len(every) == video.count(source_fps=source_fps)
        for count in {1, 11, 14, len(every)}:
            if count <= len(every):
                tail = video.tail(count, source_fps=source_fps)
                assert tail.dtype == np.uint8
                assert np.array_equal(tail, np.stack(every[-count:])), (source_fps, count)


@pytest.mark.parametrize("name", sorted(set(FILES) - {"still.gif"}))
def test_the_tail_is_decoded_from_a_keyframe(read, name):
    video = read(name)
    images = np.empty((5, video.height, video.width, 3), np.uint8)
    last = range(video.num_frames - 5, video.num_frames)
    assert fill_from_keyframe(video, images, last) == (name not in FROM_THE_START)


@pytest.mark.parametrize("name", sorted(SAME_WITH_DECORD))
def test_decord_gives_the_same_frames(read, name):
    pytest.importorskip("decord")
    video = read(name)
    expected = decoded(video.path)
    for indices in (range(36), [0, 1, 1, 20, 35], [17]):
        assert np.array_equal(read_with_decord(video, indices), expected[indices]), name


@pytest.mark.parametrize("prefer_decord", [False, True])
@pytest.mark.parametrize("name", ["b_frames.mp4", "vp9.webm", "narrow.mp4"])
def test_single_frames(read, name, prefer_decord):
    video = read(name)
    indices = [0, 1, 1, 20, 35]
    frames = list(frames_at(video, indices, prefer_decord=prefer_decord))
    assert np.array_equal(frames, decoded(video.path)[indices])


def test_files_that_decord_cannot_read_are_left_to_pyav(read, monkeypatch):
    narrow = read("narrow.mp4")
    assert read_with_decord(narrow, [35]) is None  # decord returns 4 channels
    gone = replace(narrow, path=narrow.path.with_name("gone.mp4"))
    assert read_with_decord(gone, [35]) is None
    monkeypatch.setitem(sys.modules, "decord", None)  # not installed
    assert read_with_decord(read("b_frames.mp4"), [35]) is None


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SCALED else pytest.mark.slow) for name in FILES]
)
def test_scaled_frames_and_tail(read, name):
    video = read(name)
    own = (video.width, video.height)
    for size in ((80, 48), (49, 101), (own[0], 96), (96, own[1])):
        frames = np.stack(list(video.frames(size=size)))
        assert frames.shape == (video.num_frames, size[1], size[0], 3)
        assert frames.dtype == np.uint8
        for source_fps in (None, 29.97):
            every = list(video.frames(source_fps=source_fps, size=size))
            count = min(11, len(every))
            assert np.array_equal(video.tail(count, source_fps=source_fps, size=size), every[-count:])
    frames = np.stack(list(video.frames()))
    assert np.array_equal(list(video.frames(size=own)), frames)
    # Twice as large, and each four pixels averaged: nearly the picture itself, in its place and colours.
    larger = next(video.frames(size=(2 * own[0], 2 * own[1]))).astype(int)
    halved = larger.reshape(own[1], 2, own[0], 2, 3).mean((1, 3))
    assert np.abs(halved - frames[0]).mean() < 15


def test_a_size_that_changes_is_scaled_to_the_first(read, make, folder):
    make("large.ts", *PICTURE, *X264)
    make("small.ts", *PICTURE, *X264, "-s", "64x48")
    (folder / "list.txt").write_text("file large.ts\nfile small.ts\n")
    video = read("sizes.mkv", "-f", "concat", "-i", str(folder / "list.txt"), "-c", "copy")
    frames = np.stack(list(video.frames()))
    assert frames.shape == (72, 64, 96, 3)
    assert np.array_equal(video.tail(40), frames[-40:])
    small = np.stack(list(video.frames(size=(80, 32))))
    assert small.shape == (72, 32, 80, 3)
    assert np.array_equal(video.tail(40, size=(80, 32)), small[-40:])


@pytest.mark.parametrize("flip", [(), ("-display_hflip",), ("-display_vflip",)])
@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_upright_as_ffmpeg_shows_it(read, folder, angle, flip):
    name = f"{angle}{''.join(flip)}.mp4"
    turn = ("-display_rotation", str(angle), *flip, "-i", "{b_frames.mp4}", "-c", "copy")
    video = read(name, *turn)
    command = (imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(video.path))
    words = ("-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    raw = subprocess.run([*command, *words], check=True, capture_output=True).stdout
    shown = np.frombuffer(raw, np.uint8).reshape(video.height, video.width, 3)
    image = next(video.frames())
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - shown).mean() < 1
    size = (80, 48) if angle % 180 else (48, 80)
    assert np.array_equal(next(video.frames(size=size)), scaled(image, size))
