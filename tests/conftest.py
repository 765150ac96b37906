"""Fixtures shared by all tests: golden cases, a private cache, and the command line in this process."""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
REFS = ROOT / "ref_imgs"

sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the network
os.environ["HF_HUB_CACHE"] = str(Path(tempfile.gettempdir()) / "no-such-cache")  # read when imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory):
    """Tiny models are made anew for every test session, and nothing is left in the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["VIDEOGEN_CACHE"] = str(folder)
    return folder


@dataclass
class Case:
    """One golden case: what was done (``about``), and its tensors."""

    folder: Path
    about: dict
    inputs: dict
    outputs: dict


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Case]:
    from safetensors.torch import load_file

    def read(name: str) -> Case:
        folder = GOLDEN / name
        tensors = {
            part: load_file(file) if (file := folder / f"{part}.safetensors").is_file() else {}
            for part in ("inputs", "outputs")
        }
        return Case(folder, json.loads((folder / "case.json").read_text()), **tensors)

    return read


@dataclass
class Finished:
    """What a command line run left behind."""

    code: int
    out: str
    err: str

    @property
    def paths(self) -> list[Path]:
        return [Path(line) for line in self.out.splitlines()]

    @property
    def complaint(self) -> str:
        """The one line that says what was wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def cli(capsys) -> Callable[..., Finished]:
    """Run the command line in this process."""
    from videogen.cli import main

    def run(*arguments: object) -> Finished:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return run


@pytest.fixture
def r2v() -> list[str]:
    """The shortest reference_to_video command on the tiny model, without an output."""
    return [
        *("--task_type", "reference_to_video", "--model_id", "tiny", "--prompt", "a robot waves"),
        *("--ref_imgs", str(REFS / "robot.png"), "--height", "32", "--width", "48", "--num_frames", "5"),
        *("--num_inference_steps", "2", "--device", "cpu"),
    ]


@pytest.fixture(scope="session")
def tiny_pipeline():
    """A loaded float32 pipeline; tests must leave it as they found it."""
    import torch

    import videogen

    return videogen.load("reference_to_video", "tiny", dtype=torch.float32, device="cpu")


@pytest.fixture
def robot():
    from PIL import Image

    return Image.open(REFS / "robot.png").convert("RGB")
