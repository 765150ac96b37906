"""The options of video extension: whole films, sound, prompts per roll, handovers, resuming rolls."""

import json

import av
import numpy as np
import pytest
from safetensors.torch import load_file

from tests.processes import kill_when


@pytest.fixture
def extend(make_video):
    """The shortest single_shot_extension command on the tiny model, without an output."""

    def words(*more, source=None, task="single_shot_extension", duration=1):
        return [
            *("--task_type", task, "--model_id", "tiny", "--input_video", str(source or make_video())),
            *("--height", "32", "--width", "48", "--duration", str(duration), "--num_inference_steps", "1"),
            *("--device", "cpu", *map(str, more)),
            *(() if "--roll_prompts" in more else ("--prompt", "a square moves")),
        ]

    return words


def decoded(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_the_plan_lists_the_rolls(cli, extend):
    finished = cli(*extend("--dry_run", duration=11))
    assert finished.code == 0, finished.err
    assert "segments  132, 132, 4 frames" in finished.out
    plan = json.loads(cli(*extend("--dry_run", "--json", duration=11)).out)
    assert [roll["latent_frames"] for roll in plan["rolls"]] == [33, 33, 1]
    assert plan["forwards"] == 3


def test_only_new_frames_are_written(cli, extend, tmp_path):
    finished = cli(*extend("--output", tmp_path / "a.npy"))
    assert finished.code == 0, finished.err
    assert np.load(tmp_path / "a.npy").shape == (36, 32, 48, 3)
    assert json.loads((tmp_path / "a.json").read_text())["inputs"]["input_video"][0]["sha256"]


def test_the_whole_film_with_its_sound(cli, extend, make_video, tmp_path):
    source = make_video("loud.mp4", audio=True)
    more = ("--prepend_input", "--keep_audio")
    finished = cli(*extend(*more, "--output", tmp_path / "a.mp4", source=source))
    assert finished.code == 0, finished.err
    video, original = decoded(tmp_path / "a.mp4"), decoded(source)
    assert video.shape == (30 + 36, 96, 160, 3)
    assert np.abs(video[:30].astype(int) - original).mean() < 3
    with av.open(str(tmp_path / "a.mp4")) as container:
        sound = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)
        assert sound.std() > 0.1
        seconds = sound.shape[1] / container.streams.audio[0].rate
    assert seconds == pytest.approx(30 / 24, abs=0.1)
    plan = cli(*extend(*more, "--dry_run", source=source)).out
    assert "160x96, 66 frames: 30 of loud.mp4 at 24 fps" in plan


