"""Which packages are installed, and what is wrong with those that do not fit."""

import pytest

from videogen.cli.installed import dependencies, optional, with_problems
from videogen.planning.local_gpus import TorchBuild


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


def test_what_is_here_needs_nothing_else():
    found = dict(dependencies())
    assert found["torch"].version
    assert found["torch"].problem is None
