"""Pictures and videos as people have them, and the kinds of files that results are written to."""

import json
import subprocess

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from videogen.errors import brief
from videogen.media.output_formats import CONTAINERS

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 8), np.uint8).repeat(8, 0).repeat(8, 1)
COLOURS = RNG.integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
SHORT = (
    "--prompt",
    "a cat",
    "--seed",
    "1",
    "--num_inference_steps",
    "1",
    "--device",
    "cpu",
    "--dtype",
    "float32",
)
SIZE = ("--height", "32", "--width", "48")
TEXT = ("--task_type", "text_to_video", "--model_id", "tiny", *SHORT, *SIZE)
PICTURES = {
    "image_to_video": ("--input_image", "--num_frames", "5"),
    "reference_to_video": ("--ref_imgs", "--num_frames", "5"),
    "diffusion_forcing": ("--input_image", "--num_frames", "5"),
    "hunyuan_image_to_video": ("--input_image", "--num_frames", "5"),
}


def words(task, flag, *more):
    return ["--task_type", task, "--model_id", "tiny", *SHORT, *SIZE, flag, *more]


def frames_of(cli, path, *arguments):
    finished = cli(*arguments, "--output", path, "--overwrite")
    assert finished.code == 0, finished.err
    return np.load(path), finished


@pytest.mark.parametrize("task", PICTURES)
def test_pictures_are_what_they_show(cli, tmp_path, task):
    flag, *length = PICTURES[task]
    alpha = np.kron(RNG.integers(0, 2, (6, 8), np.uint8), np.ones((8, 8), np.uint8)) * 255
    cut_out, on_white = np.dstack([COLOURS * (alpha[..., None] > 0), alpha]), COLOURS.copy()
    on_white[alpha == 0] = 255
    Image.fromarray(cut_out).save(tmp_path / "cutout.png")
    Image.fromarray(on_white).save(tmp_path / "white.png")
    seen, finished = frames_of(cli, tmp_path / "a.npy", *words(task, flag, tmp_path / "cutout.png", *length))
    expected, plain = frames_of(cli, tmp_path / "b.npy", *words(task, flag, tmp_path / "white.png", *length))
    assert np.array_equal(seen, expected)
    note = "cutout.png has transparent pixels, which are shown on white"
    assert f"warning: {note}" in finished.err
    assert note in json.loads((tmp_path / "a.json").read_text())["warnings"]
    assert "transparent" not in plain.err
    assert note in cli(*words(task, flag, tmp_path / "cutout.png", *length), "--dry_run").err


def test_greys_of_16_bits(cli, tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "a.png")
    Image.fromarray(GREY).save(tmp_path / "b.png")
    flag, *length = PICTURES["image_to_video"]
    seen, expected = (
        frames_of(cli, tmp_path / "a.npy", *words("image_to_video", flag, tmp_path / name, *length))[0]
        for name in ("a.png", "b.png")
    )
    assert np.array_equal(seen, expected)
    assert np.ptp(seen[0]) > 50


@pytest.mark.parametrize("task", PICTURES)
def test_a_heic_that_is_none(cli, tmp_path, task):
    flag, *length = PICTURES[task]
    for content in (b"no picture", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"x" * 500):
        (tmp_path / "a.heic").write_bytes(content)
        finished = cli(*words(task, flag, tmp_path / "a.heic", *length), "--dry_run")
        assert finished.code == 2
        assert f"{flag} {brief(tmp_path / 'a.heic')}: " in finished.complaint


def test_stored_frames_are_videos(cli, make_video, tmp_path):
    """A film from a .npy and from a folder of PNGs is that from the decoded video."""
    source = make_video()
    with av.open(str(source)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    np.save(tmp_path / "stored.npy", frames)
    (tmp_path / "stored").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"stored/{number:06d}.png")
    extend = [*("--task_type", "single_shot_extension", "--model_id", "tiny"), *SHORT, *SIZE]
    extend += ["--duration", "1", "--prepend_input", "--input_video"]
    made = [
        frames_of(cli, tmp_path / "a.npy", *extend, path)[0]
        for path in (source, tmp_path / "stored.npy", tmp_path / "stored")
    ]
    assert np.array_equal(made[0][:30], frames)
    assert all(np.array_equal(film, made[0]) for film in made[1:])
    refused = cli(*extend, tmp_path / "stored", "--output", tmp_path / "stored/", "--overwrite")
    assert refused.code == 2
    assert "is an input of this very video" in refused.complaint
    (tmp_path / "stored/000004.png").unlink()
    assert "lacks frame 000004.png" in cli(*extend, tmp_path / "stored", "--dry_run").complaint


