"""Speech to the features that the talking avatar's transformer hears. Spec talking_avatar section 3.

n samples at 16 kHz, F video frames at 25 per second, L encoder layers, C channels.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Wav2Vec2Model

REACH = 2  # frames heard before and after each


def audio_features(encoder: Wav2Vec2Model, samples: np.ndarray, num_frames: int) -> Tensor:
    """Samples [n] (``media.sound.waveform``) to the states after every layer, float32 [F, L, C].

    Between its convolutions (about 49.9 steps per second) and its layers, the encoder is brought to the
    frames of the video; the first step falls on the first frame, the last on the last. ``encoder`` is
    ``build.load_component("audio_encoder")``'s.
    """
    speech = torch.from_numpy(samples).to(encoder.device, torch.float32)
    if encoder.config.do_normalize:  # as Wav2Vec2FeatureExtractor
        speech = (speech - speech.mean()) / torch.sqrt(speech.var(unbiased=False) + 1e-7)

    def at_frames(module: nn.Module, arguments: tuple[Any, ...], steps: Tensor) -> Tensor:  # noqa: ARG001
        return functional.interpolate(steps, size=num_frames, mode="linear", align_corners=True)

    hook = encoder.feature_extractor.register_forward_hook(at_frames)
    try:
        with torch.no_grad():
            states = encoder(speech[None], output_hidden_states=True).hidden_states
    finally:
        hook.remove()
    return torch.stack(states[1:], dim=2)[0]


def audio_windows(features: Tensor, start: int, count: int) -> Tensor:
    """Features [F, L, C] around each of ``count`` frames from ``start`` on: [1, count, 5, L, C].

    Where a window reaches over an end, the first or last frame is repeated.
    """
    offsets = torch.arange(-REACH, REACH + 1, device=features.device)
    frames = torch.arange(start, start + count, device=features.device)
    return features[(frames[:, None] + offsets).clamp(0, len(features) - 1)][None]
