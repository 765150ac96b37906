"""Stored segments: what is written, in which order, what is refused, and what is read back."""

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from videogen.errors import InputError, brief
from videogen.results.resume_store import ResumeStore, SegmentWriter

REQUEST = {"seed": 5, "prompt": "x"}
SIZE = (32, 16)  # width, height


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a short name, which messages show whole
    return ResumeStore(Path("a.parts"), "hash", REQUEST)


def frames(number, count=3):
    return np.full((count, *SIZE[::-1], 3), number, np.uint8)


def add(store, index, *, count=3, settings=None, finish=True):
    with SegmentWriter(store, index, SIZE, 24, count) as writer:
        if count:
            writer.write(frames(index, count))
        if finish:
            latents = torch.full((1, 1, 1, 1, 1), float(index))
            writer.finish(latents, {"tail": latents + 0.5}, settings or {"tiling": index})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def complaint(store, *, resume=True, overwrite=False):
    with pytest.raises(InputError) as caught:
        store.check(resume=resume, overwrite=overwrite)
    return str(caught.value)


def change(store, **values):
    file = store.folder / "state.json"
    state = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in state.items() if value is not ...}))


def test_segments_are_read_as_written(store):
    assert store.num_finished() == store.num_intact() == 0
    assert store.stored_request() == store.stored_settings() == {}
    for index in range(2):
        add(store, index)
        assert store.num_finished() == store.num_intact() == index + 1
    assert names(store.folder) == [
        *("001.mp4", "001.npy", "001.safetensors", "002.mp4", "002.npy", "002.safetensors", "state.json")
    ]
    for index in range(2):
        assert np.array_equal(np.concatenate(list(store.frames(index))), frames(index))
        assert store.latents(index).tolist() == [[[[[index]]]]]
        assert {name: tensor.item() for name, tensor in store.state(index).items()} == {"tail": index + 0.5}
    with safe_open(store.folder / "001.safetensors", framework="pt") as file:
        assert sorted(file.keys()) == ["latents", "state.tail"]
    assert store.stored_request() == REQUEST
    assert store.stored_settings() == {"tiling": 1}
    state = json.loads((store.folder / "state.json").read_text())
    assert (state["schema"], state["plan_hash"], state["seed"], state["finished"]) == (1, "hash", 5, 2)
    assert sorted(state["files"]) == ["001.npy", "001.safetensors", "002.npy", "002.safetensors"]
    store.check(resume=True, overwrite=False)


def test_frames_are_read_in_pieces(store):
    add(store, 0, count=33)
    assert [len(piece) for piece in store.frames(0)] == [16, 16, 1]
    piece = next(store.frames(0))
    piece[:] = 7  # a copy: what is stored does not change
    assert np.array_equal(next(store.frames(0)), frames(0, 16))


def test_folders_above_are_made(tmp_path):
    add(ResumeStore(tmp_path / "new/deep/a.parts", "hash", REQUEST), 0, count=0)
    assert (tmp_path / "new/deep/a.parts/state.json").exists()


def test_frames_are_no_pickle(store):
    add(store, 0)
    store.file(0, "npy").write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match="contains pickled"):
        next(store.frames(0))


def test_a_segment_without_frames(store):
    add(store, 0, count=0)
    assert names(store.folder) == ["001.npy", "001.safetensors", "state.json"]
    assert list(store.frames(0)) == []
    assert store.num_intact() == 1


def test_nothing_is_kept_of_a_segment_that_was_not_finished(store):
    add(store, 0, finish=False)
    assert names(store.folder) == []
    with pytest.raises(KeyError), SegmentWriter(store, 0, SIZE, 24, 3) as writer:
        writer.write(frames(0))
        raise KeyError
    assert names(store.folder) == []


def test_a_segment_replaces_what_was_left_of_it(store):
    add(store, 0)
    old = (store.folder / "001.npy").read_bytes()
    (store.folder / "001.npy").write_bytes(b"damaged")
    add(store, 0)
    assert (store.folder / "001.npy").read_bytes() == old
    assert len(names(store.folder)) == 4


def test_the_first_segment_forgets_those_of_another_run(store):
    for index in range(2):
        add(store, index)
    add(store, 0)
    state = json.loads((store.folder / "state.json").read_text())
    assert sorted(state["files"]) == ["001.npy", "001.safetensors"]
    assert store.num_finished() == 1


def test_segments_of_another_plan_do_not_count(store):
    add(store, 0)
    other = replace(store, plan_hash="other", request={"seed": 6, "prompt": "x", "steps": 2})
    assert other.num_finished() == other.num_intact() == 0
    assert other.stored_request() == {}
    assert complaint(other).startswith(
        f"--resume {store.folder}: was made with another seed, steps; repeat those"
    )
    assert complaint(other, resume=False) == (
        f"--output {store.folder}: has 1 finished segments of an unfinished video; "
        "--resume continues it, --overwrite begins again"
    )
    other.check(resume=False, overwrite=True)
    replace(other, plan_hash=None).check(resume=True, overwrite=False)


def test_what_differs_is_told_as_json_has_it(store):
    store = replace(store, request=REQUEST | {"ref_imgs": ("a", "b")})
    add(store, 0)
    other = replace(store, plan_hash="other", request=store.request | {"seed": 6})
    assert complaint(other).startswith(
        f"--resume {brief(store.folder)}: was made with another seed; repeat those"
    )


