"""Input audio: any file soundfile or PyAV can decode, as the waveform that drives the talking avatar.

Published preprocessing (spec talking_avatar section 3): the mean of all channels, resampled to 16 kHz, at -23
LUFS.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer

from videogen.errors import InputError
from videogen.media.download import Fetcher, display_name, sha256_of
from videogen.media.inputs import (
    AVATAR_FPS,
    MAX_FRAMES,
    MOST_FRAMES,
    SAMPLE_RATE,
    InputFile,
    Source,
)
from videogen.media.probe import DURATION_TOLERANCE, FORMATS, MediaKind, open_container

SHORTEST = 0.4  # seconds: one block of the loudness meter
MAX_SECONDS = MAX_FRAMES / AVATAR_FPS
HIGHEST_RATE = 384_000  # Hz
LOUDNESS = -23.0  # LUFS, EBU R 128's target
SILENCE = 10 ** (-70 / 20)  # peak; -70 LUFS is the meter's gate, below which nothing is counted
# Containers PyAV may open: those of videos, and of sound alone that libsndfile does not read.
AUDIO = MediaKind(
    f"{FORMATS},aac,mp3,wav,flac,ac3,eac3,amr,caf,aiff",
    rejected="is not audio, or not all of it",
    expected="give a wav, mp3, flac or m4a file, or a video with sound",
    convert="convert it to wav",
)
NOTHING = np.zeros(0, np.float32)
BLOCK = 1 << 18  # samples of all channels decoded at a time
ANOTHER_COPY = f"download or save it again, or {AUDIO.convert}"


@dataclass(frozen=True, kw_only=True, slots=True)
class InputAudio(InputFile):
    """An audio file, or the audio of a video file, that was decoded once.

    ``rate`` and ``channels`` are the file's own; ``start`` is the seconds from the file's start to the first
    sample. ``num_samples`` are those at 16 kHz, ``seconds`` what they last. ``silent`` says that nothing can
    be heard.
    """

    rate: int
    channels: int
    num_samples: int
    silent: bool
    start: float = 0.0

    @property
    def seconds(self) -> float:
        """Duration at 16 kHz."""
        return self.num_samples / SAMPLE_RATE

    @property
    def num_frames(self) -> int:
        """Number of video frames, rounded up; in floating point, as published."""
        return math.ceil(self.seconds * AVATAR_FPS)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Decoded:
    """Mono samples, float32 [n], at the file's own rate."""

    samples: np.ndarray
    rate: int
    channels: int
    start: float = 0.0


def read_audio(flag: str, source: str, fetcher: Fetcher, longest: float = MAX_SECONDS) -> InputAudio:
    """Fetch a file and decode all of its audio.

    Raises:
        InputError: no such file, no sound in it, damaged, shorter than 0.4 s or longer than ``longest``.
    """
    file = Source(flag, source, fetcher.local(flag, source))
    decoded = _decode(file, longest)
    count = _resampled_length(len(decoded.samples), decoded.rate)
    if count < SHORTEST * SAMPLE_RATE or count > longest * SAMPLE_RATE:
        raise _wrong_length(file, count / SAMPLE_RATE, longest)
    return InputAudio(
        path=file.path,
        name=display_name(source),
        rate=decoded.rate,
        channels=decoded.channels,
        num_samples=count,
        sha256=sha256_of(file.path),
        silent=bool(abs(decoded.samples).max() < SILENCE),
        start=decoded.start,
    )


def waveform(audio: InputAudio) -> np.ndarray:
    """Return the input of the audio encoder, float32 [n], 16 kHz, -23 LUFS.

    Raises:
        InputError: the file cannot be decoded any more.
    """
    return normalized(resampled(audio))


def resampled(audio: InputAudio) -> np.ndarray:
    """Return the mean of the channels at 16 kHz, float32 [n], as librosa.load(path, sr=16000) to the bit."""
    import soxr  # noqa: PLC0415 - only for sound

    decoded = _decode(Source("input audio", audio.name, audio.path), MOST_FRAMES / AVATAR_FPS)
    if decoded.rate == SAMPLE_RATE:
        return decoded.samples
    samples = soxr.resample(decoded.samples, decoded.rate, SAMPLE_RATE, quality="HQ")
    count = _resampled_length(len(decoded.samples), decoded.rate)
    return np.pad(samples[:count], (0, max(0, count - len(samples))))  # soxr rounds, librosa rounds up


def samples(path: Path) -> tuple[np.ndarray, int] | None:
    """Return the sound of a video file, float32 [channels, n], and its rate; None if it has none.

    Raises:
        InputError: the file cannot be read.
    """
    with open_container(Source("path=", str(path), path), AUDIO) as container:
        if not container.streams.audio:
            return None
        planar, stream = av.AudioResampler(format="fltp"), container.streams.audio[0]
        frames = chain(container.decode(stream), [None])  # None: what the resampler still holds
        blocks = [part for frame in frames for part in planar.resample(frame)]
        return np.concatenate([part.to_ndarray() for part in blocks], axis=1), blocks[0].sample_rate