def test_sound_stays_with_its_picture(cli, extend, tmp_path):
    """The picture begins half a second after the sound; a tone begins with the picture."""
    from fractions import Fraction

    with av.open(str(tmp_path / "late.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for index in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((96, 160, 3), 8 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index + 12, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        wave = np.sin(np.arange(28000) * 0.3).astype(np.float32)[None]
        wave[:, :8000] = 0
        chunk = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        chunk.sample_rate, chunk.pts, chunk.time_base = 16000, 0, Fraction(1, 16000)
        container.mux(sound.encode(chunk))
        container.mux(sound.encode())
    more = ("--prepend_input", "--keep_audio", "--output", tmp_path / "a.mp4")
    finished = cli(*extend(*more, source=tmp_path / "late.mkv"))
    assert finished.code == 0, finished.err
    with av.open(str(tmp_path / "a.mp4")) as container:
        wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        rate = container.streams.audio[0].rate
    assert np.argmax(np.abs(wave) > 0.3) / rate < 0.1


def test_another_frame_rate(cli, extend, make_video, tmp_path):
    source = make_video("fast.mp4", fps=48, frames=60, audio=True)
    finished = cli(*extend("--dry_run", source=source))
    assert "warning: fast.mp4 has 48 frames a second and is continued as if it had 24" in finished.err
    plan = json.loads(cli(*extend("--dry_run", "--json", "--prepend_input", source=source)).out)
    assert plan["file"]["prepended"] == 60
    resampled = ("--prepend_input", "--source_fps", "auto")
    plan = json.loads(cli(*extend("--dry_run", "--json", *resampled, source=source)).out)
    assert plan["file"]["prepended"] == 30
    for wrong in ((), ("--source_fps", 24)):
        words = extend("--prepend_input", "--keep_audio", "--dry_run", *wrong, source=source)
        assert "add --source_fps auto" in cli(*words).complaint
    finished = cli(*extend(*resampled, "--output", tmp_path / "a.npy", source=source))
    assert finished.code == 0, finished.err
    frames = np.load(tmp_path / "a.npy")
    assert len(frames) == 30 + 36
    assert np.array_equal(frames[:30], decoded(source)[::2])


@pytest.mark.slow
def test_a_prompt_for_every_roll(cli, extend, tmp_path):
    (tmp_path / "prompts.txt").write_text("a square moves\n\na circle stands\n", encoding="utf-8")
    common = ("--output", tmp_path / "a.npy", "--save_latents", tmp_path / "a.safetensors", "--overwrite")
    prompts = ("--roll_prompts", tmp_path / "prompts.txt")
    assert (
        "has 3 prompts, and there are 2 segments; leave out 1"
        in cli(*extend(*prompts, *common, duration=6)).complaint
    )
    (tmp_path / "prompts.txt").write_text("a square moves\na circle stands\n", encoding="utf-8")
    assert cli(*extend(*prompts, *common, duration=6)).code == 0
    travel = load_file(tmp_path / "a.safetensors")
    request = json.loads((tmp_path / "a.json").read_text())["request"]
    assert request["roll_prompts"] == ["a square moves", "a circle stands"]
    assert cli(*extend(*common, duration=6)).code == 0
    plain = load_file(tmp_path / "a.safetensors")
    assert travel["latents_0"].equal(plain["latents_0"])
    assert not travel["latents_1"].equal(plain["latents_1"])
    (tmp_path / "prompts.txt").write_text("a square moves\n", encoding="utf-8")
    finished = cli(*extend(*prompts, "--dry_run", duration=6))
    assert "has 1 prompts for 2 segments; the last one is used to the end" in finished.err
    both = [*extend(*prompts, "--dry_run"), "--prompt", "x"]
    assert "not together with --roll_prompts" in cli(*both).complaint


@pytest.mark.parametrize("option", [("--handover", "latents"), ("--color_match",)])
def test_remedies_for_drift(cli, extend, tmp_path, option):
    for name, more in (("plain", ()), ("other", option)):
        finished = cli(*extend(*more, "--output", tmp_path / f"{name}.npy", duration=6))
        assert finished.code == 0, finished.err
    plain, other = np.load(tmp_path / "plain.npy"), np.load(tmp_path / "other.npy")
    assert plain.shape == other.shape
    assert not np.array_equal(plain[132:], other[132:])
    assert np.array_equal(plain[:132], other[:132]) == (option[0] == "--handover")


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), pytest.param(("--handover", "latents"), marks=pytest.mark.slow)])
def test_a_killed_extension_goes_on_after_its_last_roll(cli, extend, tmp_path, more):
    options = (*more, "--output", tmp_path / "a.npy", "--save_latents", tmp_path / "a.safetensors")
    whole = ("--output", tmp_path / "whole.npy", "--save_latents", tmp_path / "whole.safetensors", *more)
    assert cli(*extend(*whole, duration=11)).code == 0
    state = tmp_path / "a.parts/state.json"
    kill_when(state.exists, *extend(*options, duration=11))
    assert not (tmp_path / "a.npy").exists()
    finished = json.loads(state.read_text())["finished"]
    assert 1 <= finished < 3
    assert len(decoded(tmp_path / "a.parts/001.mp4")) == 132

    refused = cli(*extend(*options, duration=11))
    assert refused.code == 2
    assert "finished segments of an unfinished video; --resume continues it" in refused.complaint
    changed = cli(*extend(*options, "--resume", "--shift", 3, duration=11))
    assert changed.code == 2
    assert "was made with another shift" in changed.complaint

    resumed = cli(*extend(*options, "--resume", duration=11))
    assert resumed.code == 0, resumed.err
    assert f"continuing after {finished} finished segments" in resumed.err
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "whole.npy"))
    ours, theirs = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "whole.safetensors")
    assert list(ours) == ["latents_0", "latents_1", "latents_2"]
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert not (tmp_path / "a.parts").exists()


@pytest.fixture
def killed(extend, tmp_path):
    """Start an extension of three rolls, and kill it after the first; returns its words."""

    def start(*more):
        words = [*extend(*more, duration=11)]
        kill_when((tmp_path / "a.parts/state.json").exists, *words)
        return words

    return start


@pytest.mark.slow
def test_a_drawn_seed_is_kept_with_the_parts(cli, killed, tmp_path):
    words = killed("--seed", "random", "--output", tmp_path / "a.npy")
    seed = json.loads((tmp_path / "a.parts/state.json").read_text())["seed"]
    resumed = cli(*words, "--resume")
    assert resumed.code == 0, resumed.err
    assert "continuing after" in resumed.err
    assert json.loads((tmp_path / "a.json").read_text())["seed"] == seed


@pytest.mark.slow
def test_damaged_parts_are_told_and_may_be_replaced(cli, killed, tmp_path):
    words = killed("--output", tmp_path / "a.npy")
    (tmp_path / "a.parts/001.npy").unlink()
    assert "lacks 001.npy; --overwrite begins again" in cli(*words, "--resume").complaint
    assert cli(*words, "--overwrite", "--duration", 1).code == 0
    assert not (tmp_path / "a.parts").exists()


