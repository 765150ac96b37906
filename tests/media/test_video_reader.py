"""Input videos: every frame, or the last few, whatever the container, codec, rotation and rate."""

import os
import re
import struct
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from videogen.errors import InputError
from videogen.media.download import Fetcher
from videogen.media.frames import frames_at
from videogen.media.shown import scaled
from videogen.media.video_reader import Tail, fill_from_keyframe, read_video, read_with_decord

PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=24:duration=1.5")
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "12")
X265 = ("-c:v", "libx265", "-g", "12", "-x265-params", "log-level=error")
MPEG4 = ("-c:v", "mpeg4", "-q:v", "3", "-g", "12")
VP9 = ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-deadline", "realtime", "-g", "12")
TONE = ("-f", "lavfi", "-i", "sine=duration=1.5")
UNEVEN = ("-vf", "select='lt(n,9)+not(mod(n,3))'", "-fps_mode", "vfr")
BT709 = ("-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709")

# What ffmpeg makes each file with; {name} is another file.
FILES: dict[str, tuple[str, ...]] = {
    "b_frames.mp4": (*PICTURE, *X264, "-bf", "3"),
    "b_frames.mkv": ("-i", "{b_frames.mp4}", "-c", "copy"),
    "b_frames.mov": ("-i", "{b_frames.mp4}", *TONE, "-c:v", "copy"),
    "b_frames.avi": ("-i", "{b_frames.mp4}", "-c", "copy"),
    "b_frames.ts": ("-i", "{b_frames.mp4}", "-c", "copy"),
    "b_frames.h264": ("-i", "{b_frames.mp4}", "-c", "copy"),
    "b_frames.flv": ("-i", "{b_frames.mp4}", "-c", "copy"),
    "fragments.mp4": ("-i", "{b_frames.mp4}", "-c", "copy", "-movflags", "frag_keyframe+empty_moov"),
    "open_gop.mp4": (*PICTURE, *X264, "-bf", "3", "-x264-params", "open-gop=1:keyint=12:scenecut=0"),
    "open_gop.mkv": ("-i", "{open_gop.mp4}", "-c", "copy"),
    "refresh.mp4": (*PICTURE, *X264, "-x264-params", "intra-refresh=1:keyint=12:bframes=0"),
    "hevc.mp4": (*PICTURE, *X265),
    "hevc_10bit.mkv": (*PICTURE, *X265, "-pix_fmt", "yuv420p10le"),
    "10bit.mp4": (*PICTURE, *X264, "-pix_fmt", "yuv420p10le"),
    "uneven.mp4": (*PICTURE, *X264, *UNEVEN),
    "uneven.mkv": ("-i", "{uneven.mp4}", "-c", "copy"),
    "mpeg4.avi": (*PICTURE, *MPEG4),
    "mpeg4_b.avi": (*PICTURE, *MPEG4, "-bf", "2"),
    "mpeg4_odd.avi": (*PICTURE, *MPEG4, "-vf", "scale=97:65"),
    "vp9.webm": (*PICTURE, *TONE, *VP9, "-c:a", "libopus"),
    "vp9_odd.webm": (*PICTURE, *VP9, "-vf", "scale=97:65"),
    "rgb.mkv": (*PICTURE, "-c:v", "libx264rgb", "-g", "12"),
    "422.mp4": (*PICTURE, *X264, "-pix_fmt", "yuv422p"),
    "bt709.mp4": (*PICTURE, *X264, *BT709),
    "bt709_422.mp4": (*PICTURE, *X264, "-pix_fmt", "yuv422p", *BT709),
    "bt709_full_range.mp4": (*PICTURE, *X264, "-pix_fmt", "yuvj420p", *BT709),
    "bt601.mp4": (*PICTURE, *X264, "-vf", "scale=out_color_matrix=bt601", "-colorspace", "smpte170m"),
    "444.mp4": (*PICTURE, *X264, "-pix_fmt", "yuv444p"),
    "vp9_444.webm": (*PICTURE, *VP9, "-pix_fmt", "yuv444p"),
    "full_range.mp4": (*PICTURE, *X264, "-pix_fmt", "yuvj420p"),
    "narrow.mp4": (*PICTURE, *X264, "-vf", "scale=48:32"),
    "interlaced.mp4": (*PICTURE, *X264, "-flags", "+ilme+ildct"),
    "turned.mp4": ("-display_rotation", "90", "-i", "{b_frames.mp4}", "-c", "copy"),
    # From the keyframe before 0.8 s on: first frames are hidden by an edit list, or cannot be decoded.
    "cut.mp4": ("-ss", "0.8", "-i", "{b_frames.mp4}", "-c", "copy"),
    "cut_open_gop.mp4": ("-ss", "0.8", "-i", "{open_gop.mp4}", "-c", "copy"),
    "cut_open_gop.mkv": ("-ss", "0.8", "-i", "{hevc.mp4}", "-c", "copy"),
    "still.gif": (*PICTURE, "-frames:v", "1"),
}
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
"""Files that are scaled in the fast tests; the others are in the slow ones."""
SAME_WITH_DECORD = {
    *("b_frames.mp4", "b_frames.mkv", "b_frames.mov", "fragments.mp4", "444.mp4", "vp9.webm", "422.mp4"),
    *("bt709.mp4", "bt601.mp4", "full_range.mp4", "bt709_full_range.mp4", "bt709_422.mp4", "vp9_444.webm"),
}
FROM_THE_START = {"refresh.mp4", "b_frames.avi", "mpeg4_b.avi", "b_frames.h264", "cut_open_gop.mkv"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def make(folder):
    """Path of one of FILES, or of whatever ffmpeg makes of the words given."""

    def run(name, *words):
        path = folder / name
        if not path.exists():
            ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
            words = [str(run(w[1:-1])) if w.startswith("{") else w for w in words or FILES[name]]
            subprocess.run([ffmpeg, "-y", "-loglevel", "error", *words, str(path)], check=True)
        return path

    return run


@pytest.fixture
def read(make, tmp_path):
    return lambda name, *words: read_video("--input_video", str(make(name, *words)), Fetcher(folder=tmp_path))


def decoded(path):
    """What PyAV decodes, not turned."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def complaint_about(path, folder):
    with pytest.raises(InputError) as caught:
        read_video("--input_video", str(path), Fetcher(folder=folder))
    assert str(caught.value).startswith(f"--input_video {path}"[:90])
    return str(caught.value)


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
    tail = Tail(video, range(video.num_frames - 5, video.num_frames))
    assert fill_from_keyframe(video, tail) == (name not in FROM_THE_START)


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


def test_nothing_heavy_is_imported_at_start_up():
    heavy = "{'av', 'decord', 'numpy', 'torch'}"
    code = f"import sys, videogen.media.video_reader; sys.exit(bool({heavy} & {{*sys.modules}}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
