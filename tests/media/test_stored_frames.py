"""Frames without loss, taken for a video: .npy files and folders of PNGs."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from videogen.errors import InputError
from videogen.media.download import Fetcher
from videogen.media.frames import as_video, frames_at
from videogen.media.shown import scaled
from videogen.media.stored_frames import content_digest
from videogen.media.video_reader import read_video

FRAMES = np.random.default_rng(0).integers(0, 256, (9, 32, 48, 3), np.uint8)


@pytest.fixture(params=["npy", "png"])
def stored(request, tmp_path):
    path = tmp_path / ("a.npy" if request.param == "npy" else "a")
    if request.param == "npy":
        np.save(path, FRAMES)
    else:
        path.mkdir()
        for number, frame in enumerate(FRAMES):
            Image.fromarray(frame).save(path / f"{number:06d}.png")
    return path


def read(path):
    return read_video("--input_video", str(path), Fetcher(folder=path.parent))


def test_frames_are_those_stored(stored):
    video = read(stored)
    assert (video.width, video.height, video.num_frames, video.fps) == (48, 32, 9, 24)
    assert not video.has_audio
    assert np.array_equal(list(video.frames()), FRAMES)
    assert np.array_equal(video.tail(4), FRAMES[-4:])
    assert np.array_equal(list(frames_at(video, [0, 3, 3, 8])), FRAMES[[0, 3, 3, 8]])
    assert np.array_equal(video.tail(2, size=(64, 64)), [scaled(frame, (64, 64)) for frame in FRAMES[-2:]])
    assert video.load() is video
    assert as_video("video", stored).num_frames == 9
    assert video.sha256 == content_digest(stored)


def test_the_rate_is_in_the_record(stored):
    assert "has no record beside it that says its frame rate; taken as 24" in read(stored).notes[0]
    (stored.parent / "a.json").write_text(json.dumps({"schema": 1, "fps": 12}))
    video = read(stored)
    assert (video.fps, video.seconds, video.notes) == (12, 0.75, ())
    assert video.count(source_fps=0, fps=24) == 18
    assert np.array_equal(list(video.frames(source_fps=0, fps=24))[::2], FRAMES)
    assert np.array_equal(list(video.frames(source_fps=48, fps=24)), FRAMES[::2])
    for text in ("no record", "[]", '{"fps": "x"}', '{"fps": 0}', "{}"):
        (stored.parent / "a.json").write_text(text)
        assert read(stored).fps == 24


def test_what_changed_is_noticed(stored):
    video = read(stored)
    if stored.is_dir():
        (stored / "000008.png").unlink()
    else:
        np.save(stored, FRAMES[:8])
    assert content_digest(stored) != video.sha256
    with pytest.raises(InputError, match="has no frame 8 any more"):
        video.tail(1)
    with pytest.raises(InputError, match="has 9 frames, not 10; give a longer video"):
        video.tail(10)


@pytest.mark.parametrize(
    "array", [FRAMES[0], FRAMES.astype(np.float32), FRAMES[..., :2], FRAMES[:0], np.array([{}], dtype=object)]
)
def test_arrays_that_are_no_frames(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=r"give a .npy of uint8 frames \[F, H, W, 3\]"):
        read(tmp_path / "a.npy")


def test_half_an_array(tmp_path):
    np.save(tmp_path / "a.npy", FRAMES)
    content = (tmp_path / "a.npy").read_bytes()
    for part in (content[:-1], content[:100], content[:9]):
        (tmp_path / "a.npy").write_bytes(part)
        with pytest.raises(InputError, match=r"is no \.npy, or not all of one"):
            read(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder) or folder.mkdir(), "is a folder without frames"),
        (lambda folder: (folder / "000004.png").unlink(), "lacks frame 000004.png"),
        (lambda folder: (folder / "000004.png").write_bytes(b"x"), "000004.png is no whole PNG"),
        (
            lambda folder: Image.new("RGB", (9, 9)).save(folder / "000004.png"),
            "000000.png is 48x32 and 000004.png 9x9; give frames of one size",
        ),
    ],
)
def test_folders_that_are_no_video(tmp_path, change, message):
    folder = tmp_path / "a"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(FRAMES[number]).save(folder / f"{number:06d}.png")
    change(folder)
    with pytest.raises(InputError, match=message):
        read(folder)


def test_other_files_in_the_folder_are_counted(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(FRAMES[0]).save(tmp_path / "a/000000.png")
    (tmp_path / "a/notes.txt").write_text("")
    assert "a has 1 files that are no frames, which are not used" in read(tmp_path / "a").notes
