"""Locks of results: one owner, folders that are made and removed, and what the second is told."""

import errno
import os
import re
from pathlib import Path

import pytest

from videogen import files
from videogen.results.output_locks import OutputLocks


@pytest.fixture
def others():
    """Locks of another run."""
    with OutputLocks() as locks:
        yield locks


@pytest.fixture
def without_locks(monkeypatch):
    def unsupported(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", unsupported)


def num_open():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_first_has_it_and_says_since_when(tmp_path, others, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "host")
    before = num_open()
    with OutputLocks() as locks:
        assert locks.acquire(tmp_path, "a") is None
        assert locks.acquire(tmp_path, "a") is None
        assert list(locks.held) == [tmp_path / ".a.lock"]
        assert num_open() == before + 1
        text = (tmp_path / ".a.lock").read_text()
        assert re.fullmatch(r"host, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n", text)
        assert others.acquire(tmp_path, "a") == text.strip()
        assert num_open() == before + 1
        assert others.acquire(tmp_path, "b") is None
        assert not others.made
    assert num_open() == before + 1
    assert [path.name for path in tmp_path.iterdir()] == [".b.lock"]
    assert (locks.held, locks.made) == ({}, [])
    assert others.acquire(tmp_path, "a") is None


def test_paths_are_absolute(tmp_path, others, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with OutputLocks() as locks:
        assert locks.acquire(Path("b"), "a") is None
        assert others.acquire(tmp_path / "b", "a") is not None
        assert locks.made == [tmp_path / "b"]


def test_folders_are_removed_if_nothing_is_in_them(tmp_path):
    with OutputLocks() as locks:
        assert locks.acquire(tmp_path / "x/y", "a") is None
        assert locks.acquire(tmp_path / "x/z/w", "a") is None
        assert locks.made == [tmp_path / "x/z/w", tmp_path / "x/z", tmp_path / "x/y", tmp_path / "x"]
        (tmp_path / "x/y/result").write_text("")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "x",
        "x/y",
        "x/y/result",
    ]


def test_a_file_that_was_left_locks_nothing(tmp_path, others):
    (tmp_path / ".a.lock").write_text("host, since long ago\n")
    with OutputLocks() as locks:
        assert locks.acquire(tmp_path, "a") is None
        assert "long ago" not in (tmp_path / ".a.lock").read_text()


@pytest.mark.parametrize(
    ("text", "said"), [("", "just begun"), (" \n", "just begun"), (b"\xff", "now ended")]
)
def test_an_owner_of_whom_nothing_is_known(tmp_path, others, text, said):
    assert others.acquire(tmp_path, "a") is None
    (tmp_path / ".a.lock").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert OutputLocks().acquire(tmp_path, "a") == said


def test_without_locks_the_file_counts(tmp_path, others, without_locks):
    before = num_open()
    assert others.acquire(tmp_path, "a") is None
    owner = (tmp_path / ".a.lock").read_text().strip()
    assert OutputLocks().acquire(tmp_path, "a") == f"{owner}; if that run is gone, delete .a.lock"
    assert num_open() == before + 1
    (tmp_path / ".b.lock").write_text("host, since long ago")
    assert others.acquire(tmp_path, "b") == "host, since long ago; if that run is gone, delete .b.lock"


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_owner_that_ends_just_now(tmp_path, monkeypatch, when):
    """It removes its file before or after we open it; then there is another round."""
    opened, rounds = files.open_to_lock, []

    def open_to_lock(path):
        rounds.append(path)
        if when == "before" and len(rounds) == 1:
            path.unlink()
        descriptor = opened(path)
        if when == "after" and len(rounds) == 1:
            path.unlink()
        return descriptor

    monkeypatch.setattr(files, "open_to_lock", open_to_lock)
    before = num_open()
    with OutputLocks() as locks:
        assert locks.acquire(tmp_path, "a") is None
        assert len(rounds) == 2
        assert files.is_file_of(locks.held[tmp_path / ".a.lock"], tmp_path / ".a.lock")
        assert num_open() == before + 1
