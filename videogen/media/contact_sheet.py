"""Pictures of many frames: a grid with a caption under each, and the contact sheet of a video."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL_WIDTH, WIDEST, LARGEST = 320, 4096, 60_000_000  # pixels: of a cell, of a grid, and of its area
NARROWEST = 96  # pixels; what is narrower is scaled up, so that its caption can be read
GAP, FONT_SIZE, LINE = 8, 14, 20  # pixels
FONT_SHARE = 50  # a heading's letters are at least this part of the width of what it is above
BACKGROUND, MISSING, INK = (24, 24, 27), (44, 44, 48), (228, 228, 231)


class Grid(NamedTuple):
    """The layout of equal cells, ``size`` (width, height) each, with a line of text under each."""

    rows: int
    columns: int
    size: tuple[int, int]

    @classmethod
    def of(cls, rows: int, columns: int, shape: tuple[int, int]) -> "Grid":
        """Return a grid whose cells have the shape (width, height), as large as there is room for."""
        room = (WIDEST - GAP) // columns - GAP
        width = max(16, min(max(shape[0], NARROWEST), CELL_WIDTH, room))
        height = max(1, round(width * shape[1] / shape[0]))
        shrink = min(1.0, math.sqrt(LARGEST / (rows * columns * width * height)))
        return cls(rows, columns, (max(16, int(width * shrink)), max(16, int(height * shrink))))

    @property
    def pixels(self) -> tuple[int, int]:
        """Return the (width, height) of the picture, even, as video codecs want it."""
        width = GAP + self.columns * (self.size[0] + GAP)
        height = GAP + self.rows * (self.size[1] + LINE + GAP)
        return width + width % 2, height + height % 2

    def place(self, index: int) -> tuple[int, int]:
        """Return the left upper corner of a cell, counted row by row."""
        row, column = divmod(index, self.columns)
        return GAP + column * (self.size[0] + GAP), GAP + row * (self.size[1] + LINE + GAP)

    def draw(self, cells: Sequence[tuple[str, np.ndarray | None]]) -> Image.Image:
        """Draw cells of (caption, frame [H, W, 3]), row by row; without a frame a cell stays empty."""
        picture = Image.new("RGB", self.pixels, BACKGROUND)
        canvas, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT_SIZE)
        for index, (caption, frame) in enumerate(cells):
            left, top = self.place(index)
            if frame is None:
                right, bottom = left + self.size[0] - 1, top + self.size[1] - 1
                canvas.rectangle((left, top, right, bottom), fill=MISSING)
            else:
                self.paste(picture, index, frame)
            text = _shortened(caption, self.size[0], font)
            canvas.text((left, top + self.size[1] + 2), text, font=font, fill=INK)
        return picture

    def paste(self, picture: Image.Image, index: int, frame: np.ndarray) -> None:
        """Put a frame [H, W, 3] into its cell, whole and in the middle."""
        (left, top), image = self.place(index), Image.fromarray(frame)
        scale = min(self.size[0] / image.width, self.size[1] / image.height)
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
        picture.paste(image, (left + (self.size[0] - width) // 2, top + (self.size[1] - height) // 2))


def headings(texts: Sequence[str], width: int) -> np.ndarray:
    """Return texts [h, width of all, 3] to put above several pictures of a ``width``; h is even."""
    size = max(FONT_SIZE, width // FONT_SHARE)
    height = 2 * round(size * LINE / FONT_SIZE / 2)
    picture = Image.new("RGB", (len(texts) * width, height), BACKGROUND)
    canvas, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    for index, text in enumerate(texts):
        said = _shortened(text, width - 2 * GAP, font)
        canvas.text((index * width + GAP, height / 2), said, font=font, fill=INK, anchor="lm")
    return np.asarray(picture)


class ContactSheet:
    """Evenly spaced frames of a video, taken while its frames pass by."""

    def __init__(self, num_frames: int, count: int, fps: float) -> None:
        self.wanted, self.fps, self.passed = spaced(num_frames, count), fps, 0
        self.frames: list[np.ndarray] = []

    def add(self, frames: np.ndarray) -> None:
        """Take what is wanted of the next frames [f, H, W, 3]."""
        passed = range(self.passed, self.passed + len(frames))
        self.frames += [frames[index - passed.start].copy() for index in self.wanted if index in passed]
        self.passed = passed.stop

    def picture(self) -> Image.Image:
        """Return the sheet: each frame with its time."""
        columns = math.ceil(math.sqrt(len(self.frames)))
        height, width = self.frames[0].shape[:2]
        grid = Grid.of(math.ceil(len(self.frames) / columns), columns, (width, height))
        captions = [f"{index / self.fps:.2f} s" for index in self.wanted]
        return grid.draw(list(zip(captions, self.frames, strict=True)))


def spaced(num_frames: int, count: int) -> list[int]:
    """Return the indices of ``count`` frames, the first and the last among them; of one the middle one."""
    count = min(count, num_frames)
    if count == 1:
        return [num_frames // 2]
    return [round(index * (num_frames - 1) / (count - 1)) for index in range(count)]


def _shortened(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return a text that is no wider than ``width``, cut where it must be."""
    text = " ".join(text.split())[:width]  # no letter is narrower than a pixel
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
