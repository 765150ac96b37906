"""Ctrl-C, kill -9 and a full disk: nothing half-written under a final name, nothing finished lost."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
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


def test_the_first_ctrl_c_waits_for_the_step_and_the_second_does_not(r2v, tmp_path):
    big = ("--height", "256", "--width", "448", "--num_frames", "81")  # steps that take a while
    running = Running(*r2v, *big, "--progress", "json", "--output", tmp_path / "a.mp4")
    running.wait_for(lambda: '"stage": "denoise"' in running.stderr)
    running.send(signal.SIGINT)
    running.wait_for(lambda: '"event": "stopping"' in running.stderr)  # at once
    running.send(signal.SIGINT)
    code, out, err = running.end(60)
    assert (code, out) == (130, "")
    events = [json.loads(line) for line in err.splitlines()]
    assert not [event for event in events if event["event"] == "progress" and event["stage"] == "denoise"]
    assert (events[-1]["event"], events[-1]["exit_code"]) == ("error", 130)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_between_segments_says_how_to_go_on(forcing, tmp_path):
    words = forcing("--num_frames", "29", "--base_num_frames", "17", "--overlap_history", "5")
    steps = ("--num_inference_steps", "40", "--progress", "json")
    running = Running(*words, *steps, "--output", tmp_path / "a.mp4")
    running.wait_for(lambda: '"event": "segment"' in running.stderr)
    running.send(signal.SIGINT)
    code, out, err = running.end(60)
    assert (code, out) == (130, "")
    assert "re-run with --resume" in err
    assert [path.name for path in tmp_path.iterdir()] == ["a.parts"]


# Interrupts itself when it imports a module, and then runs generate_video.py.
AT_IMPORT = """
import os, runpy, signal, sys
_, module, script, *words = sys.argv
class Interrupt:
    def find_spec(self, name, *_):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
sys.meta_path.insert(0, Interrupt())
sys.argv = [script, *words]
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("module", "as_json"),
    [
        *(
            ("videogen.cli.early_interrupt", False),
            ("videogen.cli.main", False),
            ("argparse", True),
            ("torch", False),
        ),
        pytest.param("diffusers", True, marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_while_the_program_is_loaded_is_one_line(r2v, tmp_path, module, as_json):
    words = [*r2v, "--output", tmp_path / "a.mp4", *["--progress", "json"] * as_json]
    command = [sys.executable, "-c", AT_IMPORT, module, "generate_video.py", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    lines = done.stderr.splitlines()
    if as_json:
        assert json.loads(lines[-1]).items() >= {"event": "error", "exit_code": 130}.items()
    else:
        (line,) = [line for line in lines if not line.endswith("loading libraries")]
        assert line.startswith("interrupted")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_kill_loses_only_the_item_in_progress(long_run, tmp_path):
    words = [*long_run, "--seed", "1,2", "--output_dir", tmp_path, "--resume"]
    running = Running(*words)
    running.wait_for((tmp_path / "1_1.mp4").exists)
    running.wait_for(lambda: half_written(tmp_path))
    running.send(signal.SIGKILL)
    running.end()
    first = (tmp_path / "1_1.mp4").stat()  # reading it later changes its access time
    assert not (tmp_path / "2_2.mp4").exists()

    code, out, err = Running(*words).end()
    assert code == 0, err
    assert [Path(line).name for line in out.splitlines()] == ["1_1.mp4", "2_2.mp4"]
    now = (tmp_path / "1_1.mp4").stat()
    assert (now.st_ino, now.st_mtime_ns, now.st_size) == (first.st_ino, first.st_mtime_ns, first.st_size)
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
