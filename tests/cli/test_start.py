"""The commands where Python is too old or packages are missing."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def bare(*words):
    """Run the program in a Python that has no packages at all."""
    command = [sys.executable, "-S", "generate_video.py", *words]
    return subprocess.run(command, cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True, check=False)


def test_an_older_python():
    code = "import sys; sys.version_info = (3, 9, 2); from videogen.cli.start import videos; videos()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: Python 3.9: 3.11 or newer is needed")


def test_nothing_is_installed():
    done = bare("--env")
    assert done.returncode == 1
    for said in ("torch not installed: needed; pip install 'torch>=2.13,<3'",):
        assert said in done.stderr
    assert re.search(r"^RAM: [\d.]+ [GM]B of [\d.]+ GB free", done.stderr, re.MULTILINE)
    assert "torch is not installed" in done.stderr
    done = bare("--task_type", "text_to_video")
    assert done.returncode == 1
    assert re.fullmatch(r"error: \w+ is not installed: pip install -r requirements.txt.*\n", done.stderr)


@pytest.mark.parametrize("command", ["videos", "chain"])
def test_one_package_is_missing(command):
    code = f"import sys; sys.modules['yaml'] = None; from videogen.cli.start import {command}; {command}()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: yaml is not installed: pip install -r requirements.txt (--env: what else)\n"
    )


@pytest.mark.parametrize(
    ("command", "said"), [("videos", "generate_video.py"), ("chain", "generate_continuous.py")]
)
def test_each_command_starts_its_own_program(command, said):
    code = f"from videogen.cli.start import {command}; {command}()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {said}")
