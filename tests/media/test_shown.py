"""How videos are shown: HDR, wide gamuts, fields, pixel shapes, transparency."""

import re
import subprocess

import av
import imageio_ffmpeg
import numpy as np
import pytest

from tests.colours import COLOURS, TO_BT2020, TO_DISPLAY_P3, bt709, from_bt709, from_srgb, hlg, pq
from videogen.media.download import Fetcher
from videogen.media.shown import scaled
from videogen.media.video_reader import fill_from_keyframe, read_video, read_with_decord


@pytest.fixture
def ffmpeg(tmp_path):
    def run(name, *words, data=None):
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *words, str(tmp_path / name)]
        subprocess.run(command, check=True, input=data, stdin=subprocess.DEVNULL if data is None else None)
        return read_video("--input_video", str(tmp_path / name), Fetcher(folder=tmp_path))

    return run


@pytest.fixture
def coded(ffmpeg):
    """A video of stripes of colours, given as signals 0..1, with tags."""

    def run(signals, transfer, primaries="bt2020", matrix="bt2020nc", name="a.mov", codec="libx265"):
        stripes = np.rint(np.clip(signals, 0, 1) * 65535).astype("<u2").repeat(16, 0)[None].repeat(64, 0)
        size = f"{stripes.shape[1]}x64"
        source = ("-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", size, "-r", "24", "-i", "-")
        tags = f"color_primaries={primaries}:color_trc={transfer}:colorspace={matrix}:range=tv"
        scale = f"scale=out_color_matrix={matrix.removesuffix('nc')}:out_range=tv"
        filters = f"{scale},format=yuv420p10le,setparams={tags}"
        quiet = ("-x265-params", "log-level=error") if codec == "libx265" else ()
        said = ("-color_primaries", primaries, "-color_trc", transfer, "-colorspace", matrix)
        words = (*source, "-vf", filters, "-c:v", codec, "-crf", "4", *quiet, *said)
        return ffmpeg(name, *words, data=stripes.tobytes() * 5)

    return run


def shown(video):
    """The colours in the middle of the stripes."""
    return next(video.frames())[32, 8::16].astype(int)


@pytest.mark.parametrize(
    ("transfer", "curve", "name"), [("arib-std-b67", hlg, "HLG"), ("smpte2084", pq, "PQ")]
)
@pytest.mark.parametrize(
    ("file", "codec"), [("a.mov", "libx265"), ("a.mkv", "libx265"), ("a.mp4", "libx264")]
)
def test_hdr_is_tone_mapped(coded, transfer, curve, name, file, codec):
    video = coded(curve(from_srgb(COLOURS) @ TO_BT2020.T), transfer, name=file, codec=codec)
    assert video.notes == (f"{file} is HDR ({name}, BT.2020) and is tone-mapped to SDR",)
    assert np.abs(shown(video) - COLOURS).max() <= 4
    frames = np.stack(list(video.frames()))
    assert np.array_equal(video.tail(2), frames[-2:])
    assert read_with_decord(video, [0]) is None


def test_hdr_that_says_only_that(ffmpeg, coded):
    """Without primaries and matrix, BT.2020 is meant."""
    whole = coded(pq(from_srgb(COLOURS) @ TO_BT2020.T), "smpte2084")
    bare = "hevc_metadata=colour_primaries=2:matrix_coefficients=2"
    video = ffmpeg("bare.ts", "-i", str(whole.path), "-c", "copy", "-bsf:v", bare)
    assert video.notes == ("bare.ts is HDR (PQ, BT.2020) and is tone-mapped to SDR",)
    assert np.abs(shown(video) - COLOURS).max() <= 4


def test_highlights_are_compressed_not_cut(coded):
    nits = np.array([203, 300, 450, 700, 1000])[:, None].repeat(3, 1)
    levels = shown(coded(pq(nits / 203), "smpte2084"))[:, 0]
    assert (np.diff(levels) >= 0).all()
    assert 235 < levels[0] < levels[1] < levels[2] <= levels[-1] == 255
    red = shown(coded(pq(np.array([[8.0, 0.5, 0.5]]) @ TO_BT2020.T), "smpte2084"))[0]
    assert red[0] > 250
    assert red[1:].max() < 90  # it stays red


@pytest.mark.parametrize(
    ("matrix", "primaries", "name"),
    [(TO_BT2020, "bt2020", "BT.2020"), (TO_DISPLAY_P3, "smpte432", "Display P3")],
)
def test_wide_gamuts(coded, matrix, primaries, name):
    coding = "bt2020nc" if primaries == "bt2020" else "bt709"
    video = coded(bt709(from_bt709(COLOURS) @ matrix.T), "bt709", primaries, coding, "a.mp4", "libx264")
    assert video.notes == (f"a.mp4 has {name} colours, which are converted to BT.709",)
    assert np.abs(shown(video) - COLOURS).max() <= 4


