"""Input audio: any file soundfile or PyAV can decode, as the waveform that drives the talking avatar.

Published preprocessing (spec talking_avatar section 3): the mean of all channels, resampled to 16 kHz, at -23
LUFS. The decoders, the resampler and the meter are imported with the first file.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from videogen.errors import InputError, reported_as
from videogen.media.download import Fetcher, display_name, sha256_of
from videogen.media.probe import DURATION_TOLERANCE, FORMATS, MediaKind, open_container

if TYPE_CHECKING:
    import av
    import av.audio.stream
    import av.container
    import numpy as np

SAMPLE_RATE = 16000  # of the audio encoder
SHORTEST = 0.4  # seconds: one block of the loudness meter
AVATAR_FPS = 25  # video frames for every second of sound
MAX_FRAMES = 5000  # published; --max_frames_num allows more
LONGEST = MAX_FRAMES / AVATAR_FPS
MOST_FRAMES = 2 * 60 * 60 * AVATAR_FPS  # all of a sound is in memory
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
BLOCK = 1 << 18  # samples of all channels decoded at a time
ANOTHER_COPY = f"download or save it again, or {AUDIO.convert}"


@dataclass(frozen=True, kw_only=True, slots=True)
class InputAudio:
    """An audio file, or the audio of a video file, that was decoded once.

    ``rate`` and ``channels`` are the file's own; ``start`` is the seconds from the file's start to the first
    sample. ``num_samples`` are those at 16 kHz, ``seconds`` what they last. ``silent`` says that nothing can
    be heard.
    """

    path: Path
    name: str
    rate: int
    channels: int
    num_samples: int
    sha256: str
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

    def load(self) -> "InputAudio":
        """Return the audio itself: ``waveform`` decodes it when it is needed."""
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class _Decoded:
    """Mono samples, float32 [n], at the file's own rate."""

    samples: "np.ndarray"
    rate: int
    channels: int
    start: float = 0.0


def read_audio(flag: str, source: str, fetcher: Fetcher, longest: float = LONGEST) -> InputAudio:
    """Fetch a file and decode all of its audio.

    Raises:
        InputError: no such file, no sound in it, damaged, shorter than 0.4 s or longer than ``longest``.
    """
    path = fetcher.local(flag, source)
    decoded = _decode(flag, source, path, longest)
    count = _resampled_length(len(decoded.samples), decoded.rate)
    if count < SHORTEST * SAMPLE_RATE or count > longest * SAMPLE_RATE:
        raise _wrong_length(flag, source, count / SAMPLE_RATE, longest)
    return InputAudio(
        path=path,
        name=display_name(source),
        rate=decoded.rate,
        channels=decoded.channels,
        num_samples=count,
        sha256=sha256_of(path),
        silent=bool(abs(decoded.samples).max() < SILENCE),
        start=decoded.start,
    )


def waveform(audio: InputAudio) -> "np.ndarray":
    """Return the input of the audio encoder, float32 [n], 16 kHz, -23 LUFS.

    Raises:
        InputError: the file cannot be decoded any more.
    """
    return normalized(resampled(audio))


def resampled(audio: InputAudio) -> "np.ndarray":
    """Return the mean of the channels at 16 kHz, float32 [n], as librosa.load(path, sr=16000) to the bit."""
    import numpy as np  # noqa: PLC0415 - this module is loaded at start-up
    import soxr  # noqa: PLC0415

    decoded = _decode("input audio", audio.name, audio.path, MOST_FRAMES / AVATAR_FPS)
    if decoded.rate == SAMPLE_RATE:
        return decoded.samples
    samples = soxr.resample(decoded.samples, decoded.rate, SAMPLE_RATE, quality="HQ")
    count = _resampled_length(len(decoded.samples), decoded.rate)
    return np.pad(samples[:count], (0, max(0, count - len(samples))))  # soxr rounds, librosa rounds up


def samples(path: Path) -> "tuple[np.ndarray, int] | None":
    """Return the sound of a video file, float32 [channels, n], and its rate; None if it has none.

    Raises:
        InputError: the file cannot be read.
    """
    import av  # noqa: PLC0415 - this module is loaded at start-up
    import numpy as np  # noqa: PLC0415

    with open_container("path=", str(path), path, AUDIO) as container:
        if not container.streams.audio:
            return None
        planar, stream = av.AudioResampler(format="fltp"), container.streams.audio[0]
        blocks = [
            part for frame in chain(container.decode(stream), [None]) for part in planar.resample(frame)
        ]
        return np.concatenate([part.to_ndarray() for part in blocks], axis=1), blocks[0].sample_rate


def normalized(samples: "np.ndarray") -> "np.ndarray":
    """Normalize 16 kHz float32 [n] to -23 LUFS (BS.1770-4), without limiting peaks; silence is unchanged."""
    import pyloudnorm  # noqa: PLC0415 - this module is loaded at start-up

    loudness = float(pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(samples))
    if abs(loudness) > 100:  # silence: minus infinity
        return samples
    return (samples * 10 ** ((LOUDNESS - loudness) / 20)).astype("float32")


