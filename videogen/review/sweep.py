"""--sheet: the results of a folder, arranged by the values of two options."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np

from videogen.errors import InputError
from videogen.media.contact_sheet import Grid
from videogen.review.found import Found
from videogen.review.frames import middle_frame, open_frames
from videogen.review.outputs import new_video, save_picture
from videogen.review.settings import shown, values_of

FLAG = "--sheet"
MOST_CELLS, MOST_PLAYING = 2500, 100  # cells of a picture, and of a video, whose files are all open at once
MOST_SAID = 8  # cells in one line
Cell = tuple[str, ...]
"""The values of the options that results are arranged by."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Results by the values of options: rows, then columns. Empty cells are not in ``cells``."""

    names: tuple[str, ...]
    values: tuple[list[str], ...]
    cells: Mapping[Cell, Found]
    notes: list[str] = field(default_factory=list)

    @property
    def order(self) -> list[Cell]:
        """Return all cells, row by row."""
        return list(product(*self.values))

    def caption(self, cell: Cell) -> str:
        """Return what stands under a cell."""
        said = self.values_in(cell)
        return said if cell in self.cells else f"{said}: none"

    def values_in(self, cell: Cell) -> str:
        """Return the values of a cell in words: 'shift 3, seed 1'."""
        return ", ".join(f"{name} {value}" for name, value in zip(self.names, cell, strict=True))

    def grid(self, shape: tuple[int, int]) -> Grid:
        """Return the layout: a column for every value of the last option; of one option, a square."""
        count = len(self.order)
        columns = len(self.values[-1]) if len(self.values) > 1 else math.ceil(math.sqrt(count))
        return Grid.of(math.ceil(count / columns), columns, shape)


def arrange(results: Sequence[Found], names: Sequence[str]) -> Sweep:
    """Arrange results by options; of several results for one cell the newest counts.

    Args:
        names: of one or two options, the rows' first.
    """
    used = [found for found in results if all(name in found.request for name in names)]
    by_cell: dict[Cell, list[Found]] = {}
    for found in sorted(used, key=lambda found: found.created):
        by_cell.setdefault(tuple(shown(found.request[name]) for name in names), []).append(found)
    sweep = Sweep(
        names=tuple(names),
        values=tuple(values_of(name, used) for name in names),
        cells={cell: each[-1] for cell, each in by_cell.items()},
    )
    if unused := len(results) - len(used):
        sweep.notes.append(f"{unused} of {len(results)} results have no {' or '.join(names)}")
    if empty := [cell for cell in sweep.order if cell not in by_cell]:
        sweep.notes.append(f"no result for {_said(sweep, empty)}")
    if several := [cell for cell, each in by_cell.items() if len(each) > 1]:
        sweep.notes.append(f"several results, of which the newest is shown, for {_said(sweep, several)}")
    return sweep


def write_sweep(sweep: Sweep, output: Path) -> None:
    """Write a sweep: as a picture of middle frames (.png), or as a video in which all cells play.

    Raises:
        InputError: too many cells, or a video that cannot be read.
        OutputError: the output cannot be written.
    """
    is_picture = output.suffix.lower() == ".png"
    count, most = len(sweep.order), MOST_CELLS if is_picture else MOST_PLAYING
    if count > most:
        what = f"{' by '.join(sweep.names)} are {count} cells, more than {most}"
        raise InputError("--rows", sweep.names[0], what, "arrange by options with fewer values")
    (_draw if is_picture else _play)(sweep, output)


def _draw(sweep: Sweep, output: Path) -> None:
    frames = {cell: middle_frame(FLAG, found) for cell, found in sweep.cells.items()}
    grid = sweep.grid(_shape(frames.values()))
    save_picture(grid.draw([(sweep.caption(cell), frames.get(cell)) for cell in sweep.order]), output)


def _play(sweep: Sweep, output: Path) -> None:
    """Write a video as long as the longest; of the others the last frame stays."""
    videos = {cell: open_frames(FLAG, found) for cell, found in sweep.cells.items()}
    rates = [rate for found in sweep.cells.values() if (rate := found.number("fps"))]
    frames = {cell: next(video.each) for cell, video in videos.items()}
    grid = sweep.grid(_shape(frames.values()))
    picture = grid.draw([(sweep.caption(cell), frames.get(cell)) for cell in sweep.order])
    longest = max(video.length for video in videos.values())
    with new_video(output, grid.pixels, max(rates, default=None), longest) as writer:
        for index in range(longest):
            for place, cell in enumerate(sweep.order):
                if index and cell in videos and (frame := next(videos[cell].each, None)) is not None:
                    grid.paste(picture, place, frame)
            writer.write(np.asarray(picture)[None].copy())


def _shape(frames: Iterable[np.ndarray]) -> tuple[int, int]:
    """Return the (width, height) of the largest frame."""
    height, width = max((frame.shape[:2] for frame in frames), key=math.prod)
    return width, height


def _said(sweep: Sweep, cells: Sequence[Cell]) -> str:
    """Return a few cells in words."""
    rest = len(cells) - MOST_SAID
    said = [sweep.values_in(cell) for cell in cells[:MOST_SAID]] + [f"{rest} more"] * (rest > 0)
    return "; ".join(said)
