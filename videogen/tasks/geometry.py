"""Sizes and lengths as pure arithmetic: what a request means in pixels, frames, latents and tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Wan VAE strides and the transformer's patch: specs skyreels_v3 section 4 and 6.
TIME_STRIDE = 4
SPACE_STRIDE = 8
PATCH = 2
SIZE_UNIT = SPACE_STRIDE * PATCH
LATENT_CHANNELS = 16
# The published networks tabulate 1024 positions per axis; nobody has seen a model beyond them.
MAX_POSITIONS = 1024


@dataclass(frozen=True, slots=True)
class Grid:
    """What a VAE makes of pixels: latent channels, and pixels per latent pixel, each side."""

    channels: int = LATENT_CHANNELS
    stride: int = SPACE_STRIDE
    frames_at_once: int | None = None  # video frames that are always decoded together, in tiles

    @property
    def unit(self) -> int:
        """Pixels per token, each side."""
        return self.stride * PATCH


WAN21_GRID = Grid()

Bucket = tuple[float, int, int]  # ratio height/width, height, width


@dataclass(frozen=True, kw_only=True, slots=True)
class Roll:
    """One run of the denoising loop.

    Args:
        latent_frames: that are denoised.
        context_frames: latent frames that the network sees besides them.
        num_frames: video frames that it adds to the result.
        steps: of the loop, where they are not num_inference_steps.
    """

    latent_frames: int
    context_frames: int = 0
    num_frames: int
    steps: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What one generation looks like: the size it is made in, and its rolls, in order.

    ``prepended`` frames of the source come first in the file; ``canvas`` is the (width, height) of the file
    where it is not the size the video is made in. The VAE encodes ``encoded_frames`` in one piece: 0 is
    none, 1 a picture, more a video. ``known_first``: the first latent frame has a noise level of its own.
    """

    height: int
    width: int
    fps: int
    rolls: tuple[Roll, ...]
    forwards_per_step: int = 1
    prepended: int = 0
    canvas: tuple[int, int] | None = None
    grid: Grid = WAN21_GRID
    encoded_frames: int = 0
    known_first: bool = False

    @property
    def file_size(self) -> tuple[int, int]:
        """(width, height) of the file."""
        return self.canvas or (self.width, self.height)

    @property
    def file_frames(self) -> int:
        """Frames of the file."""
        return self.prepended + self.num_frames

    @property
    def num_frames(self) -> int:
        """Video frames that are made."""
        return sum(roll.num_frames for roll in self.rolls)

    @property
    def latent_shape(self) -> tuple[int, int, int, int, int]:
        """Return the shape of the largest segment."""
        frames = max(roll.latent_frames for roll in self.rolls)
        grid = self.grid
        return 1, grid.channels, frames, self.height // grid.stride, self.width // grid.stride

    @property
    def tokens(self) -> int:
        """Return the tokens of one forward of the largest segment."""
        frames = max(roll.latent_frames + roll.context_frames for roll in self.rolls)
        return frames * (self.height // self.grid.unit) * (self.width // self.grid.unit)


def latent_frames(num_frames: int) -> int:
    """Return the latent frames of a video of 4k+1 frames: one for the first, one for every four after it."""
    return (num_frames - 1) // TIME_STRIDE + 1


def video_frames(latent_frames: int) -> int:
    """Return the frames of a video of so many latent frames."""
    return (latent_frames - 1) * TIME_STRIDE + 1


def floor_frames(num_frames: int) -> int:
    """Return the largest 4k+1 that is not above."""
    return (num_frames - 1) // TIME_STRIDE * TIME_STRIDE + 1


def floor_to_unit(pixels: int) -> int:
    """Round down to a multiple of 16."""
    return pixels // SIZE_UNIT * SIZE_UNIT


def bucket_size(table: Sequence[Bucket], width: int, height: int) -> tuple[int, int]:
    """Return (height, width) of the row whose printed ratio is nearest; the first wins a tie."""
    ratio = height / width
    _, rows, columns = min(table, key=lambda bucket: abs(bucket[0] - ratio))
    return floor_to_unit(rows), floor_to_unit(columns)


def area_size(area: int, width: int, height: int) -> tuple[int, int]:
    """Return (height, width) of about ``area`` pixels in an image's ratio (spec wan22 section 4, A14B).

    In the published order of float operations: 832x480 becomes 832x464 at its own area.
    """
    ratio = height / width
    return tuple(  # type: ignore[return-value]
        int(math.sqrt(pixels) // SPACE_STRIDE // PATCH) * SIZE_UNIT for pixels in (area * ratio, area / ratio)
    )
