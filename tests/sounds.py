"""Golden sounds, one that is made up, and the distance to what is published."""

from pathlib import Path

import numpy as np
import torch

from videogen.media.audio import SAMPLE_RATE, read_audio
from videogen.media.download import Fetcher

CHIRP, SILENCE = "talking_avatar/audio_front_end_chirp", "talking_avatar/audio_front_end_silence"
SHORT = "talking_avatar/e2e_single_clip_short_audio"  # at 22050 Hz


def read(source, flag="--input_audio"):
    return read_audio(flag, str(source), Fetcher(folder=Path()))


def tone(seconds, rate=SAMPLE_RATE):
    """A voice-like sweep, float32, at most 0.5."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (200 + 150 * time) * time) * np.sin(np.pi * 3 * time)).astype(np.float32)


def distance(ours, published):
    assert tuple(ours.shape) == tuple(published.shape)
    return float((torch.as_tensor(ours).double() - published.double()).abs().max())
