"""--env: what is installed, what is missing, broken or unneeded, without importing anything heavy."""

import json
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from videogen.cli.environment import environment
from videogen.cli.installed import dependencies, optional, with_problems
from videogen.planning.local_gpus import TorchBuild

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


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Return what adds a package with metadata and code to those that Python finds first."""
    monkeypatch.syspath_prepend(tmp_path)

    def add(name, version, code, *needs):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        (folder / "METADATA").write_text(
            "\n".join(lines + [f"Requires-Dist: {need}" for need in needs]) + "\n"
        )
        (folder / "top_level.txt").write_text(f"{name}\n")
        (folder / "RECORD").write_text(f"{name}.py,,\n")
        (tmp_path / f"{name}.py").write_text(code)

    return add


def test_packages_that_break_others(site):
    site("torchaudio", "2.9.0", "raise OSError('undefined symbol: _ZN3c10')", "torch==2.9.0", "torch-extras")
    site("torchvision", "0.28.0", "", "torch==2.13.0")
    found = dict(optional(TorchBuild(version="2.13.0+cpu")))
    assert "built for torch 2.9.0, and 2.13.0+cpu is here: uninstall it" in str(found["torchaudio"])
    assert found["torchvision"].problem is None
    tried = with_problems({name: found[name] for name in ("torchaudio", "torchvision")})
    assert "does not import (undefined symbol: _ZN3c10): install it anew" in str(tried["torchaudio"])
    assert tried["torchvision"].problem is None


def test_a_package_that_ends_python(site):
    site("xformers", "0.1", "import os; os._exit(139)")
    site("torchvision", "0.1", "raise ImportError('no')")
    found = with_problems(dict(optional(None)))
    assert "importing it ends Python (exit code 139)" in str(found["xformers"])
    assert "does not import (no)" in str(found["torchvision"])  # those behind it are tried too


def test_an_older_version_than_needed(site):
    site("einops", "0.1.0", "")
    assert str(dict(dependencies())["einops"]) == "0.1.0: >=0.8 is needed; pip install 'einops>=0.8'"


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
