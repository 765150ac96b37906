"""The talking avatar: its sound, its clips, what is refused."""

import json
import re
import subprocess

import av
import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import load_file

import videogen
from tests.conftest import REFS
from tests.processes import kill_when
from videogen.diffusion.guidance import guide
from videogen.media.audio import read_audio
from videogen.media.download import Fetcher
from videogen.pipelines.talking_avatar import TalkingAvatarPipeline
from videogen.tasks import config

FACE = REFS / "balloon.png"


@pytest.fixture
def avatar(speech):
    """The shortest talking_avatar command on the tiny model, without an output."""

    def words(*more):
        given = {str(word) for word in more}
        sound = [] if "--input_audio" in given else ["--input_audio", speech]
        said = ["--task_type", "talking_avatar", "--model_id", "tiny", "--prompt", "x", "--input_image", FACE]
        size = ["--height", 32, "--width", 32, "--num_inference_steps", 2, "--device", "cpu"]
        length = [] if "--num_frames" in given else ["--num_frames", 29]
        return [*said, *size, *sound, *length, *more]

    return words


def test_a_clip_for_every_second(cli, avatar, tmp_path):
    finished = cli(*avatar("--output", tmp_path / "a.npy", "--save_latents", tmp_path / "a.safetensors"))
    assert finished.code == 0, finished.err
    assert "what is seen follows --connection_prompt 'a person is talking', as published" in finished.err
    assert np.load(tmp_path / "a.npy").shape == (35, 32, 32, 3)
    assert list(load_file(tmp_path / "a.safetensors")) == ["latents_0", "latents_1", "latents_2"]


