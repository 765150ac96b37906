"""Input sound: golden results, formats, and what is refused."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

from tests.conftest import ROOT
from tests.sounds import CHIRP, SILENCE, distance, read, tone
from videogen.errors import InputError
from videogen.media.audio import SAMPLE_RATE, _with_av, normalized, pcm16, read_audio, resampled, waveform
from videogen.media.download import Fetcher
from videogen.media.inputs import Source

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


def ffmpeg(*arguments):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


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
    decoded = _with_av(Source("", name, audio.path))
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
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty; download it again"]),
        (b"<html>" * 500, ["is a web page"]),
        (b"These are words.\n" * 500, ["is not audio", "give a wav, mp3, flac or m4a file"]),
    ],
)
def test_not_audio(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, *words)


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


def test_longer_sound_needs_a_flag_that_allows_it(write):
    file = write(np.zeros(201 * 8000, np.float32), 8000)
    refused(file, "lasts 201 s, more than 200 s", "or --max_frames_num 5025 for all of it")
    fetcher = Fetcher(folder=file.parent)
    assert read_audio("--input_audio", str(file), fetcher, longest=201).num_frames == 5025
