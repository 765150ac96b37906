"""Input sound, and the features of the talking avatar's audio encoder."""

import gzip
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from transformers import Wav2Vec2Config
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2FeatureEncoder

from tests.conftest import GOLDEN, ROOT
from videogen.checkpoints.networks.wan import WAV2VEC2
from videogen.errors import CheckpointError, InputError
from videogen.media.audio import SAMPLE_RATE, _with_av, normalized, pcm16, read_audio, resampled, waveform
from videogen.media.download import Fetcher
from videogen.models.components import build_meta_module, load_component
from videogen.models.wan.audio_encoder import audio_features, audio_windows, speech_steps
from videogen.models.weight_loader import Entry, rename

CHIRP, SILENCE = "talking_avatar/audio_front_end_chirp", "talking_avatar/audio_front_end_silence"
SHORT = "talking_avatar/e2e_single_clip_short_audio"  # at 22050 Hz
WAV2VEC = GOLDEN / "talking_avatar/checkpoint-A/chinese-wav2vec2-base"
# What ffmpeg makes each file with.
FILES = {
    "stereo.wav": ("-ac", "2", "-ar", "44100"),
    "float.wav": ("-c:a", "pcm_f32le", "-ar", "48000"),
    "sound.flac": ("-ar", "32000"),
    "sound.mp3": ("-ar", "44100"),
    "sound.ogg": ("-c:a", "libvorbis", "-ar", "48000"),
    "sound.m4a": ("-c:a", "aac", "-ac", "2", "-ar", "44100"),
    "sound.aac": ("-c:a", "aac", "-ar", "22050"),
    "film.mp4": ("-c:a", "aac", "-ar", "48000"),
    "film.mkv": ("-c:a", "libopus", "-ac", "2"),
    "film.ts": ("-c:a", "mp2", "-ar", "48000"),
}
PICTURE = ("-f", "lavfi", "-i", "color=size=32x32:duration=2", "-c:v", "libx264", "-shortest")


def read(source, flag="--input_audio"):
    return read_audio(flag, str(source), Fetcher(folder=Path()))


def ffmpeg(*arguments):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


def tone(seconds, rate=SAMPLE_RATE):
    """A voice-like sweep, float32, at most 0.5."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (200 + 150 * time) * time) * np.sin(np.pi * 3 * time)).astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The same two seconds in every format."""
    folder = tmp_path_factory.mktemp("sounds")
    soundfile.write(folder / "source.wav", tone(2), SAMPLE_RATE)
    for name, options in FILES.items():
        picture = PICTURE if name.startswith("film") else ()
        ffmpeg("-i", folder / "source.wav", *picture, *options, folder / name)
    return folder


@pytest.fixture
def write(tmp_path):
    def file(samples, rate=SAMPLE_RATE, name="sound.wav", **options):
        soundfile.write(tmp_path / name, samples, rate, **options)
        return tmp_path / name

    return file


@pytest.fixture(scope="module")
def encoder():
    return load_component("audio_encoder", WAV2VEC)


def distance(ours, published):
    assert tuple(ours.shape) == tuple(published.shape)
    return float((torch.as_tensor(ours).double() - published.double()).abs().max())


# Golden results


def test_sound_as_published(golden):
    case = golden(CHIRP)
    audio, wanted = read(case.folder / "audio.wav"), case.outputs
    assert distance(resampled(audio), wanted["resampled_16k"]) <= 1e-5
    wave = waveform(audio)
    assert wave.dtype == np.float32
    assert distance(wave, wanted["normalised"]) <= 1e-5
    assert distance(pcm16(wave), wanted["sum_wav_int16"]) == 0
    assert not audio.silent


def test_silence_as_published(golden):
    case = golden(SILENCE)
    audio = read(case.folder / "audio.wav")
    assert distance(waveform(audio), case.outputs["normalised"]) == 0
    assert audio.silent


@pytest.mark.parametrize("name", [CHIRP, SILENCE, SHORT])
def test_features_as_published(golden, encoder, name):
    case = golden(name)
    audio, wanted = read(case.folder / "audio.wav"), case.outputs["audio_embedding"]
    assert audio.num_frames == len(wanted)
    features = audio_features(encoder, waveform(audio), audio.num_frames)
    assert features.dtype == torch.float32
    assert distance(features, wanted) <= 2e-4
    assert not encoder.feature_extractor._forward_hooks


