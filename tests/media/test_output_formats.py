"""Kinds of video files: codecs, colours and their tags, sound, the place of the index."""

import struct
import subprocess

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from videogen.errors import InputError
from videogen.files import OutputError
from videogen.media.download import Fetcher
from videogen.media.output_formats import CODECS, CONTAINERS, Encoding, container_of, has_sound
from videogen.media.probe import read_comment
from videogen.media.video_reader import read_video
from videogen.media.video_writer import Audio, open_writer

COLOURS = np.array([(220, 30, 30), (30, 200, 30), (196, 140, 110), (20, 40, 210)], np.uint8)
ALL = [(kind, codec) for kind, container in CONTAINERS.items() for codec in container.codecs]
NOISE = np.random.default_rng(0).integers(0, 256, (5, 64, 96, 3), np.uint8)


def stripes(width=96, height=64, count=5):
    return COLOURS.repeat(width // 4, 0)[None, None].repeat(height, 1).repeat(count, 0)


def write(path, kind, frames=None, **options):
    frames = stripes() if frames is None else frames
    size = frames.shape[2:0:-1]
    with open_writer(
        path, kind, size=size, fps=24, num_frames=len(frames), comment='{"a": 1}', **options
    ) as file:
        file.write(frames)
        file.finish()
        file.publish()
    return read_video("--input_video", str(path), Fetcher(folder=path.parent))


def first_frame(path):
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


def shown_by_a_player(path, height):
    """Colours by the tags; without, BT.709 from 720 lines on and BT.601 below."""
    frame = first_frame(path)
    yuv = [np.frombuffer(bytes(p), np.uint8).reshape(p.height, -1)[:, : p.width] for p in frame.planes]
    tagged = int(frame.colorspace) == 1
    red, blue = (
        (0.2126, 0.0722) if tagged or (int(frame.colorspace) == 2 and height >= 720) else (0.299, 0.114)
    )
    shown = []
    for index in range(4):
        y, u, v = (float(p[p.shape[0] // 2, (2 * index + 1) * p.shape[1] // 8]) for p in yuv)
        y, u, v = (y - 16) * 255 / 219, (u - 128) * 255 / 224, (v - 128) * 255 / 224
        r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
        shown.append((r, (y - red * r - blue * b) / (1 - red - blue), b))
    return np.array(shown)


@pytest.mark.parametrize(("kind", "codec"), ALL)
def test_every_kind_holds_its_codec_and_its_colours(tmp_path, kind, codec):
    video = write(tmp_path / f"a.{kind}", kind, encoding=Encoding(codec=codec))
    with av.open(str(video.path)) as container:
        stream = container.streams.video[0]
        names = {"h264": "h264", "prores": "prores", "vp9": "vp9", "ffv1": "ffv1"}
        assert stream.codec_context.name.removeprefix("lib").startswith(names[codec])
        if codec == "prores":
            assert stream.codec_context.profile == "HQ"
    assert (video.num_frames, video.fps, video.notes) == (5, 24, ())
    assert all(np.abs(frame[32, 12::24].astype(int) - COLOURS).max() <= 4 for frame in video.frames())
    assert read_comment(video.path) == '{"a": 1}'
    if codec != "ffv1":
        frame = first_frame(video.path)
        tags = (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
        assert tuple(map(int, tags)) == (1, 1, 1, 1)


@pytest.mark.parametrize("size", [(96, 64), (1280, 720), (640, 368)])
@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_players_show_the_colours_at_every_size(tmp_path, size, kind):
    video = write(tmp_path / f"a.{kind}", kind, stripes(*size, count=2))
    assert np.abs(shown_by_a_player(video.path, size[1]) - COLOURS).max() <= 4


def test_published_colours_are_bt601_without_a_tag(tmp_path):
    video = write(tmp_path / "a.mp4", "mp4", encoding=Encoding(published=True))
    frame = first_frame(video.path)
    assert (int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc)) == (2, 2, 2)
    assert np.abs(shown_by_a_player(video.path, 64) - COLOURS).max() <= 4
    assert np.abs(next(video.frames())[32, 12::24].astype(int) - COLOURS).max() <= 4


def boxes(content):
    place = 0
    while place < len(content):
        size, name = struct.unpack_from(">I4s", content, place)
        yield name, content[place : place + size]
        place += size


@pytest.mark.parametrize("kind", ["mp4", "mov"])
def test_the_index_comes_first_and_holds_the_colours(tmp_path, kind):
    write(tmp_path / f"a.{kind}", kind)
    found = dict(boxes((tmp_path / f"a.{kind}").read_bytes()))
    names = list(found)
    assert names.index(b"moov") < names.index(b"mdat")
    colr = found[b"moov"].index(b"colr")
    kind_of_colour = found[b"moov"][colr + 4 : colr + 8]
    assert kind_of_colour in (b"nclx", b"nclc")
    assert struct.unpack_from(">HHH", found[b"moov"], colr + 8) == (1, 1, 1)


def test_ffv1_is_lossless(tmp_path):
    video = write(tmp_path / "a.mkv", "mkv", NOISE, encoding=Encoding(codec="ffv1"))
    assert np.array_equal(list(video.frames()), NOISE)


@pytest.mark.parametrize(("kind", "codec"), [("mp4", "h264"), ("webm", "vp9")])
def test_crf_is_quality(tmp_path, kind, codec):
    sizes = []
    for crf in (0, None, 40):
        encoding = Encoding(crf=crf)
        sizes.append(write(tmp_path / f"{crf}.{kind}", kind, NOISE, encoding=encoding).path.stat().st_size)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[2]
    usual = Encoding(crf=CODECS[codec].crf)
    path = write(tmp_path / f"usual.{kind}", kind, NOISE, encoding=usual).path
    assert abs(path.stat().st_size - sizes[1]) < 200


@pytest.mark.parametrize(("kind", "codec"), ALL)
@pytest.mark.parametrize("layout", ["mono", "5.1(side)"])
def test_sound_where_there_is_sound(tmp_path, kind, codec, layout):
    source = ("-f", "lavfi", "-i", "sine=duration=1:sample_rate=16000")
    words = (*source, "-af", f"aformat=channel_layouts={layout}", "-c:a", "flac", str(tmp_path / "sound.mkv"))
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *words], check=True)
    frames = stripes(count=12)
    sound = Audio(tmp_path / "sound.mkv", 0.25, 0.5)
    video = write(tmp_path / f"a.{kind}", kind, frames, audio=sound, encoding=Encoding(codec=codec))
    assert video.has_audio
    with av.open(str(video.path)) as container:
        samples = np.concatenate([f.to_ndarray().reshape(-1) for f in container.decode(audio=0)])
        assert samples.std() > 0.01
        assert container.streams.audio[0].codec_context.name.startswith(
            CONTAINERS[kind].audio.removeprefix("lib")
        )


def test_one_frame_is_one_png(tmp_path):
    with open_writer(tmp_path / "a.png", "still", size=(96, 64), fps=24, num_frames=1) as file:
        file.write(NOISE[:1])
        file.finish()
        assert not (tmp_path / "a.png").exists()
        file.publish()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), NOISE[0])
    with (
        pytest.raises(OutputError, match="2 frames instead of 1"),
        open_writer(tmp_path / "b.png", "still", size=(96, 64), fps=24, num_frames=1) as file,
    ):
        file.write(NOISE[:2])
        file.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_names_and_kinds():
    assert [container_of(codec) for codec in (None, *CODECS)] == ["mp4", "mp4", "mov", "webm", "mkv"]
    assert has_sound("a.MOV")
    assert not has_sound("a.npy")


def test_a_film_that_cannot_be_read_has_no_comment(tmp_path):
    (tmp_path / "a.mkv").write_bytes(b"x")
    with pytest.raises(InputError):
        read_comment(tmp_path / "a.mkv")
