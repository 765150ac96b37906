"""The command line killed at every step of publishing, on full disks, in too little memory; then --resume."""

import errno
import os
import random
import resource
import shutil
import signal
from pathlib import Path

import pytest

from tests.faults.commands import Command, check_equal
from tests.faults.harness import DIED, Steps, finish, run, start
from videogen.cli import main

pytestmark = pytest.mark.slow
KINDS = {"mp4": ".mp4", "gif": ".gif", "npy": ".npy", "png": ""}


@pytest.mark.parametrize("replaced", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_every_step_of_publishing(reference, tmp_path, said, kind, replaced):
    """From the record's temporary to the end."""
    words = (*reference, "--output", f"OUT/a{KINDS[kind]}", "--save_latents", "OUT/a.safetensors")
    old = Command(main.main, (*words, "--seed", 1), tmp_path / "old")
    assert old()() == 0
    whole, log = Command(main.main, (*words, "--seed", 2), tmp_path / "whole"), tmp_path / "log"
    again = ("--overwrite",) if replaced else ()
    if replaced:
        shutil.copytree(old.folder, whole.folder)
    assert run(whole(*again), said, Steps(whole.folder, log=log)).code == 0
    steps = log.read_text().splitlines()
    first = next(i for i, line in enumerate(steps) if line.startswith("open .a.json."))
    assert len(steps) - first >= 5
    for at in range(first, len(steps)):
        command = Command(main.main, whole.words, tmp_path / f"at_{at}")
        if replaced:
            shutil.copytree(old.folder, command.folder)
        assert run(command(*again), said, Steps(command.folder, at=at)).code == DIED, steps[at]
        ended = run(command("--resume"), said)
        if replaced and ended.code == 2 and "was made with another seed" in ended.err:
            assert at <= first + 1, steps[at]  # nothing has been published
            check_equal_but_temporaries(command.folder, old.folder)
            ended = run(command("--overwrite"), said)
        assert ended.code == 0, (steps[at], ended.err)
        check_equal(command.folder, whole.folder)


def check_equal_but_temporaries(made, whole):
    for path in made.iterdir():
        if path.name.startswith("."):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    check_equal(made, whole)


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("command", ["diffusion_forcing", "talking_avatar", "chain", "jobs"], indirect=True)
def test_a_disk_that_is_full_at_some_step(command, tmp_path, said, request):
    """One line, nothing half-written; and after some space was made, --resume."""
    log, chance = tmp_path / "log", random.Random(1)
    growing = {"act": full, "kinds": ("open", "os.rename", "os.link", "os.mkdir")}
    assert run(command(), said, Steps(command.folder, log=log, **growing)).code == 0
    steps = log.read_text().splitlines()
    for number in range(request.config.getoption("rounds")):
        broken, at = (
            Command(command.program, command.words, tmp_path / str(number)),
            chance.randrange(len(steps)),
        )
        ended = run(broken(), said, Steps(broken.folder, at=at, **growing))
        complaints = [line for line in ended.err.splitlines() if line.startswith(("error: ", "Traceback"))]
        assert ended.code in (0, 1, 2), (steps[at], ended.err)
        assert ended.code == 0 or "No space left on device" in ended.err, (steps[at], ended.err)
        assert len(complaints) <= 2, ended.err  # of a list of jobs: the video's, and how many failed
        assert "Traceback" not in ended.err
        if broken.folder.exists():
            left = [path.name for path in broken.folder.glob(".*")]
            assert all(".json." in name for name in left)  # of a video that has its name already
        ended = run(broken("--resume"), said)
        assert ended.code == 0, (steps[at], ended.err)
        check_equal(broken.folder, command.folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [600, 3000])
def test_files_may_not_grow(reference, tmp_path, said, kind, limit):
    """A limit on the size of files is met by ourselves, or by the encoder."""
    command = Command(main.main, (*reference, "--output", f"OUT/a{KINDS[kind]}"), tmp_path / "out")

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    assert command()() == 0
    shutil.rmtree(command.folder)
    ended = finish(start(command("--quiet"), said, limited), said)
    assert ended.code in (0, 1, 2)
    assert "Traceback" not in ended.err
    assert ended.code == 0 or not command.folder.exists() or not list(command.folder.iterdir())


@pytest.mark.parametrize("progress", ["none", "lines"])
@pytest.mark.parametrize("megabytes", [0, 1, 20, 60, 200])
def test_too_little_memory(reference, tmp_path, said, megabytes, progress):
    """With so much more address space than the process has when it starts; also threads may not start."""
    command = Command(main.main, (*reference, "--output", "OUT/a.npy"), tmp_path / "out")
    assert command()() == 0
    shutil.rmtree(command.folder)

    def limited():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    ended = finish(start(command("--progress", progress), said, limited), said)
    assert ended.code in (0, 1, 4), ended.err
    assert "Traceback" not in ended.err
    assert ended.code == 0 or not command.folder.exists() or not list(command.folder.iterdir())
    assert run(command("--overwrite"), said).code == 0