def test_features_follow_the_sound(golden, encoder):
    """The tolerance would notice another sound."""
    wanted = golden(CHIRP).outputs["audio_embedding"]
    other = audio_features(encoder, tone(1.5), 38)
    assert distance(other, wanted) > 0.1


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_long_sounds_are_heard_in_stretches(monkeypatch, norm):
    """The seams leave no trace, and the layer that normalises over time knows the whole."""
    torch.manual_seed(0)
    shape = {"conv_dim": (8, 8, 8), "conv_kernel": (10, 3, 2), "conv_stride": (5, 2, 2)}
    config = Wav2Vec2Config(**shape, feat_extract_norm=norm, num_feat_extract_layers=3)
    extractor = Wav2Vec2FeatureEncoder(config).eval()
    speech = torch.from_numpy(tone(1.3))[None] + 0.1
    with torch.no_grad():
        for layer in extractor.conv_layers:
            for parameter in layer.parameters():
                parameter.normal_()
        whole = extractor(speech)
        monkeypatch.setattr("videogen.models.wan.audio_encoder.STRETCH", 7)
        stretches = speech_steps(extractor.conv_layers, speech)
    assert stretches.shape == whole.shape
    assert distance(stretches, whole) <= 1e-5 * whole.abs().max()


def test_windows_as_published(golden):
    chirp, short = golden(CHIRP).outputs, golden(SHORT).outputs
    assert torch.equal(audio_windows(chirp["audio_embedding"], 10, 21), chirp["window"])
    # 29 frames from the 21 there are: the last is repeated.
    assert torch.equal(audio_windows(short["audio_embedding"], 0, 29), short["clip0.audio_window"])


def test_audio_tokens_as_published(golden):
    """What the published code picks from the windows is in them; the rest is anything."""
    case = golden("talking_avatar/audio_proj")
    first, latter = case.inputs["audio_first"], case.inputs["audio_latter"]
    windows = torch.randn(1, 1 + 4 * latter.shape[1], *first.shape[2:])
    windows[:, :1] = first
    windows[:, 1::4, :3], windows[:, 4::4, 2:] = latter[:, :, :3], latter[:, :, 5:]
    windows[:, 2::4, 2], windows[:, 3::4, 2] = latter[:, :, 3], latter[:, :, 4]
    projection = load_component("transformer", GOLDEN / "talking_avatar/checkpoint-A").audio_proj
    with torch.no_grad():
        assert distance(projection(windows), case.outputs["tokens"]) <= 1e-4


# Files


