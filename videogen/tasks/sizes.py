"""Size and length of a video, from the options and the size tables of a model."""

import math
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from videogen.errors import InputError
from videogen.tasks.geometry import (
    MAX_POSITIONS,
    SIZE_UNIT,
    TIME_STRIDE,
    WAN21_GRID,
    Bucket,
    Grid,
    bucket_size,
    floor_frames,
    floor_to_unit,
)
from videogen.tasks.options import Size

LISTED_SIZES = 8  # named in a message
MAX_FRAMES = 1_000_001  # frames; half a day


class Picture(Protocol):
    """An image, or a frame of a video."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...


Inputs = Mapping[str, Sequence[Any]]
"""Input files of a request, opened and checked (InputImage, InputVideo), by the name of their flag."""
SizeTables = Mapping[str, Sequence[Bucket]]
"""Size classes of a model, by name."""


def choose_size(
    options: Size,
    tables: Mapping[str, Sequence[Bucket]],
    source: tuple[int, int],
    grid: Grid = WAN21_GRID,
    pick: Callable[[Sequence[Bucket], int, int], tuple[int, int]] = bucket_size,
) -> tuple[int, int]:
    """Return (height, width) from --height --width, --size, or --resolution and the input's (width, height).

    Args:
        pick: (rows of the class, width, height of the input) -> size.

    Raises:
        InputError: half a size, two ways of giving one, one that is no multiple of the grid's unit, a size or
            class the model does not have.
    """
    height, width, size = options.height, options.width, options.size
    if (height is None) != (width is None):
        given, other = ("--height", "--width") if width is None else ("--width", "--height")
        raise InputError(given, height or width, "needs its partner", f"give {other} as well")
    if height is not None and width is not None:
        if size is not None:
            what, fix = "not together with --height and --width", "give one of the two"
            raise InputError("--size", f"{size[0]}*{size[1]}", what, fix)
        most = MAX_POSITIONS * SIZE_UNIT
        for flag, side in (("--height", height), ("--width", width)):
            if side > most:
                raise InputError(flag, side, f"at most {most}", f"nearest {most}")
            if side % grid.unit:
                fit = max(grid.unit, round(side / grid.unit) * grid.unit)
                raise InputError(flag, side, f"must be a multiple of {grid.unit}", f"nearest {fit}")
        return height, width
    if size is not None:
        return _supported(size, tables, grid)
    resolution = str(options.resolution)
    if resolution not in tables:
        near = min(tables, key=lambda name: abs(_lines(name) - _lines(resolution)))
        raise InputError("--resolution", resolution, f"this model has {', '.join(tables)}", f"nearest {near}")
    return pick(tables[resolution], *source)


def not_4k1(flag: str, given: int, least: int = 1) -> InputError:
    """Return the error for a number of frames that is not 4k+1."""
    low = floor_frames(given)
    near = [str(count) for count in (low, low + TIME_STRIDE) if count >= least]
    return InputError(flag, given, "must be 4k+1", f"nearest {' or '.join(near)}")


def _lines(resolution: str) -> int:
    """Return 720 for 720P, and thousands for 2K and 4K."""
    digits = "".join(character for character in resolution if character in string.digits)
    return int(digits or 0) * (1000 if resolution.upper().endswith("K") else 1)


def _supported(size: tuple[int, int], tables: Mapping[str, Sequence[Bucket]], grid: Grid) -> tuple[int, int]:
    """Return the (height, width) of a (width, height) that the size tables can give."""
    width, height = size
    sizes = sorted({(floor_to_unit(h), floor_to_unit(w)) for table in tables.values() for _, h, w in table})
    if (height, width) in sizes:
        return height, width
    listed = "one of " + ", ".join(f"{w}*{h}" for h, w in sizes)
    if len(sizes) > LISTED_SIZES:
        listed = f"one of the model's {len(sizes)} sizes"
    near = min(sizes, key=lambda other: abs(other[0] - height) + abs(other[1] - width))
    fix = f"nearest {near[1]}*{near[0]}; --height and --width take any multiple of {grid.unit}"
    raise InputError("--size", f"{width}*{height}", f"must be {listed} (W*H)", fix)


def choose_num_frames(
    options: Size, fps: int, context_frames: int | None = 0, *, after_image: bool = False
) -> int:
    """Return the frames from --num_frames (4k+1), else the largest 4k+1 that is at most duration * fps + 1.

    Args:
        context_frames: latent frames that the network sees besides the video; None where the video is made
            in segments, and may be of any length.
        after_image: the first frame is an input image, and there must be others.

    Raises:
        InputError: frames not 4k+1, too few, or more than the positions the network knows.
    """
    least = 1 + TIME_STRIDE * after_image
    frames = _asked_frames(options, fps, context_frames, least)
    if frames < least:
        raise InputError("--num_frames", frames, "is the input image alone", f"at least {least}")
    return frames


def _asked_frames(options: Size, fps: int, context_frames: int | None, least: int) -> int:
    most = MAX_FRAMES if context_frames is None else (MAX_POSITIONS - context_frames - 1) * TIME_STRIDE + 1
    if (given := options.num_frames) is not None:
        if given % TIME_STRIDE != 1:
            raise not_4k1("--num_frames", given, least)
        if given > most:
            raise InputError("--num_frames", given, f"at most {most}", f"nearest {most}")
        return given
    assert options.duration is not None
    whole = math.floor(round(options.duration * fps, 6))  # 9.12 s at 25 fps are 228 frames, not 227.99999
    frames = whole // TIME_STRIDE * TIME_STRIDE + 1
    if frames > most:
        what = f"at most {math.floor(10 * most / fps) / 10:g} s at {fps} fps"
        raise InputError("--duration", f"{options.duration:g}", what, "make several clips")
    return frames
