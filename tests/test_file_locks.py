"""Locks of files, and temporaries that killed processes left."""

import errno
import os
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from videogen import files


def held(path):
    """Return whether somebody has a lock on a file."""
    descriptor = files.open_to_lock(path)
    try:
        return files.lock(descriptor) is False
    finally:
        files.close(descriptor)


def num_open():
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def kept_open(path):
    """Lock a file as another run would."""
    descriptor = files.open_to_lock(path)
    assert files.lock(descriptor) is True
    yield descriptor
    files.close(descriptor)


def test_a_temporary_that_was_swept_before_its_lock_is_made_again(tmp_path, monkeypatch):
    words, opened = iter(["00000001", "00000002", "00000003", "00000004"]), files.open_to_lock
    monkeypatch.setattr("secrets.token_hex", lambda size: next(words) if size == 4 else None)

    def swept(path):
        if "00000001" in path.name:  # before it is opened
            path.unlink()
        descriptor = opened(path)
        if "00000002" in path.name:  # after it
            path.unlink()
        if "00000003" in path.name:  # somebody else locks it first
            others.append(opened(path))
            assert files.lock(others[0])
        return descriptor

    others = []
    monkeypatch.setattr(files, "open_to_lock", swept)
    before = num_open()
    with files.temporary_sibling(tmp_path / "a") as temporary:
        assert "00000004" in temporary.name
        assert num_open() == before + 2  # ours and the other's
    files.close(others[0])
    assert num_open() == before


def test_locks(tmp_path, refuse):
    path = tmp_path / "a"
    path.write_text("x")
    with kept_open(path) as descriptor:
        assert held(path)
        assert files.is_file_of(descriptor, path) is True
        path.rename(tmp_path / "b")
        assert files.is_file_of(descriptor, path) is False
        path.write_text("other")
        assert files.is_file_of(descriptor, path) is False
        path.unlink()
        path.symlink_to(tmp_path / "b")
        assert files.is_file_of(descriptor, path) is False
    assert not held(tmp_path / "b")
    assert files.lock(None) is None
    assert files.is_file_of(None, path) is False
    files.close(None)
    with kept_open(tmp_path):
        assert held(tmp_path)
    with pytest.raises(FileNotFoundError):
        files.open_to_lock(tmp_path / "none")


def test_what_is_opened_for_a_lock(tmp_path, monkeypatch):
    """For writing, which network file systems want, and not for programs that are started."""
    path = tmp_path / "a"
    path.write_text("x")
    for opened, mode in ((path, os.O_RDWR), (tmp_path, os.O_RDONLY)):
        descriptor = files.open_to_lock(opened)
        flags = files.fcntl.fcntl(descriptor, files.fcntl.F_GETFL)
        assert flags & os.O_ACCMODE == mode
        assert not os.get_inheritable(descriptor)
        files.close(descriptor)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    monkeypatch.setattr(files, "fcntl", None)
    assert files.open_to_lock(path) is None


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EIO])
def test_file_systems_without_locks(tmp_path, refuse, number):
    path = tmp_path / "a"
    path.write_text("x")
    descriptor = files.open_to_lock(path)
    refuse(files.fcntl, "flock", number)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output"):
            files.lock(descriptor)
    else:
        assert files.lock(descriptor) is None
        with files.temporary_sibling(tmp_path / "b") as temporary:
            assert temporary.exists()
    files.close(descriptor)


STALE = [
    ".a[1].npy.12-0a1b.part.npy",
    ".a[1].npy.12.part",
    ".a[1].npy.12-0a1b.old",
]


OTHERS = [
    ".a1.npy.12-0a1b.part.npy",
    ".a[1].npy.x-0a1b.part.npy",
    ".a[1].npy.12-0a1b.tmp",
    ".a[1].npy.12-xyz.part.npy",
    ".b.a[1].npy.12-0a1b.part",
    "a[1].npy",
]


def test_stale_temporaries_are_known_by_name_and_lock(tmp_path):
    for name in (*STALE, *OTHERS):
        (tmp_path / name).write_text("")
    found = []
    for path in files.stale_temporaries(tmp_path, "a[1].npy"):
        found.append(path.name)
        assert held(path)
    assert found == sorted(STALE)
    assert not any(held(tmp_path / name) for name in STALE)
    with kept_open(tmp_path / STALE[0]):
        assert {path.name for path in files.stale_temporaries(tmp_path, "a[1].npy")} == {*STALE[1:]}
    for name in ("*.npy", "a*", "*[1]*"):
        assert {path.name for path in files.stale_temporaries(tmp_path, name)} >= {*STALE}
    assert list(files.stale_temporaries(tmp_path, "*.gif")) == []


def test_what_vanishes_meanwhile_is_not_stale(tmp_path, monkeypatch):
    for word in "ab":
        (tmp_path / f".x.1-{word}.part").write_text("")
    opened = files.open_to_lock

    def gone(path):
        if path.name == ".x.1-a.part":
            path.unlink()
        return opened(path)

    monkeypatch.setattr(files, "open_to_lock", gone)
    assert [path.name for path in files.stale_temporaries(tmp_path, "x")] == [".x.1-b.part"]


def test_without_locks_age_decides(tmp_path, refuse):
    for name, age in (("a", 86_500), ("b", 86_300)):
        path = tmp_path / f".x.1-{name}.part"
        path.write_text("")
        os.utime(path, (time.time() - age,) * 2)
    refuse(files.fcntl, "flock", errno.ENOLCK)
    assert [path.name for path in files.stale_temporaries(tmp_path, "x")] == [".x.1-a.part"]
