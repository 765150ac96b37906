"""From decoded frames to what is shown: fields, pixel shape, colours, transparency, orientation."""

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av import VideoFrame
from av.filter import Graph

from videogen.media.hdr import BT2020_MATRIX, UNSTATED, Colours, colours_of, to_sdr

# swscale's SWS_BICUBIC | SWS_FULL_CHR_H_INP; without the second, every other pixel may give no chroma.
SCALING = 0x4 | 0x2000
SQUARE = 0.02  # of the ratio; less than that is what scaling to whole pixels leaves
WIDEST = 8  # times as wide as high, or as high as wide, may a pixel be; what is more is an error in the file


class Orientation(NamedTuple):
    """Operations that make a decoded frame upright, in this order."""

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How the frames of a video are shown, as its first frame and its container say.

    Args:
        stored: (width, height) as decoded.
        size: (width, height) upright, with square pixels.
        colours: what must be converted to SDR; None if nothing must.
        interlaced: frames are made of two fields.
        transparent: frames have an alpha channel.
    """

    stored: tuple[int, int]
    size: tuple[int, int]
    orientation: Orientation
    colours: Colours | None = None
    interlaced: bool = False
    transparent: bool = False

    @property
    def is_plain(self) -> bool:
        """Return whether any decoder shows the frames right, if it obeys matrix and range."""
        width, height = reversed(self.stored) if self.orientation.transposed else self.stored
        changed = self.colours is not None or self.interlaced or self.transparent
        return not changed and self.size == (width, height)


def look_of(picture: VideoFrame, pixel: Fraction | None) -> tuple[Look, list[str]]:
    """Return how a video is shown, from its first frame and the shape of its pixels, and what to say."""
    notes, stored = [], (picture.width, picture.height)
    if pixel and not Fraction(1, WIDEST) <= pixel <= WIDEST:
        shape = f"{pixel.numerator}:{pixel.denominator}"
        notes.append(f"states pixels of the shape {shape}, which are taken as square")
        pixel = None
    width = round(stored[0] * pixel / 2) * 2 if pixel and abs(pixel - 1) > SQUARE else stored[0]
    orientation = _orientation(picture)
    tags = picture.color_trc, picture.color_primaries, picture.colorspace
    colours = colours_of(*map(int, tags))
    transparent = any(component.is_alpha for component in picture.format.components)
    if colours is not None:
        notes.append(colours.note)
    if picture.interlaced_frame:
        notes.append("is interlaced and is deinterlaced")
    if transparent and picture.to_ndarray(format="rgba")[..., 3].min() < 255:
        notes.append("has transparent pixels, which are shown on white")
    look = Look(
        stored=stored,
        size=(stored[1], width) if orientation.transposed else (width, stored[1]),
        orientation=orientation,
        colours=colours,
        interlaced=picture.interlaced_frame,
        transparent=transparent,
    )
    return look, notes


def _orientation(picture: VideoFrame) -> Orientation:
    """Return the orientation that a frame's display matrix asks for, to the nearest right angle.

    The matrix's rows are (a, b, u), (c, d, v), (x, y, w); a pixel at (x, y) is shown at (ax + cy, bx + dy).
    """
    matrix: Any = picture.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    if abs(b) > abs(a):
        return Orientation(transposed=True, mirrored=c < 0, flipped=b < 0)
    return Orientation(mirrored=a < 0, flipped=d < 0)


def to_rgb(picture: VideoFrame, look: Look, size: tuple[int, int] | None) -> np.ndarray:
    """Convert a frame to upright uint8 RGB [H, W, 3] of ``size``, by way of the first frame's size."""
    (width, height), orientation = look.stored, look.orientation
    if look.colours is not None:
        if look.colours.is_hdr and int(picture.colorspace) == UNSTATED:
            picture.colorspace = BT2020_MATRIX
        image = to_sdr(picture.to_ndarray(format="rgb48le", width=width, height=height), look.colours)
    elif look.transparent:
        image = picture.to_ndarray(format="rgba", width=width, height=height)
        colour, alpha = image[..., :3].astype(np.uint16), image[..., 3:].astype(np.uint16)
        image = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)  # on white
    else:
        image = picture.to_ndarray(format="rgb24", width=width, height=height)
    if orientation.transposed:
        image = image.transpose(1, 0, 2)
    if orientation.mirrored:
        image = image[:, ::-1]
    if orientation.flipped:
        image = image[::-1]
    return scaled(np.ascontiguousarray(image), size or look.size)


def scaled(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Scale uint8 RGB [H, W, 3] to ``size`` (width, height) with swscale's bicubic filter."""
    if size in (None, (image.shape[1], image.shape[0])):
        return image
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(image))
    return frame.reformat(*size, interpolation=SCALING).to_ndarray()


class _Deinterlacer:
    """A filter that makes one whole frame of the two fields of each; it looks one frame ahead."""

    def __init__(self, picture: VideoFrame) -> None:
        self.kind = (picture.width, picture.height, picture.format.name)
        self.graph, self.waiting = Graph(), deque[int | None]()
        source = self.graph.add_buffer(
            width=picture.width,
            height=picture.height,
            format=picture.format,
            time_base=picture.time_base or Fraction(1, 1000),
        )
        field_filter = self.graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        self.graph.link_nodes(source, field_filter, self.graph.add("buffersink")).configure()

    def frames_of(self, picture: VideoFrame | None) -> Iterator[VideoFrame]:
        """Yield what is ready after one more frame, or with None the rest."""
        if picture is not None:
            self.waiting.append(picture.pts)
        self.graph.vpush(picture)
        while self.waiting:
            try:
                shown = self.graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            shown.pts = self.waiting.popleft()  # the filter counts half ticks
            yield shown


def deinterlaced(pictures: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    """Yield a whole frame for every frame of two fields, with its time."""
    current: _Deinterlacer | None = None
    for picture in pictures:
        if current is None or current.kind != (picture.width, picture.height, picture.format.name):
            if current is not None:
                yield from current.frames_of(None)
            current = _Deinterlacer(picture)
        yield from current.frames_of(picture)
    if current is not None:
        yield from current.frames_of(None)