@pytest.mark.parametrize("name", FILES)
def test_every_format(made, name):
    audio = read(made / name)
    assert audio.num_samples == pytest.approx(2 * SAMPLE_RATE, abs=0.12 * SAMPLE_RATE)  # codecs pad
    wave, source = resampled(audio), tone(2)
    assert wave.dtype == np.float32
    assert len(wave) == audio.num_samples
    assert audio.num_frames == len(range(0, audio.num_samples, SAMPLE_RATE // 25))
    best = np.correlate(wave, source, mode="full").max() / np.linalg.norm(source) / np.linalg.norm(wave)
    assert best > 0.98
    options = FILES[name]
    assert audio.channels == (2 if "-ac" in options else 1)
    level = 0.5 ** (0.5 * (audio.channels - 1))  # ffmpeg gives half the power to each of two channels
    assert np.linalg.norm(wave) == pytest.approx(level * np.linalg.norm(source), rel=0.05)
    assert audio.rate == int(options[options.index("-ar") + 1] if "-ar" in options else 48000)


@pytest.mark.parametrize("name", ["stereo.wav", "float.wav", "sound.flac"])
def test_both_decoders_give_the_same(made, name):
    audio = read(made / name)
    decoded = _with_av("", name, audio.path)
    ours, _ = soundfile.read(audio.path, dtype="float32", always_2d=True)
    assert decoded.rate == audio.rate
    assert np.array_equal(decoded.samples, ours.mean(axis=1))


def test_stereo_is_averaged(write):
    left, right = tone(1), tone(1)[::-1]
    audio = read(write(np.stack([left, right], axis=1), subtype="FLOAT"))
    assert np.array_equal(resampled(audio), (left + right) / 2)


def test_sound_that_starts_late(made, tmp_path):
    picture = ("-f", "lavfi", "-i", "color=size=32x32:duration=3")
    late = ("-itsoffset", "0.5", "-i", made / "source.wav", "-map", "0:v", "-map", "1:a")
    for name in ("late.mkv", "late.ts"):
        ffmpeg(*picture, *late, "-c:v", "libx264", "-c:a", "aac", tmp_path / name)
        audio = read(tmp_path / name)
        assert audio.start == pytest.approx(0.5, abs=0.1)
        assert audio.seconds == pytest.approx(2, abs=0.12)
    assert read(made / "sound.mp3").start == read(made / "sound.m4a").start == 0


def test_blocks_are_joined(write):
    samples = tone(40)
    assert np.array_equal(resampled(read(write(samples, subtype="FLOAT"))), samples)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("more", [0, 1, 2, 7])
def test_a_part_of_a_sample_counts_as_one(write, rate, more):
    count = rate // 2 + more
    audio = read(write(tone(1, rate)[:count], rate))
    assert audio.num_samples == -(-count * SAMPLE_RATE // rate) == len(resampled(audio))


def test_loudness(write):
    import pyloudnorm

    meter = pyloudnorm.Meter(SAMPLE_RATE)
    for gain in (0.01, 1, 2):
        wave = normalized(tone(2) * gain)
        assert meter.integrated_loudness(wave) == pytest.approx(-23, abs=0.01)
    # Short bangs pass full scale; only what is written is clipped.
    bangs = np.zeros(2 * SAMPLE_RATE, np.float32)
    bangs[::8000] = 0.9
    wave = normalized(bangs)
    assert wave.max() > 1
    read_back, _ = soundfile.read(write(wave, subtype="PCM_16"), dtype="int16")
    assert np.array_equal(pcm16(wave), read_back)
    assert pcm16(wave).max() == 32767


def test_what_nobody_hears_is_left_alone(write):
    audio = read(write(tone(1) * 1e-4, subtype="FLOAT"))
    assert audio.silent
    assert np.array_equal(waveform(audio), tone(1) * np.float32(1e-4))


def test_what_it_says_of_a_file(write, tmp_path, monkeypatch):
    path = write(tone(0.5))
    audio = read(path)
    assert (audio.name, audio.seconds, audio.num_frames) == ("sound.wav", 0.5, 13)
    assert audio.load() is audio
    assert len(audio.sha256) == 64
    monkeypatch.chdir(tmp_path)
    assert read("sound.wav").name == "sound.wav"
    path.unlink()
    with pytest.raises(InputError, match=r"input audio sound\.wav"):
        waveform(audio)


# What cannot be used


def refused(source, *words):
    with pytest.raises(InputError) as caught:
        read(source)
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in text
    assert text.startswith("--input_audio ")
    assert all(word in text for word in words), text


def test_not_a_file(tmp_path):
    refused(tmp_path / "none.wav", "no such file")
    refused(tmp_path, "is a folder")


@pytest.mark.parametrize("name", ["text.wav", "text.mp3", "text.m4a", "text.raw", "text.txt", "text"])
@pytest.mark.parametrize("content", [b"", b"These are words.\n" * 500])
def test_not_audio(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "is not audio", "give a wav, mp3, flac or m4a file")


def test_an_image_is_not_audio():
    refused(ROOT / "ref_imgs/robot.png", "is not audio")


def test_a_video_without_sound(make_video):
    refused(make_video("mute.mp4", frames=10), "has no audio stream")


def test_too_short(write, tmp_path):
    refused(write(tone(0.3999375)), "lasts 0.3999375 s, less than 0.4 s", "give 0.4 to 200 s")
    refused(write(np.zeros(0, np.float32)), "lasts 0 s")
    assert read(write(tone(0.4))).seconds == 0.4
    ffmpeg("-i", write(tone(0.1)), "-c:a", "aac", tmp_path / "short.m4a")
    refused(tmp_path / "short.m4a", "less than 0.4 s")


def test_too_long(write, tmp_path):
    refused(write(np.zeros(201 * 8000, np.float32), 8000), "lasts 201 s, more than 200 s", "give 0.4 to 200")
    refused(write(np.zeros(200 * 8000 + 1, np.float32), 8000), "lasts 200.0001 s, more than 200 s")
    at_limit = read(write(np.zeros(200 * 8000, np.float32), 8000))
    assert (at_limit.seconds, at_limit.num_frames) == (200, 5000)
    ffmpeg("-f", "lavfi", "-i", "sine=duration=230:sample_rate=8000", "-c:a", "aac", tmp_path / "long.m4a")
    refused(tmp_path / "long.m4a", "lasts 230", "more than 200 s")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_a_number(write, value):
    samples = tone(1)
    samples[100] = value
    refused(write(samples, subtype="FLOAT"), "not finite")


@pytest.mark.parametrize("quiet_first", [True, False])
def test_an_mp3_that_does_not_say_how_long_it_is(write, tmp_path, quiet_first):
    """Its first frames have another bit rate than the rest: guessed from them, it lasts 28 or 3 s."""
    parts = [np.zeros(SAMPLE_RATE * 5), np.random.default_rng(0).normal(size=SAMPLE_RATE * 5) * 0.2]
    source = write(np.concatenate(parts if quiet_first else parts[::-1]))
    ffmpeg("-i", source, "-q:a", "2", "-write_xing", "0", tmp_path / "stream.mp3")
    audio = read(tmp_path / "stream.mp3")
    assert audio.seconds == pytest.approx(10, abs=0.15)
    assert len(resampled(audio)) == audio.num_samples


@pytest.mark.parametrize("name", [name for name in FILES if name != "stereo.wav"])
def test_damaged(made, tmp_path, name):
    """Refused, or as much as can be decoded; never a traceback."""
    content = bytearray((made / name).read_bytes())
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    (tmp_path / f"hole-{name}").write_bytes(content)
    for file in (tmp_path / name, tmp_path / f"hole-{name}"):
        try:
            assert read(file).seconds < 2.2
        except InputError as error:
            assert error.exit_code == 2


def test_start_up_stays_light():
    heavy = {"numpy", "soundfile", "soxr", "pyloudnorm", "scipy", "av"}
    code = f"import sys, videogen.media.audio; sys.exit({heavy} & set(sys.modules) or 0)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# The encoder's checkpoint


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(WAV2VEC, tmp_path / "wav2vec2"))


def edit(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_every_naming_gives_the_same_encoder(golden, folder, encoder):
    """Of old and new weight norm, with and without the pretraining model around it."""
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    renamed = {
        name.removeprefix("wav2vec2.")
        .replace("weight_g", "parametrizations.weight.original0")
        .replace("weight_v", "parametrizations.weight.original1"): tensor.contiguous()
        for name, tensor in tensors.items()
        if name.startswith("wav2vec2.") and not name.endswith("masked_spec_embed")
    }
    save_file(renamed, folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    other = load_component("audio_encoder", folder)
    ours, theirs = encoder.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_keeps_float32():
    module = load_component("audio_encoder", WAV2VEC, torch.bfloat16)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_the_preprocessor_is_honoured(folder, encoder):
    edit(folder / "preprocessor_config.json", do_normalize=False)
    plain = load_component("audio_encoder", folder)
    wave = tone(1)
    normal = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
    assert distance(audio_features(plain, normal, 25), audio_features(encoder, wave, 25)) < 1e-4
    assert distance(audio_features(plain, wave, 25), audio_features(encoder, wave, 25)) > 0.01
    edit(folder / "preprocessor_config.json", sampling_rate=8000)
    with pytest.raises(CheckpointError, match="8000 Hz, not 16000"):
        load_component("audio_encoder", folder)


def test_without_configs_the_shapes_tell(folder, encoder):
    (folder / "preprocessor_config.json").unlink()
    (folder / "config.json").write_text('{"num_attention_heads": 2}')
    wave = tone(1)
    other = load_component("audio_encoder", folder)
    assert torch.equal(audio_features(other, wave, 25), audio_features(encoder, wave, 25))


def test_a_strange_checkpoint_is_refused(folder):
    file = folder / "pytorch_model.bin"
    tensors = torch.load(file, weights_only=True)
    torch.save({**tensors, "surprise": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match="unexpected surprise"):
        load_component("audio_encoder", folder)
    tensors.pop("wav2vec2.encoder.layer_norm.bias")
    torch.save(tensors, file)
    with pytest.raises(CheckpointError, match=r"missing encoder.layer_norm.bias"):
        load_component("audio_encoder", folder)
    file.write_bytes(pickle.dumps({"code": Path.cwd}))
    with pytest.raises(CheckpointError, match=r"refused|broken"):
        load_component("audio_encoder", folder)
    file.unlink()
    with pytest.raises(CheckpointError, match="no tensors at all"):
        load_component("audio_encoder", folder)


def test_the_published_names_and_shapes():
    manifests = json.loads(gzip.decompress((GOLDEN / "manifests.json.gz").read_bytes()))
    (name,) = [name for name in manifests if "wav2vec2" in name]
    published = [Entry(key, tuple(shape), torch.Tensor) for key, shape in manifests[name]["tensors"].items()]
    found = rename(Path(name), published, [WAV2VEC2])
    module = build_meta_module("audio_encoder", Path(name), found, {})
    assert all(parameter.is_meta for parameter in module.parameters())
    assert module.config.num_hidden_layers == 12