def test_other_peoples_files_are_left_alone(cli, extend, tmp_path):
    (tmp_path / "a.parts").mkdir()
    (tmp_path / "a.parts/thesis.txt").write_text("precious")
    for more in ((), ("--overwrite",)):
        finished = cli(*extend("--output", tmp_path / "a.npy", *more, duration=6))
        assert finished.code == 2
        assert "has other files in it (thesis.txt)" in finished.complaint
    assert (tmp_path / "a.parts/thesis.txt").read_text() == "precious"


def test_metadata_repeats_an_extension(cli, extend, make_video, tmp_path, monkeypatch):
    monkeypatch.chdir(make_video().parent)
    (tmp_path / "prompts.txt").write_text("a\tsquare\n", encoding="utf-8")
    more = ("--roll_prompts", tmp_path / "prompts.txt", "--source_fps", "auto", "--handover", "latents")
    assert cli(*extend(*more, "--output", tmp_path / "a.npy", source="source.mp4")).code == 0
    again = cli("--from_metadata", tmp_path / "a.json", "--output", tmp_path / "b.npy", "--device", "cpu")
    assert again.code == 0, again.err
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    hashes = [json.loads((tmp_path / f"{name}.json").read_text())["plan_hash"] for name in "ab"]
    assert hashes[0] == hashes[1]
    monkeypatch.chdir(tmp_path)
    complaint = cli("--from_metadata", "a.json", "--dry_run").complaint
    assert "was made from source.mp4, which is not in this folder; add --input_video" in complaint


def test_parts_may_be_kept(cli, extend, tmp_path):
    assert cli(*extend("--keep_parts", "--output", tmp_path / "a.mp4", duration=6)).code == 0
    names = sorted(path.name for path in (tmp_path / "a.parts").iterdir())
    assert names == [f"00{i}.{suffix}" for i in (1, 2) for suffix in ("mp4", "npy", "safetensors")] + [
        "state.json"
    ]


def test_every_memory_mode_of_shot_switching(cli, extend, tmp_path):
    for mode in ((), ("--offload",), ("--low_vram",)):
        words = extend(*mode, task="shot_switching_extension", duration=2)
        finished = cli(*words, "--output", tmp_path / f"{len(mode)}{mode}.npy")
        assert finished.code == 0, finished.err


@pytest.mark.parametrize(
    ("task", "source", "more", "message"),
    [
        ("single_shot_extension", "short", (), "short.mp4: has 20 frames, and 25 are needed"),
        ("single_shot_extension", "flat", (), "flat.mp4: is 64x8 pixels, and 16x16 are the least"),
        ("shot_switching_extension", "short", ("--duration", 5), "has 20 frames, and 33 are needed"),
        ("single_shot_extension", "text", (), "--input_video .*: is not a video"),
        ("single_shot_extension", "cut", (), "--input_video .*cut.mp4"),
        ("single_shot_extension", "sound", (), "has no video"),
        ("single_shot_extension", "good", ("--duration", 31), "from 1 to 30; nearest 30"),
        ("single_shot_extension", "good", ("--duration", 2.5), "whole seconds from 1 to 30; nearest 2"),
        ("shot_switching_extension", "good", ("--duration", 6), "from 2 to 5; nearest 5"),
        ("single_shot_extension", "good", ("--num_frames", 25), "--num_frames 25: not used by single_shot"),
        ("single_shot_extension", "good", ("--fps", 24), "--fps 24: not used by single_shot"),
        ("single_shot_extension", "good", ("--height", 50), "--height 50: must be a multiple of 16"),
        ("single_shot_extension", "good", ("--keep_audio",), "--keep_audio: .*add --prepend_input"),
        ("single_shot_extension", "good", ("--keep_audio", "--prepend_input"), "has no sound"),
        ("single_shot_extension", "good", ("--source_fps", 0), "--source_fps 0: must be a number above 0"),
        ("single_shot_extension", None, (), "--input_video: none given"),
    ],
)
def test_bad_input(cli, make_video, tmp_path, monkeypatch, task, source, more, message):
    import re

    (tmp_path / "text.mp4").write_text("no video")
    good = make_video()
    (tmp_path / "cut.mp4").write_bytes(good.read_bytes()[:-2000])
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        chunk.sample_rate = 16000
        container.mux(stream.encode(chunk))
        container.mux(stream.encode())
    files = {"good": good, "short": make_video("short.mp4", frames=20)}
    files["flat"] = make_video("flat.mp4", size=(64, 8))
    words = ["--task_type", task, "--model_id", "tiny", "--prompt", "x", "--output", tmp_path / "out.mp4"]
    if source is not None:
        words += ["--input_video", files.get(source, tmp_path / f"{source}.mp4")]
    finished = cli(*words, *more)
    assert finished.code == 2, finished.err
    assert re.search(message, finished.complaint), finished.complaint
    assert not list(tmp_path.glob("out*"))
