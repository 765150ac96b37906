"""Grids of frames with captions, and contact sheets."""

import numpy as np
import pytest

from videogen.media.contact_sheet import (
    BACKGROUND,
    CELL_WIDTH,
    GAP,
    LARGEST,
    LINE,
    MISSING,
    WIDEST,
    ContactSheet,
    Grid,
    spaced,
)


def grey(level, size=(160, 96)):
    return np.full((size[1], size[0], 3), level, np.uint8)


@pytest.mark.parametrize(
    ("num_frames", "count", "wanted"),
    [
        (81, 5, [0, 20, 40, 60, 80]),
        (10, 4, [0, 3, 6, 9]),
        (3, 12, [0, 1, 2]),
        (9, 1, [4]),
        (1, 12, [0]),
        (9, 0, []),
    ],
)
def test_frames_are_evenly_spaced(num_frames, count, wanted):
    assert spaced(num_frames, count) == wanted


def test_frames_are_taken_as_they_pass():
    """Whatever the pieces are that they come in."""
    levels = np.arange(0, 90, 10)
    frames = np.stack([grey(level) for level in levels])
    for pieces in ([9], [1, 4, 4], [4, 1, 1, 3]):
        sheet = ContactSheet(9, 3, 24)
        for piece in np.split(frames, np.cumsum(pieces)[:-1]):
            sheet.add(piece)
        assert [int(frame[0, 0, 0]) for frame in sheet.frames] == [0, 40, 80]
        grid = Grid.of(2, 2, (160, 96))
        picture = np.asarray(sheet.picture())
        assert picture.shape[1::-1] == grid.pixels
        for index, level in enumerate([0, 40, 80]):
            left, top = grid.place(index)
            assert (picture[top : top + 96, left : left + 160] == level).all()
            caption = picture[top + 96 : top + 96 + LINE, left : left + 160]
            assert (caption.max(axis=(0, 1)) > 200).all(), "its time is written under it"


def test_a_cell_without_a_frame_stays_empty():
    grid = Grid.of(1, 2, (160, 96))
    picture = np.asarray(grid.draw([("a", grey(200)), ("b: none", None)]))
    left, top = grid.place(1)
    assert (picture[top : top + 96, left : left + 160] == MISSING).all()
    assert (picture[:GAP] == BACKGROUND).all()


def test_a_frame_of_another_shape_is_whole_and_in_the_middle():
    grid = Grid.of(1, 1, (160, 80))
    picture = np.asarray(grid.draw([("", grey(200, (40, 80)))]))
    row = picture[GAP + 40, GAP : GAP + 160, 0]
    assert np.flatnonzero(row == 200).tolist() == list(range(60, 100))


@pytest.mark.parametrize(
    ("rows", "columns", "shape"),
    [(1, 1, (1280, 720)), (3, 5, (481, 833)), (50, 50, (720, 1280)), (1, 200, (1280, 720)), (2, 2, (16, 16))],
)
def test_a_grid_has_room(rows, columns, shape):
    grid = Grid.of(rows, columns, shape)
    width, height = grid.pixels
    assert width % 2 == height % 2 == 0
    assert grid.size[0] <= CELL_WIDTH
    assert width <= max(WIDEST, columns * (16 + GAP) + GAP) + 1
    assert rows * columns * grid.size[0] * grid.size[1] <= LARGEST
    right, bottom = grid.place(rows * columns - 1)
    assert right + grid.size[0] + GAP <= width
    assert bottom + grid.size[1] + LINE + GAP <= height


def test_a_long_caption_is_cut():
    grid = Grid.of(1, 2, (100, 50))
    picture = np.asarray(grid.draw([("W" * 5000, grey(0)), ("", None)]))
    between = picture[GAP + grid.size[1] :, GAP + grid.size[0] : GAP + grid.size[0] + GAP]
    assert (between == BACKGROUND).all()