@pytest.fixture
def shows_what_it_hears(monkeypatch):
    """A stand-in for the networks: a frame is bright on the right, or on the left where it hears something.

    Everything else is as ever: sound, features, windows, clips, colours, the file and its track.
    """
    silence = []

    def velocity(self, segments, context, *_, **__):
        latents = segments[0].latents
        rows = context.audio[0, :, 2].flatten(1)  # of every frame, the middle of its window
        silence[:] = silence or [rows[0]]
        heard = (rows - silence[0]).norm(dim=1) > 1
        meant = torch.zeros_like(latents)
        meant[:, 0, 0] = heard[0]
        meant[:, :4, 1:] = heard[1:].view(-1, 4).T[None, :, :, None, None]
        return latents - meant  # one step from noise to this

    def decode(self, latents):
        side = 2 * (torch.arange(8.0 * latents.shape[4]) < 4 * latents.shape[4]) - 1
        signs = 2 * torch.cat([latents[0, :1, 0], *latents[0, :4, 1:].unbind(1)])[:, 0, 0] - 1
        for sign in signs:
            yield (0.5 * sign * side).expand(1, 3, 1, 8 * latents.shape[3], -1)

    def encode_video(self, video, **_):
        frames, height, width = video.shape[2:]
        return torch.zeros(1, 16, (frames + 3) // 4, height // 8, width // 8)

    monkeypatch.setattr(TalkingAvatarPipeline, "velocity", velocity)
    monkeypatch.setattr(TalkingAvatarPipeline, "decode", decode)
    monkeypatch.setattr(TalkingAvatarPipeline, "encode_video", encode_video)


CLICKS = (1.0, 10.3, 50.3, 100.7, 150.02, 199.2)  # seconds


@pytest.mark.parametrize(
    ("track", "seconds", "name", "found"),
    [
        ("original", 200, "clicks.flac", 44100),
        ("normalized", 12, "clicks.flac", 16000),
        ("original", 12, "clicks.mp3", 44100),
        ("original", 12, "clicks.m4a", 44100),
    ],
)
@pytest.mark.slow
def test_lips_and_sound_stay_together(
    cli, avatar, tmp_path, shows_what_it_hears, track, seconds, name, found
):
    """Every click of the sound is in the frame that shows it: less than a frame lies between them."""
    rate, clicks = 44100, [click for click in CLICKS if click < seconds]
    samples = np.zeros(seconds * rate, np.float32)
    for click in clicks:
        samples[int(click * rate) :][:441] = 0.9
    soundfile.write(tmp_path / "clicks.flac", samples, rate)
    if name != "clicks.flac":
        ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", tmp_path / "clicks.flac"]
        subprocess.run([*ffmpeg, tmp_path / name], check=True)
    finished = cli(
        *avatar("--input_audio", tmp_path / name, "--num_frames", 81),
        *("--num_inference_steps", 1, "--output", tmp_path / "a.mp4", "--audio_track", track),
    )
    assert finished.code == 0, finished.err
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = [(frame.time, frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
    with av.open(str(tmp_path / "a.mp4")) as container:
        rate = container.streams.audio[0].rate
        assert (rate, container.streams.audio[0].channels) == (found, 1)
        parts = [(frame.time, frame.to_ndarray()[0]) for frame in container.decode(audio=0)]
    assert 25 * seconds <= len(frames) <= 25 * seconds + 3  # codecs pad
    sound = np.concatenate([part for _, part in parts])
    for click in clicks:
        first = int((click - 1) * rate)
        heard = parts[0][0] + (first + np.argmax(np.abs(sound[first:][: 2 * rate]))) / rate
        assert abs(heard - click) < 0.02
        shown = [
            start
            for start, gray in frames
            if abs(start - click) < 1 and gray[:, :16].mean() > gray[:, 16:].mean()
        ]
        assert shown
        assert abs((shown[0] + shown[-1] + 0.04) / 2 - heard) < 0.04


@pytest.mark.slow
def test_prompts_of_what_is_seen(cli, avatar, tmp_path):
    frames = {}
    for name, more in (
        ("plain", ()),
        ("same", ("--connection_prompt", "same")),
        ("spelled", ("--connection_prompt", "x")),
        ("other", ("--connection_prompt", "a man shouts")),
        ("guided", ("--guidance_scale", 3, "--guidance_scale_audio", 2)),
    ):
        finished = cli(*avatar(*more, "--output", tmp_path / f"{name}.npy"))
        assert finished.code == 0, finished.err
        frames[name] = np.load(tmp_path / f"{name}.npy").tobytes()
    assert frames["same"] == frames.pop("spelled")
    assert len(set(frames.values())) == 4


@pytest.mark.parametrize(("text", "sound"), [(1, 1), (3, 1), (1, 2), (3, 2)])
def test_guidance_as_specified(text, sound):
    """Of spec section 7's table: the branches, and what becomes of them."""
    pipeline = videogen.load("talking_avatar", "tiny", dtype=torch.float32, device="cpu")
    windows, face = torch.randn(1, 5, 5, 2, 16), torch.zeros(1, 3, 1, 32, 32)
    guidance, contexts = pipeline.speech_guidance("yes", "no", (text, sound), face, windows)
    said = {"yes": pipeline.embed("yes"), "no": pipeline.embed("no")}
    # c: prompt and sound, t: negative prompt and sound, a: prompt alone, u: neither.
    value = {("yes", True): 1.0, ("no", True): 10.0, ("yes", False): 100.0, ("no", False): 1000.0}
    c, t, a, u = value.values()

    def velocity(branch):
        context = contexts[branch]
        (words,) = (name for name, rows in said.items() if torch.equal(rows, context.text))
        assert torch.equal(context.audio, windows) or not context.audio.any()
        return torch.tensor(value[words, bool(context.audio.any())])

    wanted = {
        (1, 1): c,
        (3, 1): t + 3 * (c - t),
        (1, 2): a + 2 * (c - a),
        (3, 2): u + 3 * (c - t) + 2 * (t - u),
    }
    assert guide(guidance, velocity) == wanted[text, sound]
    assert len(contexts) == len(guidance.branches)


@pytest.mark.parametrize("motion", [1, 6])
def test_any_number_of_frames_is_carried_over(cli, avatar, tmp_path, motion):
    finished = cli(*avatar("--output", tmp_path / "a.npy", "--num_frames", 25, "--motion_frame", motion))
    assert finished.code == 0, finished.err
    assert len(np.load(tmp_path / "a.npy")) == 35


@pytest.mark.parametrize(("most", "clips"), [(31, 3), (20, 1)])
def test_a_sound_is_cut(cli, avatar, tmp_path, most, clips):
    latents = tmp_path / "a.safetensors"
    finished = cli(
        *avatar("--output", tmp_path / "a.npy", "--max_frames_num", most, "--save_latents", latents)
    )
    assert finished.code == 0, finished.err
    assert len(np.load(tmp_path / "a.npy")) == most
    assert len(load_file(latents)) == clips


def test_what_follows_a_cut_sound_is_heard_unless_clips_are_filled_up(speech):
    """As published: cut to whole clips, the windows of the last frames reach into the rest of the sound."""
    pipeline = videogen.load("talking_avatar", "tiny", dtype="float32", device="cpu")
    sound = read_audio("--input_audio", str(speech), Fetcher(folder=speech.parent))
    every = pipeline.hear(sound, 35, 35)
    assert len(every) == 35
    assert torch.equal(pipeline.hear(sound, 29, 29), every)
    filled = pipeline.hear(sound, 30, 33)
    assert torch.equal(filled, torch.cat([every[:30], every[27:30].flip(0)]))


def test_silence_is_worth_a_warning(cli, avatar, tmp_path):
    soundfile.write(tmp_path / "quiet.wav", np.zeros(16000, np.float32), 16000)
    finished = cli(*avatar("--input_audio", tmp_path / "quiet.wav", "--output", tmp_path / "a.mp4"))
    assert finished.code == 0, finished.err
    assert "warning: quiet.wav is silent" in finished.err


def test_540p_lies_between_the_published_sizes():
    sizes = config.read("sizes")["talking_avatar"]
    areas = {name: [height * width for _, height, width in sizes[name]] for name in sizes}
    assert max(areas["480P"]) < min(areas["540P"]) <= max(areas["540P"]) < min(areas["720P"])
    assert all(height % 16 == width % 16 == 0 for _, height, width in sizes["540P"])


def test_clips_of_another_length_are_another_video(cli, avatar, tmp_path):
    """Its length is the sound's, whatever its clips are."""
    words = avatar("--output", tmp_path / "a.npy", "--num_frames", 21)
    assert cli(*words).code == 0
    resumed = cli(*avatar("--output", tmp_path / "a.npy", "--num_frames", 25), "--resume")
    assert resumed.code == 2
    assert "was made with another num_frames" in resumed.complaint


def test_what_is_carried_over_is_rounded_as_the_network_sees_it(monkeypatch, speech):
    pipeline = videogen.load("talking_avatar", "tiny", dtype=torch.bfloat16, device="cpu")
    seen, pin = [], TalkingAvatarPipeline.pin

    def noted(self, scene, *rest):
        seen.append(scene.beside.dtype)
        return pin(self, scene, *rest)

    monkeypatch.setattr(TalkingAvatarPipeline, "pin", noted)
    size = {"height": 32, "width": 32, "num_frames": 21, "drop_frame": 8, "num_inference_steps": 1}
    pipeline("x", input_image=Image.open(FACE), input_audio=speech, output_type="latent", **size)
    assert seen == [torch.bfloat16] * 4  # two clips, before and after the step


def test_a_stop_in_the_hidden_clip_shows_what_there_is(speech):
    pipeline = videogen.load("talking_avatar", "tiny", dtype=torch.float32, device="cpu")

    def stop(pipeline, *_):
        pipeline._interrupt = True
        return {}

    frames = pipeline(
        "x",
        input_image=Image.open(FACE),
        input_audio=speech,
        height=32,
        width=32,
        num_frames=21,
        callback_on_step_end=stop,
        output_type="uint8",
    ).frames
    assert frames.shape == (1, 21, 32, 32, 3)


@pytest.mark.slow
def test_a_killed_avatar_goes_on_after_its_last_clip(cli, avatar, tmp_path):
    def words(name):
        return [
            str(word)
            for word in avatar("--output", tmp_path / f"{name}.npy", "--num_frames", 21, "--drop_frame", 8)
        ]

    assert cli(*words("whole")).code == 0
    state = tmp_path / "a.parts/state.json"
    kill_when(lambda: state.exists() and json.loads(state.read_text())["finished"] > 1, *words("a"))
    resumed = cli(*words("a"), "--resume")
    assert resumed.code == 0, resumed.err
    assert "continuing after" in resumed.err
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "whole.npy"))


BAD = {
    "no sound": (("--input_audio", FACE), "--input_audio .*balloon.png: is not audio"),
    "no such file": (("--input_audio", "nowhere.wav"), "--input_audio nowhere.wav: no such file"),
    "ratio": (("--input_image", "RIBBON"), "--input_image .*: is 900x10, and more than half is cut off"),
    "duration": (("--duration", 5), "--duration 5: not used by talking_avatar"),
    "nothing left": (
        ("--num_frames", 17),
        "--motion_frame 5: leaves nothing of a clip of 17 frames beside --drop_frame 12; .*--num_frames 21",
    ),
    "frames": (("--num_frames", 30), "--num_frames 30: must be 4k.1; nearest 29 or 33"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(cli, avatar, tmp_path, name):
    words, message = BAD[name]
    Image.new("RGB", (900, 10)).save(tmp_path / "ribbon.png")
    words = [tmp_path / "ribbon.png" if word == "RIBBON" else word for word in words]
    finished = cli(*avatar(*words, "--output", tmp_path / "x.mp4"))
    assert finished.code == 2
    assert re.search(message, finished.complaint), finished.complaint