def test_what_is_in_the_way(store, tmp_path):
    store.check(resume=False, overwrite=False)
    store.folder.write_text("")
    assert complaint(store) == f"--output {store.folder}: is in the way; move it"
    store.folder.unlink()
    (tmp_path / "real").mkdir()
    store.folder.symlink_to(tmp_path / "real")
    assert "is in the way" in complaint(store, overwrite=True)
    store.folder.unlink()
    store.folder.mkdir()
    store.check(resume=False, overwrite=False)
    for name in (
        "001.mp4",
        "0001.npy",
        "123.safetensors",
        ".001.npy.1-ab.part",
        ".state.json.1-ab.part.json",
    ):
        (store.folder / name).write_text("")
    store.check(resume=False, overwrite=False)
    for name in ("01.mp4", "001.gif", "001.mp4.bak", "notes", ".hidden"):
        (store.folder / name).write_text("")
        said = f"--output {store.folder}: has other files in it ({name}); move them"
        assert complaint(store, overwrite=True) == said
        (store.folder / name).unlink()
    for name in ("zzz", "notes"):
        (store.folder / name).write_text("")
    assert "(notes)" in complaint(store)


def test_files_that_are_gone(store):
    for index in range(2):
        add(store, index)
    (store.folder / "001.mp4").unlink()
    store.check(resume=True, overwrite=False)
    assert store.num_intact() == 2
    for name in ("001.safetensors", "002.npy"):
        content = (store.folder / name).read_bytes()
        (store.folder / name).unlink()
        assert complaint(store) == f"--resume {store.folder}: lacks {name}; --overwrite begins again"
        assert store.num_intact() == int(name[2]) - 1
        store.check(resume=False, overwrite=True)
        (store.folder / name).write_bytes(content)
    store.check(resume=True, overwrite=False)


@pytest.mark.parametrize(
    "damage",
    [
        *({name: ...} for name in ("schema", "finished", "plan_hash", "seed", "request")),
        *({"finished": value} for value in (0, -1, "1", None, [1])),
        *({"seed": "5"}, {"plan_hash": 1}, {"request": []}, {"files": []}, {"effective": 1}, {"schema": 2}),
    ],
)
def test_a_damaged_state_counts_as_none(store, damage):
    add(store, 0)
    change(store, **damage)
    assert store.num_finished() == store.num_intact() == 0
    assert store.stored_request() == store.stored_settings() == {}
    assert complaint(store) == f"--output {store.folder}: its state.json is damaged; --overwrite begins again"
    store.check(resume=False, overwrite=True)


def test_a_state_without_the_optional_parts(store):
    add(store, 0)
    change(store, effective=..., files=...)
    assert store.num_finished() == 1
    assert store.stored_settings() == {}
    assert store.num_intact() == 0  # nothing says what its files should be


def test_one_segment_is_one(store):
    add(store, 0)
    change(store, finished=1)
    assert store.num_finished() == 1
    assert store.stored_request() == REQUEST


def test_removing_keeps_what_is_not_ours(store):
    store.remove()
    add(store, 0)
    (store.folder / ".001.npy.1-ab.part").write_text("")
    (store.folder / "notes").write_text("")
    store.remove()
    assert names(store.folder) == ["notes"]
    (store.folder / "notes").unlink()
    store.remove()
    assert not store.folder.exists()


def test_a_link_is_not_followed(store, tmp_path):
    add(store, 0)
    store.folder.rename(tmp_path / "real")
    store.folder.symlink_to(tmp_path / "real")
    store.remove()
    assert len(names(tmp_path / "real")) == 4
    store.folder.unlink()
    store.folder.write_text("")
    store.remove()
    assert store.folder.exists()


def test_the_state_goes_first(store, monkeypatch):
    """A kill while segments are removed must leave none that seem finished."""
    for index in range(2):
        add(store, index)
    removed, unlink = [], type(store.folder).unlink

    def noted(path, **how):
        removed.append(path.name)
        unlink(path, **how)

    monkeypatch.setattr(type(store.folder), "unlink", noted)
    store.remove()
    assert removed[0] == "state.json"


def test_the_state_comes_last(store, monkeypatch):
    done, replace_path = [], type(store.folder).replace

    def noted(path, target):
        done.append(target.name)
        return replace_path(path, target)

    monkeypatch.setattr(type(store.folder), "replace", noted)
    add(store, 0)
    assert sorted(done) == ["001.mp4", "001.npy", "001.safetensors", "state.json"]
    assert done[-1] == "state.json"


def test_the_rest_is_removed_but_no_other_plan(store):
    add(store, 0)
    other = replace(store, plan_hash="other")
    other.remove_rest()
    assert store.num_finished() == 1
    store.remove_rest()
    assert not store.folder.exists()
    add(store, 0)
    (store.folder / "state.json").unlink()
    other.remove_rest()
    assert not store.folder.exists()


def test_damage_is_told(store, caplog):
    for index in range(3):
        add(store, index)
    assert store.num_intact() == 3
    assert not caplog.text
    with (store.folder / "002.safetensors").open("ab") as file:
        file.write(b"x")
    assert store.num_intact() == 1
    assert re.search(r"002\.safetensors is damaged; it and what follows is made again", caplog.text)


def test_a_full_disk_names_the_folder(store, monkeypatch):
    from videogen import files

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("videogen.results.resume_store.write_json", full)
    with pytest.raises(files.OutputError, match=r"a\.parts: No space left on device"):
        add(store, 0)
    monkeypatch.setattr("videogen.results.resume_store.save_tensors", full)
    with pytest.raises(files.OutputError, match=r"001\.safetensors: No space left on device"):
        add(store, 0)
