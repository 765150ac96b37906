"""What a bundle holds of its inputs."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from videogen.errors import InputError
from videogen.media.download import Fetcher
from videogen.media.video_reader import read_video
from videogen.results import bundle

FRAMES = np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3), np.uint8)


def stored(folder, kind):
    """Write frames as a result is written that is no video file, with its record beside it."""
    path = folder / f"in{kind}"
    if kind == ".npy":
        np.save(path, FRAMES)
    else:
        path.mkdir()
        for number, frame in enumerate(FRAMES):
            Image.fromarray(frame).save(path / f"{number:06}.png")
        (path / "notes.txt").write_text("mine")
    (folder / "in.json").write_text('{"fps": 12, "prompt": "mine"}')
    return path


@pytest.mark.parametrize("kind", ["", ".npy"])
def test_frames_as_an_input_keep_their_rate(tmp_path, kind):
    """Neither a folder of frames nor a .npy holds it."""
    fetcher, there = Fetcher(folder=tmp_path), tmp_path / "there"
    there.mkdir()
    video = read_video("--input_video", str(stored(tmp_path, kind)), fetcher)
    inputs = {"input_video": [bundle.PackedInput(video.sha256, video.path, video.fps)]}
    packed = bundle.Packed(results=[], request={"prompt": "x"}, inputs=inputs)
    bundle.write(tmp_path / "b.zip", [packed, packed])
    with zipfile.ZipFile(tmp_path / "b.zip") as opened:
        assert b"mine" not in b"".join(map(opened.read, opened.namelist()))
    one, other = bundle.read("--from_metadata", tmp_path / "b.zip", there, ["input_video"])
    assert one == other
    again = read_video("--input_video", one["input_video"][0], fetcher)
    assert (again.sha256, again.fps, again.notes) == (video.sha256, 12, ())
    np.testing.assert_array_equal(list(again.frames()), FRAMES)


@pytest.mark.parametrize("entry", ["inputs/a/x.png", "inputs/a/b/000000.png"])
def test_a_folder_of_anything_but_frames_is_no_input(tmp_path, entry):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as opened:
        opened.writestr("jobs.jsonl", '{"input_video": ["inputs/a"]}')
        opened.writestr(entry, b"")
    with pytest.raises(InputError, match="names 'inputs/a', which is no input in it"):
        bundle.read("--from_metadata", tmp_path / "b.zip", tmp_path, ["input_video"])
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]
