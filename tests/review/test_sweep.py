"""--sheet: cells where they belong, what is empty, what is there twice."""

import av
import numpy as np
import pytest
from PIL import Image

from tests.review.results import frames_of, write_result
from videogen.errors import InputError
from videogen.media.contact_sheet import MISSING
from videogen.review import sweep
from videogen.review.found import find_all


def level(number, frames=3):
    """Return grey frames: 10 * number, and one brighter with each."""
    return np.stack([np.full((32, 96, 3), 10 * number + index, np.uint8) for index in range(frames)])


@pytest.fixture
def results(tmp_path):
    """Three of four cells, one of them twice, and one result without a shift."""
    for number, (shift, seed, day) in enumerate(
        [(10.0, 1, 1), (2.0, 1, 3), (2.0, 1, 2), (2.0, 5, 1)], start=1
    ):
        made = {"created": f"2026-01-0{day}T00:00:00+0000"}
        asked = {"shift": shift, "seed": seed}
        write_result(tmp_path, f"{number}.npy", frames=level(number), request=asked, record=made)
    write_result(tmp_path, "other.npy", frames=level(9), request={"shift": None})
    other = tmp_path / "other.json"
    other.write_text(other.read_text().replace('"shift": null, ', ""))
    return find_all("--sheet", str(tmp_path))


def test_cells(results, tmp_path):
    arranged = sweep.arrange(results, ("shift", "seed"))
    assert arranged.values == (["2", "10"], ["1", "5"])
    assert [arranged.caption(cell) for cell in arranged.order] == [
        *("shift 2, seed 1", "shift 2, seed 5", "shift 10, seed 1", "shift 10, seed 5: none")
    ]
    assert arranged.notes == [
        "1 of 5 results have no shift or seed",
        "no result for shift 10, seed 5",
        "several results, of which the newest is shown, for shift 2, seed 1",
    ]
    sweep.write_sweep(arranged, tmp_path / "sheet.png")
    picture, grid = np.asarray(Image.open(tmp_path / "sheet.png")), arranged.grid((96, 32))
    assert (grid.rows, grid.columns, grid.size) == (2, 2, (96, 32))
    for index, wanted in enumerate([21, 41, 11, None]):  # the middle frames
        left, top = grid.place(index)
        cell = picture[top : top + 32, left : left + 96]
        assert (cell == (MISSING if wanted is None else wanted)).all(), index


def test_one_option_makes_a_square(results):
    arranged = sweep.arrange(results, ("seed",))
    assert arranged.order == [("1",), ("5",)]
    assert sweep.arrange(results, ("shift",)).grid((96, 32)).columns == 2


def test_cells_play_together(tmp_path):
    """The shorter one keeps its last frame."""
    write_result(tmp_path, "a.npy", frames=level(5, 4), request={"seed": 1})
    write_result(tmp_path, "b.npy", frames=level(15, 2), request={"seed": 2})
    arranged = sweep.arrange(find_all("--sheet", str(tmp_path)), ("seed",))
    sweep.write_sweep(arranged, tmp_path / "out.npy")
    frames, grid = np.load(tmp_path / "out.npy"), arranged.grid((96, 32))
    assert frames.shape[2:0:-1] == grid.pixels
    for index, wanted in enumerate([[50, 51, 52, 53], [150, 151, 151, 151]]):
        left, top = grid.place(index)
        assert frames[:, top + 5, left + 5, 0].tolist() == wanted
    sweep.write_sweep(arranged, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4
        assert container.streams.video[0].average_rate == 16


def test_too_many_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "MOST_PLAYING", 2)
    for seed in (1, 2, 3):
        write_result(tmp_path, f"{seed}.npy", frames=frames_of(seed), request={"seed": seed})
    arranged = sweep.arrange(find_all("--sheet", str(tmp_path)), ("seed",))
    with pytest.raises(InputError, match="--rows seed: seed are 3 cells, more than 2"):
        sweep.write_sweep(arranged, tmp_path / "x.mp4")
    assert not (tmp_path / "x.mp4").exists()
