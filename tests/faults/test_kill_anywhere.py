"""The whole command line killed anywhere, on full disks and in too little memory; then --resume.

``pytest -m slow tests/faults --rounds 100`` kills it more often.
"""

import errno
import json
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.conftest import REFS
from tests.faults.harness import DIED, Steps, finish, kill_sometime, run, start
from videogen.cli import chain, main
from videogen.tasks.table import TASKS

pytestmark = pytest.mark.slow
SMALL = (
    "--model_id",
    "tiny",
    "--device",
    "cpu",
    "--height",
    32,
    "--width",
    48,
    "--num_inference_steps",
    1,
    "--seed",
    1,
)
KINDS = {"mp4": ".mp4", "gif": ".gif", "npy": ".npy", "png": ""}


@dataclass
class Command:
    """A command that makes the same files, wherever ``folder`` is."""

    program: Callable[[list[str]], int]
    words: tuple
    folder: Path

    def __call__(self, *more):
        words = [str(word).replace("OUT", str(self.folder)) for word in (*self.words, *more)]
        return lambda: self.program(words)


def content(path):
    """What a file or a folder of frames shows."""
    if path.is_dir():
        return np.stack([np.asarray(Image.open(file)) for file in sorted(path.iterdir())])
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix in (".mp4", ".gif"):
        with av.open(str(path)) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    return np.asarray(Image.open(path))


def check_equal(made, whole):
    """The same files, with the same frames and tensors, made by the same plans, and nothing else."""
    assert sorted(path.name for path in made.iterdir()) == sorted(path.name for path in whole.iterdir())
    for path in whole.iterdir():
        ours = made / path.name
        if path.suffix == ".json":
            records = [json.loads(file.read_text()) for file in (ours, path)]
            assert records[0].get("plan_hash") == records[1].get("plan_hash")
        elif path.suffix == ".safetensors":
            tensors, expected = load_file(ours), load_file(path)
            assert tensors.keys() == expected.keys()
            assert all(np.array_equal(tensors[name], expected[name]) for name in expected)
        elif path.suffix != ".txt":
            assert np.array_equal(content(ours), content(path)), path.name


@pytest.fixture
def said(tmp_path):
    return tmp_path / "said"


@pytest.fixture
def reference(r2v):
    return (*r2v[: r2v.index("--num_inference_steps")], "--num_inference_steps", 1, "--device", "cpu")


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


def of_task(task, make_video, speech):
    inputs = {
        "single_shot_extension": ("--input_video", make_video(), "--duration", 6),
        "shot_switching_extension": ("--input_video", make_video(), "--duration", 2),
        "talking_avatar": (
            "--input_audio",
            speech,
            "--input_image",
            REFS / "balloon.png",
            "--num_frames",
            29,
        ),
        "diffusion_forcing": ("--num_frames", 17, "--base_num_frames", 9, "--overlap_history", 5),
    }[task]
    words = ("--task_type", task, *SMALL, "--prompt", "x", *inputs, "--save_latents", "OUT/a.safetensors")
    return main.main, (*words, "--output", "OUT/a.npy")


@pytest.fixture
def command(request, tmp_path, reference, make_video, speech):
    if request.param == "chain":
        words = (
            "--video",
            make_video(),
            "--ckpt_dir",
            "tiny",
            "--num_videos",
            3,
            "--base_seed",
            7,
            "--no_vlm",
        )
        words += ("--sample_steps", 1, "--frame_num", 5, "--device", "cpu", "--output_dir", "OUT")
        program = chain.main
    elif request.param == "jobs":
        jobs = tmp_path / "jobs.jsonl"
        jobs.write_text(
            "\n".join(json.dumps({"prompt": word, "seed": len(word)}) for word in ("a", "bb", "ccc"))
        )
        program, words = main.main, (*reference, "--jobs", jobs, "--output", "OUT/{index}.gif")
        at = words.index("--prompt")
        words = words[:at] + words[at + 2 :]
    else:
        program, words = of_task(request.param, make_video, speech)
    return Command(program, words, tmp_path / "whole")


SEGMENTED = [name for name, task in TASKS.items() if task.uses("keep_parts")]
everything = pytest.mark.parametrize("command", [*SEGMENTED, "chain", "jobs"], indirect=True)


@everything
def test_killed_anywhere(command, tmp_path, said, request):
    """Killed at a random time, at a random step, and when it goes on again, until it ends."""
    log, seed = tmp_path / "log", random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    print(f"seed {seed}")  # noqa: T201 - shown if it fails
    assert command()() == 0  # with all libraries loaded, and the tiny model made
    shutil.rmtree(command.folder)
    started = time.monotonic()
    assert run(command(), said, Steps(command.folder, log=log)).code == 0
    seconds, steps = time.monotonic() - started, len(log.read_text().splitlines())
    for number in range(request.config.getoption("rounds")):
        broken = Command(command.program, command.words, tmp_path / str(number))
        for more in ((), ("--resume",), ("--resume",)):
            if chance.random() < 0.5:
                ended = kill_sometime(broken(*more), said, seconds, chance)
            else:
                ended = run(broken(*more), said, Steps(broken.folder, at=chance.randrange(steps)))
            assert ended.code in (0, DIED, -signal.SIGKILL), ended.err
        ended = run(broken("--resume"), said)
        assert ended.code == 0, ended.err
        check_equal(broken.folder, command.folder)


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@everything
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
        assert len(complaints) <= 1, ended.err
        if broken.folder.exists():
            assert not [path for path in broken.folder.glob(".*") if not path.name.startswith(".a.json")]
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


@pytest.mark.parametrize("megabytes", [0, 20, 60, 200])
def test_too_little_memory(reference, tmp_path, said, megabytes):
    """With so much more address space than the process has when it starts."""
    command = Command(main.main, (*reference, "--output", "OUT/a.npy"), tmp_path / "out")
    assert command()() == 0
    shutil.rmtree(command.folder)

    def limited():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    ended = finish(start(command("--quiet"), said, limited), said)
    assert ended.code in (0, 1, 4), ended.err
    assert "Traceback" not in ended.err
    assert ended.code == 0 or not command.folder.exists() or not list(command.folder.iterdir())
    assert run(command("--overwrite"), said).code == 0
