"""What is installed has everything it needs, away from the repository."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

from tests.conftest import REFS, ROOT


def test_an_installed_videogen_finds_its_configs(tmp_path):
    source, wheels, site, elsewhere = (tmp_path / name for name in ("source", "wheels", "site", "elsewhere"))
    needed = ("videogen", "configs", "miniature", "pyproject.toml", "README.md", "LICENSE")
    source.mkdir()
    for name in (*needed, "dependencies.txt"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", wheels]
    subprocess.run([*pip, source], check=True, capture_output=True, text=True)
    (wheel,) = wheels.glob("videogen-*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    elsewhere.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from videogen.cli.start import videos; videos()"),
            *("--task_type", "reference_to_video", "--model_id", "miniature", "--prompt", "x"),
            *("--ref_imgs", REFS / "robot.png", "--output", "x.mp4", "--dry_run", "--json"),
        ],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_frames"] == 25
    packed = set(zipfile.ZipFile(wheel).namelist())
    configs = {file.relative_to(ROOT).as_posix() for file in (ROOT / "configs").rglob("*.yaml")}
    assert {f"videogen/{name}" for name in configs} <= packed
    weights = ROOT / "miniature/weights"
    files = {file.relative_to(weights).as_posix() for file in weights.rglob("*") if file.is_file()}
    assert {f"videogen/miniature/{name}" for name in files} <= packed
    assert "transformer/diffusion_pytorch_model.safetensors" in files
    modules = {file.relative_to(ROOT).as_posix() for file in (ROOT / "videogen").rglob("*.py*")}
    modules = {name for name in modules if name.endswith((".py", ".pyi"))}
    assert modules <= packed
    assert "videogen/py.typed" in packed
    (about,) = (name for name in packed if name.endswith("/METADATA"))
    metadata = zipfile.ZipFile(wheel).read(about).decode().splitlines()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Dist: torch<3,>=2.13" in metadata  # requirements.txt pins it
    (commands,) = (name for name in packed if name.endswith("/entry_points.txt"))
    assert "videogen = videogen.cli.start:videos" in zipfile.ZipFile(wheel).read(commands).decode()
