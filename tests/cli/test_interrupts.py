"""Ctrl-C, kill -9 and a full disk: nothing half-written under a final name, nothing finished lost."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT


def heed_interrupts():
    """What was started in the background of a shell ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(arguments, **options):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "generate_video.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - pytest has no threads here
        **options,
    )


def wait_for(condition, process, seconds=120):
    """Poll until something is there; fails if the process ends first."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def half_written(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part*"))


@pytest.fixture
def long_run(r2v):
    """Many frames, so that there is time to interrupt the writing."""
    return [*r2v, "--num_frames", "401"]


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_leaves_nothing(long_run, tmp_path, name):
    process = start([*long_run, "--output", tmp_path / "a.mp4"])
    wait_for(lambda: half_written(tmp_path), process)
    process.send_signal(name)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_interrupt_while_the_encoder_starts(long_run, tmp_path):
    """Python drops exceptions of the moment in which a process forks."""
    script = tmp_path / "interrupted.py"
    script.write_text(
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from videogen.cli.main import main\n"
        "asked = []\n"
        "def interrupt():\n"
        "    asked or asked.append(os.kill(os.getpid(), signal.SIGINT))\n"
        "os.register_at_fork(after_in_parent=interrupt)\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, script, *long_run, "--output", tmp_path / "out/a.mp4"],
        check=False,
        capture_output=True,
        preexec_fn=heed_interrupts,
        text=True,
    )
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_kill_loses_only_the_item_in_progress(long_run, tmp_path):
    words = [*long_run, "--seed", "1,2", "--output_dir", tmp_path, "--resume"]
    process = start(words)
    wait_for((tmp_path / "1_1.mp4").exists, process)
    wait_for(lambda: half_written(tmp_path), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = (tmp_path / "1_1.mp4").stat()
    assert not (tmp_path / "2_2.mp4").exists()

    again = start(words)
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
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
