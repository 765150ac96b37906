"""Speech features for the talking avatar's transformer (wav2vec2). Spec talking_avatar section 3.

n samples at 16 kHz, F video frames at 25 per second, L encoder layers, C channels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Wav2Vec2Model

from videogen.media.inputs import MAX_FRAMES


class ConvLayer(Protocol):
    """One of wav2vec2's convolutions; ``layer_norm`` is missing from most."""

    conv: nn.Conv1d
    layer_norm: nn.GroupNorm

    def __call__(self, steps: Tensor) -> Tensor: ...

    def activation(self, steps: Tensor) -> Tensor: ...


REACH = 2  # audio feature frames before and after each video frame
STRETCH = 500  # convolution steps per chunk, 10 s
NEIGHBOURS = 500  # video frames seen on either side of a stretch, 20 s


def audio_features(encoder: Wav2Vec2Model, samples: np.ndarray, num_frames: int) -> Tensor:
    """Return the states after every layer, float32 [F, L, C], of samples [n] (``media.audio.waveform``).

    After its convolutions (about 49.9 steps per second) the features are interpolated to the video's frames,
    the first step to the first frame and the last to the last. ``encoder`` comes from
    ``components.load_component("audio_encoder")``.

    Up to 200 s, the published limit, every frame sees all others. Longer sound goes through the layers in
    stretches, with neighbours on both sides, so that memory on the device does not grow; the states are on
    the CPU then.
    """
    speech = torch.from_numpy(samples).float()[None]
    if encoder.config.do_normalize:  # as Wav2Vec2FeatureExtractor
        speech = (speech - speech.mean()) / torch.sqrt(speech.var(unbiased=False) + 1e-7)
    layers: Sequence[ConvLayer] = encoder.feature_extractor.conv_layers
    beginning = speech[:, : _reach(layers)[1]].to(encoder.device)  # the encoder may move when it is called
    at_frames: list[Tensor] = []
    made = []
    with torch.no_grad(), _exact_float32():
        for low, start, stop, high in stretches_of(num_frames):

            def seen(
                _: nn.Module, given: tuple[Tensor], __: Tensor, low: int = low, high: int = high
            ) -> Tensor:
                if not at_frames:
                    steps = speech_steps(layers, speech.to(given[0].device))
                    at_frames.append(
                        functional.interpolate(steps, size=num_frames, mode="linear", align_corners=True)
                    )
                return at_frames[0][..., low:high].to(given[0].device)

            hook = encoder.feature_extractor.register_forward_hook(seen)
            try:
                states = encoder(beginning, output_hidden_states=True).hidden_states[1:]
            finally:
                hook.remove()
            made.append(torch.stack(states, dim=2)[0, start - low : stop - low])
            if (low, high) != (0, num_frames):
                made[-1] = made[-1].cpu()
    return torch.cat(made) if len(made) > 1 else made[0]


def stretches_of(num_frames: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first frame seen, first, end, end of those seen) of the stretches of a sound."""
    if num_frames <= MAX_FRAMES:
        yield 0, 0, num_frames, num_frames
        return
    step = MAX_FRAMES - 2 * NEIGHBOURS
    for start in range(0, num_frames, step):
        stop = min(start + step, num_frames)
        yield max(0, start - NEIGHBOURS), start, stop, min(num_frames, stop + NEIGHBOURS)


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Compute in exact float32, whatever the policy for the rest is (runtime/precision.py)."""
    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(products)


def speech_steps(layers: Sequence[ConvLayer], speech: Tensor) -> Tensor:
    """Run wav2vec2's convolutions over samples [1, n] in chunks; returns [1, C, steps], as if run at once.

    Chunks save memory: the first layer's output for 200 s takes gigabytes. If it normalizes over the whole
    sound, the statistics are computed first.
    """
    hop, reach = _reach(layers)
    first, *others = layers
    whole = isinstance(getattr(first, "layer_norm", None), nn.GroupNorm)
    begin = _normalized_over_time(first, speech) if whole else first
    made = []
    for samples in _stretches(speech, hop, reach, STRETCH):
        steps = begin(samples)
        for layer in others:
            steps = layer(steps)
        made.append(steps)
    return torch.cat(made, dim=2)


def _reach(layers: Sequence[ConvLayer]) -> tuple[int, int]:
    """Return (samples from one step to the next, samples in the receptive field of a step)."""
    hop, reach = 1, 1
    for layer in layers:
        reach += (layer.conv.kernel_size[0] - 1) * hop
        hop *= layer.conv.stride[0]
    return hop, reach


def _stretches(speech: Tensor, hop: int, reach: int, count: int) -> Iterator[Tensor]:
    """Yield the samples [1, 1, m] of ``count`` steps after another."""
    total = (speech.shape[1] - reach) // hop + 1
    for start in range(0, total, count):
        end = min(start + count, total)
        yield speech[:, None, start * hop : (end - 1) * hop + reach]


def _normalized_over_time(layer: ConvLayer, speech: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a chunked form of a layer, normalizing with the whole sound's mean and variance [1, C, 1]."""
    conv, norm = layer.conv, layer.layer_norm
    moments = []
    hop, reach = _reach([layer])
    for samples in _stretches(speech, hop, reach, STRETCH * 64):
        steps = conv(samples)
        var, mean = (value.cpu().double() for value in torch.var_mean(steps, dim=2, correction=0))
        moments.append(torch.stack([mean, var + mean.square(), torch.ones_like(mean)]) * steps.shape[2])
    total, squares, count = torch.stack(moments).sum(dim=0)
    mean = (total / count)[..., None]
    scale = torch.rsqrt((squares / count)[..., None] - mean.square() + norm.eps)
    mean, scale = mean.to(speech), scale.to(speech) * norm.weight[:, None]
    return lambda samples: layer.activation((conv(samples) - mean) * scale + norm.bias[:, None])


def audio_windows(features: Tensor, start: int, count: int) -> Tensor:
    """Return windows [1, count, 5, L, C] of features [F, L, C] around ``count`` frames from ``start``.

    A window beyond either end repeats the first or last frame.
    """
    offsets = torch.arange(-REACH, REACH + 1, device=features.device)
    frames = torch.arange(start, start + count, device=features.device)
    return features[(frames[:, None] + offsets).clamp(0, len(features) - 1)][None]
