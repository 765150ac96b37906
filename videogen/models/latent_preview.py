"""Latents as small pictures without their VAE: a linear map from latent channels to colours.

Shapes: latents [1, C, F, h, w], normalized as the transformer sees them; a frame [3, H, W], RGB in [0, 1].
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from videogen.checkpoints.json_files import read_json
from videogen.errors import CheckpointError
from videogen.tasks import config
from videogen.tasks.config import Config
from videogen.tasks.geometry import TIME_STRIDE

TABLE_FILE = "preview.json"  # in a model folder, in place of a published table
SIDE = 256  # pixels of a preview's longer side


class Decoder(Protocol):
    """What makes pictures of latents; ``stride`` is how many video frames each of them stands for."""

    stride: ClassVar[int]

    def frames(self, latents: Tensor) -> Iterator[Tensor]:
        """Yield the frames [3, H, W] of latents [1, C, F, h, w]."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearDecoder:
    """A linear map from latent channels to RGB in [-1, 1]: factors [C, 3] and bias [3]."""

    factors: Tensor
    bias: Tensor
    stride: ClassVar[int] = TIME_STRIDE

    def frames(self, latents: Tensor) -> Iterator[Tensor]:
        """Yield a frame [3, h, w] for each latent frame."""
        factors, bias = self.factors.to(latents.device), self.bias.to(latents.device)
        colours = functional.linear(latents[0].float().permute(1, 2, 3, 0), factors.T, bias)
        yield from ((colours + 1) / 2).clamp(0, 1).permute(0, 3, 1, 2)


def linear_decoder(vae: Config, folder: Path | None) -> LinearDecoder | None:
    """Return the linear map for the latents of a VAE: that of the model's folder, else a published one.

    Args:
        vae: config of the VAE, whose statistics tell its latents from others.
        folder: of the model.

    Raises:
        CheckpointError: the table in the folder cannot be used.
    """
    channels = vae.get("z_dim") or vae.get("latent_channels")
    if folder is not None and (file := folder / TABLE_FILE).is_file():
        table: Mapping[str, Any] = read_json(file)
        return _decoder(table, channels, str(file))
    tables = config.read("previews")
    return next(
        (_decoder(table, channels, name) for name, table in tables.items() if _is_of(table["vae"], vae)), None
    )


def _is_of(stated: Config, vae: Config) -> bool:
    """Return whether a VAE's config says what a table says of its VAE; of lists, the first numbers."""
    return all(
        list(vae.get(name) or ())[: len(value)] == value
        if isinstance(value, list)
        else vae.get(name) == value
        for name, value in stated.items()
    )


def _decoder(table: Config, channels: object, name: str) -> LinearDecoder:
    try:
        factors, bias = (torch.tensor(table[key], dtype=torch.float32) for key in ("factors", "bias"))
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError):
        raise CheckpointError(f"{name}: must hold 'factors' and 'bias', lists of numbers") from None
    if factors.shape != (channels, 3) or bias.shape != (3,):
        what = f"factors {list(factors.shape)} and bias {list(bias.shape)}"
        raise CheckpointError(f"{name}: {what}, expected [{channels}, 3] and [3]")
    return LinearDecoder(factors, bias)


def small(frames: Iterator[Tensor]) -> Tensor:
    """Return frames [3, H, W] in a preview's size, uint8 [F, H, W, 3] in RAM."""
    made = []
    for frame in frames:
        scale = SIDE / max(frame.shape[1:])
        size = [max(1, round(side * scale)) for side in frame.shape[1:]]
        scaled = functional.interpolate(frame[None], size, mode="bilinear", antialias=scale < 1)
        made.append((scaled[0].nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8))
    return torch.stack(made).permute(0, 2, 3, 1).cpu()