@pytest.mark.slow
def test_kinds_of_files(cli, tmp_path):
    expected, _ = frames_of(cli, tmp_path / "a.npy", *TEXT, "--num_frames", "5")
    for kind in CONTAINERS:
        finished = cli(*TEXT, "--num_frames", "5", "--output", tmp_path / f"a_{kind}.{kind}")
        assert finished.code == 0, finished.err
        with av.open(str(finished.paths[0])) as container:
            seen = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert np.abs(seen.astype(int) - expected).mean() < 25  # the tiny model makes noise
        plan = json.loads(cli("--from_metadata", finished.paths[0], "--dry_run", "--json").out)
        assert plan["request"]["prompt"] == "a cat"
    finished = cli(*TEXT, "--num_frames", "5", "--codec", "ffv1", "--output_dir", tmp_path / "films")
    assert [path.name for path in finished.paths] == ["1_1.mkv"]
    with av.open(str(finished.paths[0])) as container:
        seen = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.array_equal(seen, expected)


def test_one_frame_is_one_picture(cli, tmp_path):
    expected, _ = frames_of(cli, tmp_path / "a.npy", *TEXT, "--num_frames", "1")
    finished = cli(*TEXT, "--num_frames", "1", "--output", tmp_path / "a.png", "--overwrite")
    assert finished.code == 0, finished.err
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), expected[0])
    refused = cli(*TEXT, "--num_frames", "5", "--output", tmp_path / "b.png", "--dry_run")
    assert refused.code == 2
    assert "is one picture, and the video has 5 frames; add --num_frames 1" in refused.complaint


@pytest.mark.parametrize(
    ("name", "flags", "said"),
    [
        ("a.mp4", ("--codec", "prores"), "--codec prores: .mp4 holds h264; give --output a name with .mov"),
        ("a.webm", ("--codec", "h264"), "--codec h264: .webm holds vp9"),
        ("a.mp4", ("--crf", "60"), "--crf 60: at most 51; nearest 51"),
        ("a.mp4", ("--crf", "64"), "--crf 64: must be a whole number from 0 to 63; nearest 63"),
        ("a.mp4", ("--codec", "divx"), "--codec divx: must be one of h264, prores, vp9, ffv1"),
        ("a.mov", ("--crf", "9"), "warning: --crf has no effect on prores"),
        ("a.npy", ("--crf", "9"), "warning: --crf has no effect: what is written is lossless or a GIF"),
        ("a.npy", ("--video_colors", "published"), "warning: --video_colors has no effect"),
    ],
)
def test_what_a_file_cannot_hold(cli, tmp_path, name, flags, said):
    finished = cli(*TEXT, "--num_frames", "5", *flags, "--output", tmp_path / name, "--dry_run")
    assert said in finished.err
    assert finished.code == (0 if said.startswith("warning") else 2)


BARS = np.array([(220, 30, 30), (30, 200, 30), (196, 140, 110), (20, 40, 210)], np.uint8)
VIDEO_TASKS = {
    "single_shot_extension": ("--duration", "1"),
    "shot_switching_extension": ("--duration", "2"),
    "diffusion_forcing": ("--num_frames", "37", "--overlap_history", "17"),
    "v2v-14B": ("--num_frames", "5"),
    "v2v-5B": ("--num_frames", "5", "--width", "64"),
}


def bars(path, *coded):
    frames = BARS.repeat(40, 0)[None].repeat(96, 0).tobytes() * 30
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "160x96", "-r", "24", "-i", "-")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *source, *coded, str(path)]
    subprocess.run(command, input=frames, check=True)
    return path


@pytest.mark.slow
def test_a_film_keeps_the_look_of_its_source(cli, tmp_path):
    tagged = ("-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p", "-colorspace", "bt709")
    source = bars(tmp_path / "bars.mp4", *tagged, "-color_range", "tv", "-c:v", "libx264", "-crf", "4")
    extend = [*("--task_type", "single_shot_extension", "--model_id", "tiny"), *SHORT, *SIZE]
    extend += ["--duration", "1", "--prepend_input", "--input_video", source]
    for kind in CONTAINERS:
        finished = cli(*extend, "--output", tmp_path / f"film_{kind}.{kind}")
        assert finished.code == 0, finished.err
        with av.open(str(finished.paths[0])) as container:
            frame = next(container.decode(video=0))
        assert int(frame.colorspace) == 1
        shown = frame.to_ndarray(format="rgb24")[48, 20::40].astype(int)
        assert np.abs(shown - BARS).max() <= 6, kind  # of which 2 are the conversion for this test


@pytest.mark.parametrize("task", VIDEO_TASKS)
def test_what_is_said_of_a_video(cli, tmp_path, task):
    tags = "setparams=color_primaries=bt2020:color_trc=arib-std-b67:colorspace=bt2020nc,setsar=2"
    filters = ("-vf", f"format=yuv420p,interlace=lowpass=off,{tags},format=yuv420p10le")
    coded = (*filters, "-c:v", "libx264", "-flags", "+ilme+ildct", "-x264-params", "tff=1", "-r", "24")
    source = bars(tmp_path / "tv.mov", *coded)
    arguments = words(task, "--input_video", source, *VIDEO_TASKS[task])
    finished = cli(*arguments, "--dry_run", "--json")
    assert finished.code == 0, finished.err
    for note in (
        "tv.mov is HDR (HLG, BT.2020) and is tone-mapped to SDR",
        "tv.mov is interlaced and is deinterlaced",
    ):
        assert f"warning: {note}" in finished.err
        assert note in json.loads(finished.out)["notes"]
