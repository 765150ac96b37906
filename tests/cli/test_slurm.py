"""deploy/slurm.sh, and what videogen reads of SLURM's variables; srun and scontrol are stand-ins."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from videogen.distributed import Ranks, get_ranks

SCRIPT = ROOT / "deploy/slurm.sh"
# Starts as many processes as the job has tasks, on one machine, as srun does.
SRUN = """#!/usr/bin/env bash
while [ "${1#--}" != "$1" ]; do shift; done
export SLURM_STEP_NUM_TASKS=$SLURM_NTASKS SLURM_STEP_TASKS_PER_NODE=$SLURM_NTASKS SLURM_NODEID=0
for ((rank = 0; rank < SLURM_NTASKS; rank++)); do
  SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" &
  processes+=($!)
done
for process in "${processes[@]}"; do wait "$process" || failed=1; done
exit "${failed:-0}"
"""
ECHO = """#!/usr/bin/env bash
printf '%s\\n' "$SLURM_PROCID" "${MASTER_ADDR:-}" "$@" > "told_$SLURM_PROCID"
"""
TWO = {"SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1(x2)", "SLURM_LOCALID": "0"}
PLACE = {"MASTER_ADDR": "node7", "MASTER_PORT": "29500"}
RANKS = {
    "srun": (TWO | PLACE | {"SLURM_PROCID": "2", "SLURM_NODEID": "1"}, (2, 6, 0, 2)),
    "another machine": (TWO | PLACE | {"SLURM_PROCID": "5", "SLURM_NODEID": "3"}, (5, 6, 0, 1)),
    "independent processes": (TWO | {"SLURM_PROCID": "2", "SLURM_NODEID": "1"}, None),
    "a batch script without srun": (PLACE | {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),
    "torchrun in a job": (
        TWO | PLACE | {"SLURM_PROCID": "2", "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
        | {"LOCAL_WORLD_SIZE": "4"},
        (1, 4, 1, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RANKS)
def test_ranks(monkeypatch, case):
    variables, expected = RANKS[case]
    for name in os.environ:
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    get_ranks.cache_clear()
    found = get_ranks()
    monkeypatch.undo()
    get_ranks.cache_clear()
    names = ("rank", "size", "local_rank", "local_size")
    assert found == (Ranks(**dict(zip(names, expected, strict=True)), launched=True) if expected else Ranks())


@pytest.fixture
def submit(tmp_path):
    """Return a function that runs the script as a job of SLURM in a folder of its own."""
    programs = {"srun": SRUN, "scontrol": "#!/bin/sh\necho localhost\necho node8\n", "echo_python": ECHO}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "generate_video.py").symlink_to(ROOT / "generate_video.py")

    def run(tasks, *arguments, **variables):
        job = {"SLURM_NTASKS": tasks, "SLURM_JOB_ID": "1234", "SLURM_JOB_NODELIST": "localhost,node8"}
        place = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path)}
        return subprocess.run(
            ["bash", SCRIPT, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), **place, **job, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_every_process_gets_the_arguments(submit, tmp_path):
    python = str(tmp_path / "echo_python")
    done = submit("2", "--prompt", "two words", "--output", "x.mp4", PYTHON=python)
    assert done.returncode == 0, done.stderr
    words = ["generate_video.py", "--prompt", "two words", "--output", "x.mp4", "--use_usp"]
    assert (tmp_path / "told_0").read_text().splitlines() == ["0", "localhost", *words]
    assert (tmp_path / "told_1").read_text().splitlines() == ["1", "localhost", *words]


def test_a_job_of_an_array_has_a_list_of_its_own(submit, tmp_path):
    python = str(tmp_path / "echo_python")
    done = submit("1", "--jobs", "part_%a", PYTHON=python, SLURM_ARRAY_TASK_ID="3")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "told_0").read_text().splitlines() == [
        "0",
        "",
        "generate_video.py",
        "--jobs",
        "part_3",
    ]


@pytest.mark.slow
def test_two_processes_make_one_video(submit, tmp_path):
    size = ("--height", "32", "--width", "48", "--num_frames", "5", "--num_inference_steps", "2")
    task = (
        *size,
        "--device",
        "cpu",
        "--seed",
        "1",
        "--task_type",
        "text_to_video",
        "--model_id",
        "tiny",
        "--prompt",
        "a swan",
    )
    done = submit("2", *task, "--output", str(tmp_path / "swan.mp4"), PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "swan.mp4")]
    assert json.loads((tmp_path / "swan.json").read_text())["seed"] == 1
    assert (tmp_path / "swan.mp4").stat().st_size
