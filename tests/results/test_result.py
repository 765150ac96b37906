"""A finished video as an object: read, saved in other formats, and shown."""

import numpy as np
import pytest
from PIL import Image

import videogen
from videogen.errors import InputError

SHORT = {"model": "tiny", "num_inference_steps": 2, "num_frames": 5, "device": "cpu"}


def test_a_result_is_saved_in_other_formats_with_its_record(tmp_path):
    made = videogen.generate("text_to_video", "a swan", **SHORT, seed=7, output=tmp_path / "a.npy")
    for name in ("b.mkv", "c.mp4", "pictures", "d.gif"):
        codec = "ffv1" if name.endswith("mkv") else None
        saved = made.save(tmp_path / name, codec=codec)
        assert saved.path == tmp_path / name
        assert videogen.Result.of(saved.path).metadata["plan_hash"] == made.metadata["plan_hash"]
        assert saved.frames.shape == made.frames.shape
        if name in ("b.mkv", "pictures"):
            np.testing.assert_array_equal(saved.frames, made.frames)
    assert saved._repr_html_().startswith('<img src="data:image/gif;base64,')
    with pytest.raises(InputError, match=r"path= .*a\.avi: must be .* or a folder; try .*a\.mp4"):
        made.save(tmp_path / "a.avi")
    with pytest.raises(InputError, match=r"codec= vp9: \.mp4 holds h264"):
        made.save(tmp_path / "a.mp4", codec="vp9")
    with pytest.raises(InputError, match="is no result of videogen"):
        videogen.Result.of(tmp_path / "nothing.mp4")


def test_saving_replaces_nothing_but_results_and_those_only_if_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # messages shorten long paths
    made = videogen.generate("text_to_video", "a swan", **SHORT, seed=7, output=tmp_path / "a.npy")
    album = tmp_path / "album"
    album.mkdir()
    (album / "000001.png").write_bytes(b"mine")
    (tmp_path / "config.json").write_text("{}")
    foreign = "is no earlier result of videogen; choose another name"
    for name, message in (
        ("album", f"album: {foreign}"),
        ("config.mp4", f"config.json: {foreign}"),
        ("a.gif", "a.json: is the record of a.npy; choose another name"),
    ):
        for overwrite in (False, True):
            with pytest.raises(InputError, match=message):
                made.save(name, overwrite=overwrite)
    assert (album / "000001.png").read_bytes() == b"mine"
    assert (tmp_path / "config.json").read_text() == "{}"
    assert not (tmp_path / "a.gif").exists()
    saved = made.save(tmp_path / "b.mkv", codec="ffv1")
    assert saved.metadata["encoded_from"] == "a.npy"
    with pytest.raises(InputError, match=r"b\.mkv: exists already; give overwrite=True"):
        made.save(tmp_path / "b.mkv")
    again = made.save(tmp_path / "b.mkv", overwrite=True, codec="ffv1")
    np.testing.assert_array_equal(again.frames, made.frames)


def test_sound_is_kept_when_a_result_is_saved(tmp_path, speech):
    made = videogen.generate(
        "talking_avatar",
        "he speaks",
        model="tiny",
        num_inference_steps=1,
        device="cpu",
        input_image=Image.new("RGB", (64, 64), "red"),
        input_audio=speech,
        output=tmp_path / "a.mp4",
    )
    samples, rate = made.audio
    assert samples.dtype == np.float32
    assert samples.shape[1] / rate == pytest.approx(len(made.frames) / made.fps, abs=0.1)
    again = made.save(tmp_path / "b.mov")
    assert again.audio[0].shape[1] / again.audio[1] == pytest.approx(samples.shape[1] / rate, abs=0.1)
