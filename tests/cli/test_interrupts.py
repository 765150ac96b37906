"""Ctrl-C, kill -9 and a full disk: nothing half-written under a final name, nothing finished lost."""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.processes import Running


def half_written(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part*"))


@pytest.fixture
def long_run(r2v):
    """Many frames, so that there is time to interrupt the writing."""
    return [*r2v, "--num_frames", "401"]


def interrupt_at_forks():
    asked = []
    os.register_at_fork(after_in_parent=lambda: asked or asked.append(os.kill(os.getpid(), signal.SIGINT)))


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_leaves_nothing(long_run, tmp_path, name):
    running = Running(*long_run, "--output", tmp_path / "a.mp4")
    running.wait_for(lambda: half_written(tmp_path))
    running.send(name)
    code, out, err = running.end(60)
    assert code == 130
    assert out == ""
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_interrupt_while_the_encoder_starts(long_run, tmp_path):
    """Python drops exceptions of the moment in which a process forks."""
    code, out, err = Running(*long_run, "--output", tmp_path / "a.mp4", before=interrupt_at_forks).end()
    assert (code, out) == (130, ""), err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_kill_loses_only_the_item_in_progress(long_run, tmp_path):
    words = [*long_run, "--seed", "1,2", "--output_dir", tmp_path, "--resume"]
    running = Running(*words)
    running.wait_for((tmp_path / "1_1.mp4").exists)
    running.wait_for(lambda: half_written(tmp_path))
    running.send(signal.SIGKILL)
    running.end()
    first = (tmp_path / "1_1.mp4").stat()
    assert not (tmp_path / "2_2.mp4").exists()

    code, out, err = Running(*words).end()
    assert code == 0, err
    assert [Path(line).name for line in out.splitlines()] == ["1_1.mp4", "2_2.mp4"]
    assert (tmp_path / "1_1.mp4").stat() == first
    assert not half_written(tmp_path)  # what the killed process left is swept away
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1_1.json", "1_1.mp4", "2_2.json", "2_2.mp4"]


@contextlib.contextmanager
def small_disk(folder: Path, size: str):
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs rights")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None or os.name != "posix", reason="needs mount")
@pytest.mark.parametrize("suffix", [".mp4", ".npy", ".gif", ""])
def test_full_disk(cli, r2v, tmp_path, suffix):
    with small_disk(tmp_path / "disk", "20k") as disk:
        finished = cli(*r2v, "--num_frames", 41, "--output", disk / f"a{suffix}")
        assert finished.code == 1
        assert finished.out == ""
        assert "full" in finished.complaint or "No space left" in finished.complaint
        assert not list(disk.iterdir())