def test_primaries_that_only_the_matrix_tells(ffmpeg, coded):
    whole = coded(bt709(from_bt709(COLOURS) @ TO_BT2020.T), "bt709")
    bare = "hevc_metadata=colour_primaries=2:transfer_characteristics=2"
    video = ffmpeg("bare.ts", "-i", str(whole.path), "-c", "copy", "-bsf:v", bare)
    assert video.notes == ("bare.ts has BT.2020 colours, which are converted to BT.709",)
    assert np.abs(shown(video) - COLOURS).max() <= 4


def test_plain_videos_are_left_alone(coded):
    video = coded(COLOURS / 255, "bt709", "bt709", "bt709", "a.mp4", "libx264")
    assert not video.notes
    assert np.abs(shown(video) - COLOURS).max() <= 3


PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=48:duration=1.5")
FIELDS = ("-vf", "interlace=lowpass=off,format=yuv420p", "-flags", "+ilme+ildct", "-g", "12")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.mp4", ("-c:v", "libx264", "-x264-params", "tff=1", "-bf", "2")),
        ("a.mkv", ("-c:v", "libx264", "-x264-params", "tff=1")),
        ("a.mpg", ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2", "-r", "24")),
    ],
)
def test_interlaced_videos(ffmpeg, name, words):
    video = ffmpeg(name, *PICTURE, *FIELDS, *words)
    assert video.notes == (f"{name} is interlaced and is deinterlaced",)
    frames = np.stack(list(video.frames()))
    assert len(frames) == video.num_frames == 36
    for count in (1, 5, 12, 13, 36):
        assert np.array_equal(video.tail(count), frames[-count:]), count
    assert fill_from_keyframe(video, np.empty_like(frames[25:]), range(25, 36)) == (name != "a.mpg")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(video.path)]
    words = ("-vf", "bwdif=send_frame:auto:interlaced", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    raw = subprocess.run([*command, *words], check=True, capture_output=True).stdout
    expected = np.frombuffer(raw, np.uint8).reshape(-1, 64, 96, 3)
    assert np.abs(frames[: len(expected)].astype(int) - expected[: len(frames)]).mean() < 1
    with av.open(str(video.path)) as container:
        woven = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.abs(frames.astype(int) - woven).mean() > 1


@pytest.mark.parametrize(
    ("shape", "size", "wanted"),
    [("16/15", "720x576", (768, 576)), ("8/9", "720x480", (640, 480)), ("4/3", "96x72", (128, 72))],
)
def test_pixels_that_are_not_square(ffmpeg, shape, size, wanted):
    source = ("-f", "lavfi", "-i", f"testsrc2=size={size}:rate=24:duration=0.2")
    video = ffmpeg("a.mp4", *source, "-vf", f"setsar={shape}", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    assert (video.width, video.height) == wanted
    frames = np.stack(list(video.frames()))
    assert frames.shape[1:] == (*wanted[::-1], 3)
    assert np.array_equal(video.tail(2), frames[-2:])
    with av.open(str(video.path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.array_equal(frames[0], scaled(stored, wanted))
    assert next(video.frames(size=(48, 32))).shape == (32, 48, 3)
    assert not video.notes
    turned = ffmpeg("t.mp4", "-display_rotation", "90", "-i", str(video.path), "-c", "copy")
    assert (turned.width, turned.height) == wanted[::-1]
    assert next(turned.frames()).shape == (*wanted, 3)


def test_pixels_of_an_absurd_shape(ffmpeg):
    video = ffmpeg("a.mp4", *PICTURE, "-vf", "setsar=20/1", "-c:v", "mpeg4")
    assert (video.width, video.height) == (96, 64)
    assert re.search("states pixels of the shape 20:1, which are taken as square", video.notes[0])


def test_transparent_videos_are_on_white(ffmpeg):
    colours = np.zeros((64, 96, 4), np.uint8)
    colours[..., 0], colours[:, 48:, 3] = 200, 255
    source = ("-f", "rawvideo", "-pix_fmt", "rgba", "-s", "96x64", "-r", "24", "-i", "-")
    video = ffmpeg("a.mov", *source, "-c:v", "qtrle", data=colours.tobytes() * 3)
    image = next(video.frames())
    assert (image[:, :48] == 255).all()
    assert (image[:, 48:] == (200, 0, 0)).all()
    assert video.notes == ("a.mov has transparent pixels, which are shown on white",)


def test_transparency_in_a_stream_of_its_own_is_told(ffmpeg):
    source = ("-f", "lavfi", "-i", "color=red@0:size=64x64:rate=24:duration=0.2,format=yuva420p")
    video = ffmpeg("a.webm", *source, "-c:v", "libvpx-vp9", "-auto-alt-ref", "0")
    assert video.notes == ("a.webm has transparency beside its colours, which is not used",)


def test_of_several_streams_the_first_is_used_and_that_is_said(ffmpeg):
    other = ("-f", "lavfi", "-i", "color=red:size=64x64:rate=24:duration=1")
    video = ffmpeg("a.mkv", *PICTURE, *other, "-map", "0", "-map", "1", "-c:v", "libx264")
    assert video.notes == ("a.mkv has 2 video streams; the first is used",)
    assert (video.width, video.height) == (96, 64)
