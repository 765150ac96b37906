"""What the README shows works, and what checks it is what it says."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from videogen.cli.parser import parse
from videogen.tasks.options import OPTIONS
from videogen.tasks.table import check_used

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def block_with(word):
    (block,) = (block for block in blocks("bash") if word in block)
    return block


def commands():
    """Every command of the README, as words."""
    for block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.search(r"generate_(video|continuous)\.py", line):
                inside = line[found.end() :].removesuffix(')"').removesuffix(")")
                yield shlex.split(inside.replace("$seed", "1"))


def test_every_command_is_understood():
    shown = list(commands())
    assert len(shown) >= 15
    for words in shown:
        given, _ = parse(words)
        if "task_type" in given:
            check_used(given["task_type"], {n: v for n, v in given.items() if not OPTIONS[n].about_run})


def test_ci_runs_the_test_command():
    (command,) = re.search(r"## Tests\n\n```bash\n(.*?)\n```", README, flags=re.DOTALL).groups()
    assert command in (ROOT / ".ci/run").read_text().splitlines()


@pytest.mark.slow
def test_the_loop_over_seeds(tmp_path):
    """Run as it stands, in a folder where .venv/bin/python is this Python."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    launcher = tmp_path / ".venv/bin/python"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    launcher.chmod(0o755)
    for name in ("generate_video.py", "ref_imgs"):
        (tmp_path / name).symlink_to(ROOT / name)
    script = block_with("for seed in")
    assert "set -euo pipefail" in script
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"made take_{seed}.mp4" for seed in (1, 2, 3)]
    assert json.loads(Path(tmp_path, "take_3.json").read_text())["seed"] == 3
