"""Sizes and lengths as pure arithmetic: what a request means in pixels, frames, latents and tokens."""

import math
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from videogen.errors import InputError

# Wan VAE strides and the transformer's patch: specs skyreels_v3 section 4 and 6.
TIME_STRIDE = 4
SPACE_STRIDE = 8
PATCH = 2
SIZE_UNIT = SPACE_STRIDE * PATCH
LATENT_CHANNELS = 16
# The published networks tabulate 1024 positions per axis; nobody has seen a model beyond them.
MAX_POSITIONS = 1024
LISTED_SIZES = 8  # named in a message
LONGEST = 1_000_001  # frames; half a day


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
        """Of the largest roll."""
        frames = max(roll.latent_frames for roll in self.rolls)
        grid = self.grid
        return 1, grid.channels, frames, self.height // grid.stride, self.width // grid.stride

    @property
    def tokens(self) -> int:
        """Of one forward of the largest roll."""
        frames = max(roll.latent_frames + roll.context_frames for roll in self.rolls)
        return frames * (self.height // self.grid.unit) * (self.width // self.grid.unit)


def latent_frames(num_frames: int) -> int:
    """Latent frames of a video of 4k+1 frames: one for the first frame, one for every four after it."""
    return (num_frames - 1) // TIME_STRIDE + 1


def floor_frames(num_frames: int) -> int:
    """The largest 4k+1 that is not above."""
    return (num_frames - 1) // TIME_STRIDE * TIME_STRIDE + 1


def floor_to_unit(pixels: int) -> int:
    return pixels // SIZE_UNIT * SIZE_UNIT


def bucket_size(table: Sequence[Bucket], width: int, height: int) -> tuple[int, int]:
    """(height, width) of the row whose printed ratio is nearest to height/width; the first wins a tie."""
    ratio = height / width
    _, rows, columns = min(table, key=lambda bucket: abs(bucket[0] - ratio))
    return floor_to_unit(rows), floor_to_unit(columns)


def area_size(area: int, width: int, height: int) -> tuple[int, int]:
    """(height, width) of about ``area`` pixels in an image's ratio, for Wan2.2 A14B (spec wan22 section 4).

    In the published order of float operations: 832x480 becomes 832x464 at its own area.
    """
    ratio = height / width
    return tuple(  # type: ignore[return-value]
        int(math.sqrt(pixels) // SPACE_STRIDE // PATCH) * SIZE_UNIT for pixels in (area * ratio, area / ratio)
    )


def supported_sizes(tables: Mapping[str, Sequence[Bucket]]) -> list[tuple[int, int]]:
    """Every (height, width) that the size tables can give."""
    return sorted({(floor_to_unit(h), floor_to_unit(w)) for table in tables.values() for _, h, w in table})


def choose_size(
    values: Mapping[str, object],
    tables: Mapping[str, Sequence[Bucket]],
    source: tuple[int, int],
    grid: Grid = WAN21_GRID,
    pick: Callable[[Sequence[Bucket], int, int], tuple[int, int]] = bucket_size,
) -> tuple[int, int]:
    """(height, width) from --height --width, --size, or --resolution and the (width, height) of the input.

    Args:
        pick: (rows of the class, width, height of the input) -> size.

    Raises:
        InputError: half a size, two ways of giving one, a size or class the model does not have.
    """
    height, width, size = values.get("height"), values.get("width"), values.get("size")
    if (height is None) != (width is None):
        given, other = ("--height", "--width") if width is None else ("--width", "--height")
        raise InputError(given, height or width, "needs its partner", f"give {other} as well")
    if height is not None and size is not None:
        raise InputError(
            "--size", _times(size), "not together with --height and --width", "give one of the two"
        )
    if isinstance(height, int) and isinstance(width, int):
        for flag, pixels in (("--height", height), ("--width", width)):
            if pixels > MAX_POSITIONS * SIZE_UNIT:
                most = MAX_POSITIONS * SIZE_UNIT
                raise InputError(flag, pixels, f"at most {most}", f"nearest {most}")
        return height, width
    if isinstance(size, tuple):
        return _supported(size, tables, grid)
    resolution = str(values["resolution"])
    if resolution not in tables:
        near = min(tables, key=lambda name: abs(_lines(name) - _lines(resolution)))
        raise InputError("--resolution", resolution, f"this model has {', '.join(tables)}", f"nearest {near}")
    return pick(tables[resolution], *source)


def not_4k1(flag: str, given: int, least: int = 1) -> InputError:
    """The complaint about a number of frames that is not 4k+1."""
    low = floor_frames(given)
    near = [str(count) for count in (low, low + TIME_STRIDE) if count >= least]
    return InputError(flag, given, "must be 4k+1", f"nearest {' or '.join(near)}")


def _lines(resolution: str) -> int:
    """720 of 720P."""
    return int("".join(character for character in resolution if character in string.digits) or 0)


def _supported(size: tuple[int, int], tables: Mapping[str, Sequence[Bucket]], grid: Grid) -> tuple[int, int]:
    width, height = size
    sizes = supported_sizes(tables)
    if (height, width) in sizes:
        return height, width
    near = min(sizes, key=lambda other: abs(other[0] - height) + abs(other[1] - width))
    raise InputError(
        "--size",
        f"{width}*{height}",
        f"must be {_listed(sizes)} (W*H)",
        f"nearest {near[1]}*{near[0]}; --height and --width take any multiple of {grid.unit}",
    )


def _listed(sizes: Sequence[tuple[int, int]]) -> str:
    if len(sizes) > LISTED_SIZES:
        return f"one of the model's {len(sizes)} sizes"
    return "one of " + ", ".join(f"{width}*{height}" for height, width in sizes)


def _times(size: object) -> str:
    return "*".join(str(pixels) for pixels in size) if isinstance(size, tuple) else str(size)


def choose_num_frames(
    values: Mapping[str, object], fps: int, context_frames: int | None = 0, *, after_image: bool = False
) -> int:
    """Frames from --num_frames (4k+1), else the largest 4k+1 that is at most duration * fps + 1.

    Args:
        context_frames: latent frames that the network sees besides the video; None where the video is made
            in segments, and may be of any length.
        after_image: the first frame is an input image, and there must be others.

    Raises:
        InputError: frames not 4k+1, too few, or more than the positions the network knows.
    """
    least = 1 + TIME_STRIDE * after_image
    frames = _asked_frames(values, fps, context_frames, least)
    if frames < least:
        raise InputError("--num_frames", frames, "is the input image alone", f"at least {least}")
    return frames


def _asked_frames(values: Mapping[str, object], fps: int, context_frames: int | None, least: int) -> int:
    most = LONGEST if context_frames is None else (MAX_POSITIONS - context_frames - 1) * TIME_STRIDE + 1
    given = values.get("num_frames")
    if isinstance(given, int):
        if given % TIME_STRIDE != 1:
            raise not_4k1("--num_frames", given, least)
        if given > most:
            raise InputError("--num_frames", given, f"at most {most}", f"nearest {most}")
        return given
    duration = float(str(values["duration"]))
    whole = math.floor(round(duration * fps, 6))  # 9.12 s at 25 fps are 228 frames, not 227.99999
    frames = whole // TIME_STRIDE * TIME_STRIDE + 1
    if frames > most:
        raise InputError(
            "--duration",
            f"{duration:g}",
            f"at most {math.floor(10 * most / fps) / 10:g} s at {fps} fps",
            "make several clips",
        )
    return frames
