"""A task that is added as ``docs/development.md`` says, and nothing else touched, makes a video."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs/development.md").read_text(encoding="utf-8")


def piece(name: str) -> str:
    """Return the code of the page behind a mark."""
    return re.search(rf"<!-- toy {name} -->\n```\w+\n(.*?)```", PAGE, flags=re.DOTALL)[1]


@pytest.mark.slow
def test_a_task_costs_a_row_a_yaml_file_and_a_pipeline(tmp_path):
    for name in ("videogen", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "generate_video.py", tmp_path)
    family = tmp_path / "videogen/tasks/families/skyreels_v2.py"
    family.write_text(f"{family.read_text()}\n\n{piece('row')}")
    (tmp_path / "configs/five_frames.yaml").write_text(piece("yaml"))
    (tmp_path / "videogen/pipelines/five_frames.py").write_text(piece("pipeline"))
    words = ["--task_type", "five_frames", "--model_id", "tiny", "--prompt", "a robot", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "generate_video.py", *words, "--output", "toy.mp4"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "toy.mp4").stat().st_size > 0
    helped = subprocess.run(
        [sys.executable, "generate_video.py", "--task_type", "five_frames", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "--fps" in helped
    assert "--duration" not in helped
