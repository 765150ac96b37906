"""What is known of a video file before it is decoded, and files that are refused."""

import re
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.media.videos import PICTURE, TONE, X264
from videogen.errors import InputError, brief
from videogen.media.download import Fetcher
from videogen.media.video_reader import read_video


def decoded(path):
    """What PyAV decodes, not turned."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def complaint_about(path, folder):
    with pytest.raises(InputError) as caught:
        read_video("--input_video", str(path), Fetcher(folder=folder))
    assert str(caught.value).startswith(f"--input_video {brief(path)}")
    return str(caught.value)


def test_what_is_known_of_a_file(read):
    video = read("b_frames.mov")
    assert (video.num_frames, video.width, video.height, video.fps, video.seconds) == (36, 96, 64, 24, 1.5)
    assert video.name == "b_frames.mov"
    assert video.has_audio
    assert len(video.sha256) == 64
    assert video.load() is video
    assert not read("b_frames.mp4").has_audio
    uneven = read("uneven.mkv")
    assert uneven.num_frames == 18
    assert uneven.fps == pytest.approx(18 / 1.5, rel=0.1)
    turned = read("turned.mp4")
    assert (turned.width, turned.height) == (64, 96)


def test_frames_hidden_in_vp8_are_not_counted(make, read, folder):
    words = (*PICTURE, "-t", "1.5", "-c:v", "libvpx", "-b:v", "100k", "-cpu-used", "5", "-auto-alt-ref", "1")
    passes = (*words, "-lag-in-frames", "16", "-passlogfile", str(folder / "log"), "-pass")
    make("first_pass.webm", *passes, "1")
    video = read("hidden.webm", *passes, "2")
    with av.open(str(video.path)) as container:
        assert sum(1 for packet in container.demux(video=0) if packet.size) > 36
    assert video.num_frames == len(list(video.frames())) == 36
    assert np.array_equal(video.tail(9), decoded(video.path)[-9:])


def test_an_edit_list_that_leaves_out_packets(make, tmp_path):
    data = bytearray(make("b_frames.mp4").read_bytes())
    place = data.find(b"elst") + 12
    (_, start) = struct.unpack_from(">Ii", data, place)
    struct.pack_into(">Ii", data, place, 500, start + 20 * 512)  # half a second, from frame 20 on
    path = tmp_path / "edited.mp4"
    path.write_bytes(data)
    video = read_video("--input_video", str(path), Fetcher(folder=tmp_path))
    assert video.num_frames == len(list(video.frames())) == 12
    assert np.array_equal(video.tail(3), decoded(path)[-3:])


@pytest.mark.parametrize(
    "name", ["we:ird %03d.mp4", "-i.mp4", "pipe:1.mp4", "http:x?y#z.mp4", "a'b\"é$x;&.mp4"]
)
def test_names_are_data(make, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(make("b_frames.mp4").read_bytes())
    video = read_video("--input_video", name, Fetcher(folder=tmp_path))
    assert video.name == name
    assert len(list(video.frames())) == len(video.tail(36)) == 36


@pytest.mark.parametrize(
    "content",
    [
        b"no video\n" * 200,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile b_frames.mp4\n",
        b"picture",
    ],
)
def test_what_is_no_video(make, tmp_path, content):
    path = tmp_path / "file.mp4"
    path.write_bytes(content)
    (tmp_path / "b_frames.mp4").write_bytes(make("b_frames.mp4").read_bytes())
    if content == b"picture":
        Image.new("RGB", (32, 32)).save(path, "png")
    assert "is not a video, or not all of one; download or save it again" in complaint_about(path, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; download it again"),
        (bytes(5000), "begins with zeros: its download did not finish; download it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "is a Git LFS pointer, not the file itself; run 'git",
        ),
    ],
)
def test_what_stands_in_place_of_a_video(tmp_path, content, message):
    (tmp_path / "file.mp4").write_bytes(content)
    assert message in complaint_about(tmp_path / "file.mp4", tmp_path)


def test_sound_alone(make, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "cover.png")
    assert "has no video stream; give a video file" in complaint_about(make("tone.mp4", *TONE), tmp_path)
    cover = ("-i", str(tmp_path / "cover.png"), "-map", "0", "-map", "1", "-disposition:v", "attached_pic")
    song = make("song.m4a", *TONE, *cover, "-c:v", "copy")
    assert "has no video stream" in complaint_about(song, tmp_path)


@pytest.mark.parametrize(
    ("name", "share", "message"),
    [
        ("whole.mp4", 0.6, r"is truncated: \d+ of 36 frames are there; download or save it again"),
        ("whole.mp4", 0.99, r"is truncated: 35 of 36 frames are there"),
        ("b_frames.mp4", 0.9, "is not a video, or not all of one"),
        ("fragments.mp4", 0.6, r"is truncated: \d+ of at least \d+ frames are there"),
        ("b_frames.mkv", 0.6, r"is truncated: \d+ of about 36 frames are there \(0.\d+ of 1.50 s\)"),
        ("vp9.webm", 0.6, r"is truncated: \d+ of about \d+ frames are there"),
        ("mpeg4.avi", 0.6, r"is truncated: \d+ of about 36 frames are there"),
        ("b_frames.flv", 0.6, r"is truncated: \d+ of at least \d+ frames are there"),
    ],
)
def test_truncated_files(make, tmp_path, name, share, message):
    make("whole.mp4", "-i", "{b_frames.mp4}", "-c", "copy", "-movflags", "faststart")
    data = make(name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * share)])
    assert re.search(message, complaint_about(path, tmp_path))


def test_a_file_that_changed_is_noticed(make, tmp_path):
    path = tmp_path / "a.mkv"
    path.write_bytes(make("b_frames.mkv").read_bytes())
    video = read_video("--input_video", str(path), Fetcher(folder=tmp_path))
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError, match="frames can be decoded, 36 should be there"):
        list(video.frames())
    with pytest.raises(InputError, match="frames can be decoded, 36 should be there"):
        video.tail(5)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        video.tail(5)


def test_metadata_in_any_encoding(make, tmp_path):
    data = make("named.mp4", *PICTURE, *X264, "-metadata", "comment=XYZXYZ").read_bytes()
    path = tmp_path / "a.mp4"
    path.write_bytes(data.replace(b"XYZXYZ", b"\xff\xfe\xe9XYZ"))
    assert read_video("--input_video", str(path), Fetcher(folder=tmp_path)).num_frames == 36
