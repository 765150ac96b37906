"""--env: what is installed, what is missing, broken or unneeded, without importing anything heavy."""

import json
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from videogen.cli.environment import environment

NAMES = re.findall(r"^([\w-]+)", (ROOT / "dependencies.txt").read_text(), flags=re.MULTILINE)


def test_env_imports_nothing_heavy():
    code = (
        "import sys; from videogen.cli.main import main; main(['--env']); "
        "assert not {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--env -v imports them" in done.stdout


def test_every_dependency_has_a_line(cli):
    lines = cli("--env").out.splitlines()
    here = [name for name in NAMES if name != "decord"]  # which has wheels for one processor only
    for name in here:
        assert sum(line.startswith(f"{name} ") for line in lines) == 1, name
    assert any(re.fullmatch(r"torch 2\.\d+\.\d+\S*", line) for line in lines)
    for start in ("videogen 0.", "RAM: ", "disk for models (", "disk for results (", "cuda: "):
        assert any(line.startswith(start) for line in lines), start
    (flash,) = (line for line in lines if line.startswith("flash_attn "))
    assert "installed" not in flash or "torch's own kernels do without it" in flash


def test_the_same_as_json(cli):
    found = json.loads(cli("--env", "--json").out)
    assert {*NAMES} - {*found["packages"]} <= {"decord"}
    assert found["packages"]["torch"]["version"].startswith("2.")
    assert found["disk"]["models"]["free_bytes"] > 0
    assert found["ram_bytes"] > found["ram_free_bytes"] > 0
    assert found["imported"] is False
    assert isinstance(found["gpus"], list)


def test_the_commit_of_a_checkout():
    done = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("no checkout")
    assert environment().source.removesuffix(", changed") == f"commit {done.stdout.strip()}"


def test_no_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment().source in ("commit unknown (no git)", "installed as a package")