def normalized(samples: np.ndarray) -> np.ndarray:
    """Normalize 16 kHz float32 [n] to -23 LUFS (BS.1770-4), without limiting peaks; silence is unchanged."""
    import pyloudnorm  # noqa: PLC0415 - with scipy, one second

    loudness = float(pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(samples))
    if abs(loudness) > 100:  # silence: minus infinity
        return samples
    return (samples * 10 ** ((LOUDNESS - loudness) / 20)).astype("float32")


def pcm16(samples: np.ndarray) -> np.ndarray:
    """Convert to int16 [n], clipped at full scale, as soundfile does for PCM_16."""
    scaled = np.floor(samples.astype(np.float64) * (0x7FFFFFFF / 0x10000))
    return np.clip(scaled, -0x8000, 0x7FFF).astype(np.int16)


def _resampled_length(count: int, rate: int) -> int:
    return count if rate == SAMPLE_RATE else math.ceil(count * (SAMPLE_RATE / rate))


def _wrong_length(source: Source, seconds: float, longest: float) -> InputError:
    few = seconds < SHORTEST
    what = f"lasts {seconds:.7g} s, {'less' if few else 'more'} than {SHORTEST if few else longest:g} s"
    fix, frames = f"give {SHORTEST:g} to {longest:g} s of sound", math.ceil(seconds * AVATAR_FPS)
    more = "" if few or frames > MOST_FRAMES else f", or --max_frames_num {frames} for all of it"
    return source.error(what, fix + more)


def _decode(source: Source, longest: float) -> _Decoded:
    """Decode a file with soundfile if it can read it, else with PyAV."""
    decoded = _with_soundfile(source, longest) or _with_av(source, longest)
    if not np.isfinite(decoded.samples).all():
        raise source.error("holds samples that are not finite numbers", ANOTHER_COPY)
    return decoded


def _with_soundfile(source: Source, longest: float) -> _Decoded | None:
    """Decode a file with soundfile; None if it does not know the format, or how long the file is."""
    import soundfile  # noqa: PLC0415 - only for sound

    try:
        sound = soundfile.SoundFile(source.path)
    except (soundfile.SoundFileError, TypeError):  # TypeError: a .raw file says nothing of itself
        return None
    with source.reported(ANOTHER_COPY), sound, _silent_libraries():
        rate, blocks = sound.samplerate, []
        if sound.format == "MP3" and not _lasts(source.path, sound.frames / rate):
            return None
        _check_rate(source, rate)
        if sound.frames > longest * rate:
            raise _wrong_length(source, sound.frames / rate, longest)
        count = max(1, BLOCK // sound.channels)
        while len(block := sound.read(count, dtype="float32", always_2d=True)):
            blocks.append(block.mean(axis=1))
        return _Decoded(samples=np.concatenate([NOTHING, *blocks]), rate=rate, channels=sound.channels)


def _check_rate(source: Source, rate: int) -> None:
    if not 0 < rate <= HIGHEST_RATE:
        raise source.error(f"has {rate} samples per second", f"give at most {HIGHEST_RATE}")


@contextmanager
def _silent_libraries() -> Iterator[None]:
    """Suppress the messages that libmpg123 prints to stderr about intact files."""
    with Path(os.devnull).open("wb") as nowhere:
        stderr = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _lasts(path: Path, seconds: float) -> bool:
    """Return whether the packets of an MP3 add up to ``seconds``.

    If its first frame does not state the length, libsndfile guesses it from the bit rate.
    """
    try:
        with _open_audio(Source("", "", path)) as (container, stream):
            total = sum((p.duration or 0) * p.time_base for p in container.demux(stream) if p.size)
    except InputError:
        return True  # there is nothing better
    return abs(total - seconds) < DURATION_TOLERANCE


@contextmanager
def _open_audio(source: Source) -> Iterator[tuple[InputContainer, AudioStream]]:
    """Open an audio or video file: its container and its first audio stream."""
    with open_container(source, AUDIO) as container:
        if not container.streams.audio:
            what = "has no audio stream" if container.streams.video else "is not audio"
            raise source.error(what, AUDIO.expected)
        if container.streams.audio[0].codec_context is None:
            raise source.error("its codec is not known here", AUDIO.convert)
        yield container, container.streams.audio[0]


def _with_av(source: Source, longest: float = MAX_SECONDS) -> _Decoded:
    blocks: list[np.ndarray] = []
    count, rate, channels, start = 0, SAMPLE_RATE, 1, 0.0
    with _open_audio(source) as (container, stream):
        planar = av.AudioResampler(format="fltp")
        for frame in chain(container.decode(stream), [None]):  # None: what the resampler still holds
            for part in planar.resample(frame):
                if not blocks and frame is not None and frame.time is not None:
                    start = max(0.0, frame.time - (container.start_time or 0) / 1e6)
                blocks.append(part.to_ndarray().mean(axis=0))
                count, rate, channels = count + part.samples, part.sample_rate, part.layout.nb_channels
                _check_rate(source, rate)
                if count > longest * rate:
                    declared = float((stream.duration or 0) * (stream.time_base or 0))
                    raise _wrong_length(source, max(declared, count / rate), longest)
    return _Decoded(samples=np.concatenate([NOTHING, *blocks]), rate=rate, channels=channels, start=start)
