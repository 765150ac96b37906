"""Files that cannot be written are refused early, and nothing is left behind."""

import errno
import os
from pathlib import Path

import pytest

from videogen.errors import InputError
from videogen.results.writable import check_file, check_writable


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint(check, *given, **options):
    with pytest.raises(InputError) as raised:
        check(*given, **options)
    return str(raised.value)


def test_files_of_other_kinds_and_files_that_are_there(inside):
    (inside / "a.json").write_text("{}")
    (inside / "b.json").mkdir()
    check_file("-x", Path("a.json"), [".json"], may_replace=True)
    for name, said in {
        "a.txt": "-x a.txt: must end in .json; try a.json",
        "a.json": "-x a.json: exists already; add --overwrite, or choose another name",
        "b.json": "-x b.json: is a folder; choose another name",
    }.items():
        assert complaint(check_file, "-x", Path(name), [".json"], may_replace=False) == said


def test_folders_that_cannot_be_written(inside, monkeypatch):
    check_writable("--output", Path("new/deep"))
    assert list(inside.iterdir()) == []
    (inside / "file").write_text("")
    said = complaint(check_writable, "--output", Path("file/deep"))
    assert said == f"--output file/deep: {inside}/file is a file; choose another folder"
    Path("b").mkdir()
    check_writable("--output", Path("b"))
    Path("b").chmod(0o555)
    assert (
        complaint(check_writable, "--output", Path("b/c"))
        == "--output b/c: is not writable; choose another folder"
    )
    Path("b").chmod(0o577)
    check_writable("--output", Path("b"))
    asked = []

    def access(path, mode):
        asked.append((path, mode))
        return False

    with monkeypatch.context() as patch:
        patch.setattr(os, "access", access)
        assert complaint(check_writable, "-x", Path("b")) == "-x b: is not writable; choose another folder"
        assert asked == [(Path("b"), os.W_OK)]

    def full(**where):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    said = complaint(check_writable, "-x", Path("b"))
    assert said == "-x b: is not writable (No space left on device); choose another folder"
