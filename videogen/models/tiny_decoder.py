"""Decoder of TAEHV, a tiny autoencoder of video: quick pictures of latents, for previews.

Shapes: a latent frame [1, C, h, w], normalized as the transformer sees it; a frame [3, H, W], RGB in [0, 1].
Every layer takes a stream of frames and gives one, so no more than a frame per layer is in memory. A block
sees the frame before as well; a growing layer makes several frames of one. The first frames of all are
dropped, because the first latent frame stands for a single one.

Names of parameters are those of the published files (github.com/madebyollin/taehv).
"""

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from videogen.checkpoints.key_maps import KeyTable
from videogen.checkpoints.tiny_autoencoder import FIRST, WIDTHS, DecoderSizes, decoder_sizes
from videogen.models.weight_loader import load_weights, meta_module, read_entries

NAMES = (KeyTable(fingerprint=rf"^{FIRST}$", ignored=r"^encoder\."),)
LIMIT = 3  # latents are bent to stay below it
BLOCKS = 3  # of each stage


class Bounded(nn.Module):
    """Bends latents to within ``LIMIT``."""

    def forward(self, latents: Tensor) -> Tensor:
        return torch.tanh(latents / LIMIT) * LIMIT


class MemoryBlock(nn.Module):
    """Residual block that sees a frame [1, D, h, w] and the one before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (2 * width, width, width, width)
        convolutions = [nn.Conv2d(*pair, 3, padding=1) for pair in pairwise(widths)]
        self.conv = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2])

    def stream(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yield a frame for each; before the first there is zero."""
        before = None
        for frame in frames:
            seen = torch.zeros_like(frame) if before is None else before
            before = frame
            yield functional.relu(self.conv(torch.cat([frame, seen], dim=1)) + frame)


class Growth(nn.Module):
    """Makes ``count`` frames of each."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.conv = nn.Conv2d(width, width * count, 1, bias=False)

    def stream(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yield the frames that each becomes."""
        for frame in frames:
            yield from self.conv(frame).chunk(self.count, dim=1)


class TinyDecoder(nn.Module):
    """The network; ``stride``: every frame that it makes stands for one of the video."""

    stride: ClassVar[int] = 1

    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__()
        self.patch, self.dropped = sizes.patch, prod(sizes.growth) - 1
        layers: list[nn.Module] = [
            Bounded(),
            nn.Conv2d(sizes.channels, WIDTHS[0], 3, padding=1),
            nn.ReLU(),
        ]
        for (width, after), count in zip(pairwise(WIDTHS), sizes.growth, strict=True):
            layers += [MemoryBlock(width) for _ in range(BLOCKS)]
            layers += [nn.Upsample(scale_factor=2), Growth(width, count)]
            layers += [nn.Conv2d(width, after, 3, padding=1, bias=False)]
        colours = 3 * sizes.patch**2
        layers += [nn.ReLU(), nn.Conv2d(WIDTHS[-1], colours, 3, padding=1)]
        self.decoder = nn.Sequential(*layers)

    @torch.no_grad()
    def frames(self, latents: Tensor) -> Iterator[Tensor]:
        """Yield the 4 (F - 1) + 1 frames of latents [1, C, F, h, w]."""
        first = next(self.parameters())
        stream: Iterator[Tensor] = iter(latents.to(first).unbind(dim=2))
        for layer in self.decoder:
            stream = layer.stream(stream) if isinstance(layer, MemoryBlock | Growth) else map(layer, stream)
        for number, frame in enumerate(stream):
            if number >= self.dropped:
                pixels = functional.pixel_shuffle(frame, self.patch)
                yield pixels[0].float().clamp(0, 1)


def load_tiny_decoder(file: Path, device: torch.device) -> TinyDecoder:
    """Return the decoder of a published file, on a device; in float16 on a GPU.

    Raises:
        CheckpointError: a file that cannot be read, or of another network.
    """
    found = read_entries(file, NAMES)
    sizes = decoder_sizes(file, {name: entry.shape for name, entry in found.items()})
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    module = meta_module(lambda: TinyDecoder(sizes), file, found)
    decoder = load_weights(module, found, lambda _: dtype, device)
    assert isinstance(decoder, TinyDecoder)
    return decoder.eval()
