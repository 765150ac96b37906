"""Files that have their names only when they are complete, names, and the cache folder."""

import errno
import os
import re
import stat
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.test_file_locks import held
from videogen import files

TEMPORARY = re.compile(r"\.(.+)\.(\d+)-[0-9a-f]{8}\.part(\.\w+)?")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_name_only_when_it_is_complete(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with files.atomic_write(target) as temporary:
        temporary.write_text("new")
        matched = TEMPORARY.fullmatch(temporary.name)
        assert matched.groups() == ("a.json", str(os.getpid()), ".json")
        assert held(temporary)
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(tmp_path) == ["a.json"]


def test_the_folder_of_a_file_is_made(tmp_path):
    files.write_text(tmp_path / "a" / "b" / "c.txt", "new")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "new"
    with files.temporary_sibling(tmp_path / "d" / "e", folder=True) as temporary:
        assert temporary.parent == tmp_path / "d"
    (tmp_path / "file").touch()
    with (
        pytest.raises(files.OutputError, match=r"c\.txt: "),
        files.writing(tmp_path / "file" / "c.txt"),
        files.atomic_write(tmp_path / "file" / "c.txt"),
    ):
        pass


def test_a_failed_write_changes_nothing(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(KeyError), files.atomic_write(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("write", ["json", "text", "tensors"])
def test_every_writer_is_atomic(tmp_path, monkeypatch, write):
    """The name appears by a rename of a complete file; without the rename there is nothing."""
    target = tmp_path / "a.x"
    seen = []

    def replace(temporary, path):
        seen.append((path, temporary.read_bytes()))
        assert not path.exists()

    monkeypatch.setattr(Path, "replace", replace)
    if write == "json":
        files.write_json(target, {"b": [1], "ä": None})
        expected = '{\n  "b": [\n    1\n  ],\n  "ä": null\n}\n'.encode()
    elif write == "text":
        files.write_text(target, "ä\n")
        expected = "ä\n".encode()
    else:
        files.save_tensors(target, {"x": torch.ones(2)}, {"who": "we"})
        expected = seen[0][1]
    assert seen == [(target, expected)]
    assert names(tmp_path) == []


def test_tensors_and_their_metadata(tmp_path):
    turned = torch.arange(6.0).view(2, 3).T
    files.save_tensors(tmp_path / "a.safetensors", {"x": turned}, {"who": "we"})
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata() == {"who": "we"}
        assert torch.equal(file.get_tensor("x"), turned)


@pytest.mark.parametrize("folder", [False, True])
def test_temporaries(tmp_path, folder):
    with files.temporary_sibling(tmp_path / "a.npy", folder=folder) as temporary:
        assert temporary.is_dir() == folder
        assert temporary.is_file() != folder
        assert held(temporary)
        if folder:
            (temporary / "x").write_text("")
    assert names(tmp_path) == []
    with files.temporary_sibling(tmp_path / "a.npy", kept_if=lambda: True) as temporary:
        pass
    assert names(tmp_path) == [temporary.name]
    assert not held(temporary)
    with files.temporary_sibling(tmp_path / "a.npy") as second:
        assert names(tmp_path) == [second.name]  # what was left is removed first


@pytest.mark.parametrize("folder", [False, True])
def test_no_temporary_is_shared(tmp_path, monkeypatch, folder):
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * size)
    with files.temporary_sibling(tmp_path / "a", folder=folder) as first:
        with pytest.raises(FileExistsError), files.temporary_sibling(tmp_path / "a", folder=folder):
            pass
        assert first.exists()


def test_work_folders_are_private(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with files.work_folder() as folder:
        assert folder.is_dir()
        assert folder.parent == tmp_path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert TEMPORARY.fullmatch(folder.name)[1] == "videogen-work"
    assert names(tmp_path) == []


def test_numbers():
    found = files.numbered(Path("b/a.mp4"))
    assert [str(next(found)) for _ in range(3)] == ["b/a.mp4", "b/a_2.mp4", "b/a_3.mp4"]


def test_a_folder_comes_back_if_it_cannot_be_replaced(tmp_path, monkeypatch):
    target, new = tmp_path / "a", tmp_path / "new"
    for path in (target, new):
        path.mkdir()
        (path / path.name).write_text("")
    rename, seen = Path.rename, []

    def refuse(path, other):
        seen.append(other.name)
        if path == new:
            raise OSError(errno.EIO, "broken")
        return rename(path, other)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="broken"):
        files.replace(new, target)
    assert names(target) == ["a"]
    assert names(tmp_path) == ["a", "new"]
    assert re.fullmatch(rf"\.a\.{os.getpid()}-[0-9a-f]{{8}}\.old", seen[0])


@pytest.mark.parametrize("links", [True, False])
def test_names_that_must_be_new(tmp_path, refuse, links):
    for name in ("new", "there"):
        (tmp_path / name).write_text(name)
    if not links:
        refuse(Path, "hardlink_to", errno.EPERM)
    with pytest.raises(FileExistsError):
        files.rename_to_new(tmp_path / "new", tmp_path / "there")
    assert (tmp_path / "there").read_text() == "there"
    files.rename_to_new(tmp_path / "new", tmp_path / "a")
    assert names(tmp_path) == ["a", "there"]
    assert (tmp_path / "a").read_text() == "new"
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileExistsError):
        files.rename_to_new(tmp_path / "folder", tmp_path / "there")
    files.rename_to_new(tmp_path / "folder", tmp_path / "b")
    assert names(tmp_path) == ["a", "b", "there"]


def test_a_file_that_appears_just_now_is_not_replaced(tmp_path, monkeypatch):
    """After it was looked for; a hard link fails then, where a rename would not."""
    for name in ("new", "there"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(FileExistsError):
        files.rename_to_new(tmp_path / "new", tmp_path / "there")
    assert (tmp_path / "there").read_text() == "there"


def test_removing(tmp_path, refuse):
    (tmp_path / "folder/in").mkdir(parents=True)
    (tmp_path / "folder/in/x").write_text("")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/x").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("folder", "link", "none"):
        files.remove(tmp_path / name)
    assert names(tmp_path) == ["kept"]
    assert names(tmp_path / "kept") == ["x"]
    refuse(Path, "unlink", errno.EACCES)
    files.remove(tmp_path / "kept/x")
    refuse(os, "scandir", errno.EACCES)
    files.remove(tmp_path / "kept")
    assert (tmp_path / "kept/x").exists()


def test_errors_of_writing_name_the_target():
    for error, said in (
        (
            OSError(errno.ENOSPC, "No space left"),
            "a: No space left; free some space or choose another --output",
        ),
        (OSError("odd"), "a: odd; free some space or choose another --output"),
        (files.WritingError("encoder died", "try .npy"), "a: encoder died; try .npy"),
    ):
        with pytest.raises(files.OutputError) as caught, files.writing(Path("a")):
            raise error
        assert str(caught.value) == said


def test_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VIDEOGEN_CACHE", "~/mine")
    assert files.cache_root() == tmp_path / "home/mine"
    monkeypatch.delenv("VIDEOGEN_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "home").mkdir()
    assert files.cache_root() == tmp_path / "home/.cache/videogen"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/xdg")
    assert files.cache_root() == tmp_path / "home/xdg/videogen"
    (tmp_path / "home/xdg").mkdir()
    asked = []

    def access(path, mode):
        asked.append((path, mode))
        return False

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "me")
    assert files.cache_root() == tmp_path / "videogen-me"
    (tmp_path / "home/xdg").rmdir()
    files.cache_root()
    assert asked == [(tmp_path / "home/xdg", os.W_OK), (tmp_path / "home", os.W_OK)]
