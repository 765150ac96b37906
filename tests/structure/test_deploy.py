"""The Dockerfile and the shell scripts, by their linters and by what they promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SCRIPTS = (ROOT / "deploy/slurm.sh", ROOT / "benchmarks/first_hour.sh", ROOT / ".ci/run")


def lint(program, *files):
    """Run a linter of the tests' packages (pip install '.[dev]')."""
    found = Path(sys.executable).parent / program
    if not found.exists():
        pytest.skip(f"needs {program}")
    done = subprocess.run([found, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile():
    lint("hadolint", ROOT / "Dockerfile")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts(script):
    lint("shellcheck", script)


def test_the_image():
    """No root, models on a volume, --env in the build; all that is copied exists."""
    *_, user = re.findall(r"^USER (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    assert user not in ("0", "root")
    (home,) = re.findall(r"HF_HOME=(\S+)", DOCKERFILE)
    assert f"VOLUME {home}" in DOCKERFILE.splitlines()
    assert re.search(r"^RUN .*videogen --env", DOCKERFILE, flags=re.MULTILINE)
    for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, flags=re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())
