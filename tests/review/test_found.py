"""Finding results: from any of their files, and below a folder."""

import json
import os
import shutil

import pytest

from tests.review.results import frames_of, write_result
from videogen.errors import InputError
from videogen.review.found import find, find_all

KINDS = ("a.mp4", "a.gif", "a.webm", "a.mov", "a.mkv", "a.npy", "folder", "still.png")


@pytest.mark.parametrize("name", KINDS)
def test_a_result_is_found_from_any_of_its_files(tmp_path, name):
    frames = frames_of(1)[:1] if name == "still.png" else None
    path = write_result(tmp_path, name, frames=frames, request={"seed": 7})
    stem = name.partition(".")[0]
    beside = [tmp_path / f"{stem}{ending}" for ending in (".json", ".sheet.png", ".preview.webp")]
    for file in beside[1:]:
        file.write_bytes(b"")
    for file in (path, *beside):
        found = find("--show", str(file))
        assert (found.path, found.seed, found.embedded) == (path, 7, False)
        assert found.sheet == tmp_path / f"{stem}.sheet.png"


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mov", "a.mkv"])
def test_what_is_in_the_file_counts_where_the_record_is_gone(tmp_path, name):
    path = write_result(tmp_path, name, request={"seed": 7})
    path.with_suffix(".json").unlink()
    found = find("--show", str(path))
    assert (found.seed, found.embedded, found.prompt) == (7, True, "a robot waves")
    assert [one.path for one in find_all("--report", str(tmp_path))] == [path]


def test_a_record_is_not_taken_for_another_result_of_the_same_name(tmp_path):
    write_result(tmp_path, "a.mp4", request={"seed": 1})
    write_result(tmp_path, "a.gif", request={"seed": 2})  # its record replaces the other's
    assert find("--show", str(tmp_path / "a.gif")).seed == 2
    assert find("--show", str(tmp_path / "a.mp4")).seed == 1, "from its comment"
    assert sorted(found.seed for found in find_all("--report", str(tmp_path))) == [1, 2]
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(InputError, match="is no result of videogen"):
        find("--show", str(tmp_path / "a.npy"))


@pytest.mark.parametrize("name", KINDS)
def test_a_result_is_known_by_its_new_name(tmp_path, name):
    """Whether it was moved there with its record, or copied."""
    frames = frames_of(1)[:1] if name == "still.png" else None
    old = write_result(tmp_path, name, frames=frames, request={"seed": 7})
    new, record = tmp_path / f"best{old.suffix}", tmp_path / f"{old.stem}.json"
    (shutil.copytree if old.is_dir() else shutil.copy)(old, new)
    shutil.copy(record, tmp_path / "best.json")
    assert [found.path for found in find_all("--report", str(tmp_path))] == sorted([old, new])
    found = find("--show", str(new))
    assert (found.path, found.seed, found.embedded) == (new, 7, False)
    (shutil.rmtree if old.is_dir() else os.remove)(old)
    record.unlink()
    assert [found.path for found in find_all("--report", str(tmp_path))] == [new]


def test_all_results_below_a_folder(tmp_path, caplog):
    write_result(tmp_path, "b.mp4")
    write_result(tmp_path, "one/a.gif")
    write_result(tmp_path, "one/two/frames")
    write_result(tmp_path, "c.parts/segment.mp4")
    write_result(tmp_path, ".hidden/a.mp4")
    write_result(tmp_path, "gone.mp4").unlink()
    (tmp_path / "jobs.json").write_text('[{"prompt": "a"}]')
    (tmp_path / "other.json").write_text('{"schema": 1, "request": "no mapping"}')
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    found = find_all("--report", str(tmp_path))
    names = [one.path.relative_to(tmp_path).as_posix() for one in found]
    assert names == ["b.mp4", "one/a.gif", "one/two/frames"]
    assert "1 records whose video is gone are left out" in caplog.text


def test_a_record_cannot_name_a_file_elsewhere(tmp_path):
    path = write_result(tmp_path, "in/a.mp4")
    record = json.loads(path.with_suffix(".json").read_text())
    (tmp_path / "secret.mp4").write_bytes(b"")
    for name in ("../secret.mp4", str(tmp_path / "secret.mp4"), 5, ""):
        path.with_suffix(".json").write_text(json.dumps({**record, "output": name}))
        assert [found.path for found in find_all("--report", str(tmp_path / "in"))] == [path]


@pytest.mark.parametrize(
    "damage",
    [
        {"width": "wide", "fps": float("inf"), "num_frames": None},
        {"seconds": 5, "step_seconds": ["a"], "peak_memory": []},
        {"created": "yesterday", "seed": {"a": 1}, "versions": "none", "model": 3},
        {"fps": 0, "num_frames": -1, "created": "9999-12-31T23:59:59-2359"},
    ],
)
def test_values_of_a_wrong_kind_are_left_out(tmp_path, damage):
    from videogen.review import show

    path = write_result(tmp_path, "a.mp4", record=damage)
    found = find("--show", str(path))
    assert found.created.year >= 2025
    assert "a robot waves" in " ".join(show.lines(found))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda folder: folder / "none", "no such folder; give a folder with results"),
        (lambda folder: folder, "holds no results of videogen"),
    ],
)
def test_a_folder_without_results(tmp_path, make, complaint):
    with pytest.raises(InputError, match=complaint):
        find_all("--report", str(make(tmp_path)))