def pcm16(samples: "np.ndarray") -> "np.ndarray":
    """Convert to int16 [n], clipped at full scale, as soundfile does for PCM_16."""
    import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

    scaled = np.floor(samples.astype(np.float64) * (0x7FFFFFFF / 0x10000))
    return np.clip(scaled, -0x8000, 0x7FFF).astype(np.int16)


def _resampled_length(count: int, rate: int) -> int:
    return count if rate == SAMPLE_RATE else math.ceil(count * (SAMPLE_RATE / rate))


def _wrong_length(flag: str, source: str, seconds: float, longest: float) -> InputError:
    few = seconds < SHORTEST
    what = f"lasts {seconds:.7g} s, {'less' if few else 'more'} than {SHORTEST if few else longest:g} s"
    fix, frames = f"give {SHORTEST:g} to {longest:g} s of sound", math.ceil(seconds * AVATAR_FPS)
    more = "" if few or frames > MOST_FRAMES else f", or --max_frames_num {frames} for all of it"
    return InputError(flag, source, what, fix + more)


def _decode(flag: str, source: str, path: Path, longest: float) -> _Decoded:
    """Decode a file with soundfile if it can read it, else with PyAV."""
    import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

    decoded = _with_soundfile(flag, source, path, longest) or _with_av(flag, source, path, longest)
    if not np.isfinite(decoded.samples).all():
        raise InputError(flag, source, "holds samples that are not finite numbers", ANOTHER_COPY)
    return decoded


def _with_soundfile(flag: str, source: str, path: Path, longest: float) -> _Decoded | None:
    """Decode a file with soundfile; None if it does not know the format, or how long the file is."""
    import soundfile  # noqa: PLC0415 - this module is loaded at start-up

    try:
        sound = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, TypeError):  # TypeError: a .raw file says nothing of itself
        return None
    with (
        reported_as(lambda why: InputError(flag, source, f"cannot be decoded ({why})", ANOTHER_COPY)),
        sound,
        _silent_libraries(),
    ):
        rate, blocks = sound.samplerate, []
        if sound.format == "MP3" and not _lasts(path, sound.frames / rate):
            return None
        _check_rate(flag, source, rate)
        if sound.frames > longest * rate:
            raise _wrong_length(flag, source, sound.frames / rate, longest)
        count = max(1, BLOCK // sound.channels)
        while len(block := sound.read(count, dtype="float32", always_2d=True)):
            blocks.append(block.mean(axis=1))
        return _Decoded(samples=_joined(blocks), rate=rate, channels=sound.channels)


def _check_rate(flag: str, source: str, rate: int) -> None:
    if not 0 < rate <= HIGHEST_RATE:
        raise InputError(flag, source, f"has {rate} samples per second", f"give at most {HIGHEST_RATE}")


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
        with _open_audio("", "", path) as (container, stream):
            total = sum((p.duration or 0) * p.time_base for p in container.demux(stream) if p.size)
    except InputError:
        return True  # there is nothing better
    return abs(total - seconds) < DURATION_TOLERANCE


@contextmanager
def _open_audio(
    flag: str, source: str, path: Path
) -> "Iterator[tuple[av.container.InputContainer, av.audio.stream.AudioStream]]":
    """Open an audio or video file: its container and its first audio stream."""
    with open_container(flag, source, path, AUDIO) as container:
        if not container.streams.audio:
            what = "has no audio stream" if container.streams.video else "is not audio"
            raise InputError(flag, source, what, AUDIO.expected)
        if container.streams.audio[0].codec_context is None:
            raise InputError(flag, source, "its codec is not known here", AUDIO.convert)
        yield container, container.streams.audio[0]


def _with_av(flag: str, source: str, path: Path, longest: float = LONGEST) -> _Decoded:
    import av  # noqa: PLC0415 - this module is loaded at start-up

    blocks: list[np.ndarray] = []
    count, rate, channels, start = 0, SAMPLE_RATE, 1, 0.0
    with _open_audio(flag, source, path) as (container, stream):
        planar = av.AudioResampler(format="fltp")
        for frame in chain(container.decode(stream), [None]):  # None: what the resampler still holds
            for part in planar.resample(frame):
                if not blocks and frame is not None and frame.time is not None:
                    start = max(0.0, frame.time - (container.start_time or 0) / 1e6)
                blocks.append(part.to_ndarray().mean(axis=0))
                count, rate, channels = count + part.samples, part.sample_rate, part.layout.nb_channels
                _check_rate(flag, source, rate)
                if count > longest * rate:
                    declared = float((stream.duration or 0) * (stream.time_base or 0))
                    raise _wrong_length(flag, source, max(declared, count / rate), longest)
    return _Decoded(samples=_joined(blocks), rate=rate, channels=channels, start=start)


def _joined(blocks: "list[np.ndarray]") -> "np.ndarray":
    import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
