"""Fixtures shared by all tests: golden cases, a private cache, and the command line in this process."""

import json
import lzma
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKED = Path(__file__).parent / "golden"
GOLDEN = Path(__file__).parent / ".golden"  # the same, unpacked
REFS = ROOT / "ref_imgs"

sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the network
os.environ["HF_HUB_CACHE"] = str(Path(tempfile.gettempdir()) / "no-such-cache")  # read when imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests share the cores among them


def _unpack() -> None:
    """Bring ``GOLDEN`` up to date; several test sessions may do so at once."""
    for packed in PACKED.rglob("*"):
        file = GOLDEN / packed.relative_to(PACKED)
        file = file.with_suffix("") if file.suffix == ".xz" else file
        if packed.is_dir() or packed.suffix == ".py":
            continue
        if not file.exists() or file.stat().st_mtime < packed.stat().st_mtime:
            content = packed.read_bytes()
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_name(f"{file.name}.{os.getpid()}")
            partial.write_bytes(lzma.decompress(content) if packed.suffix == ".xz" else content)
            partial.replace(file)


_unpack()  # test modules name its folders


def pytest_addoption(parser):
    parser.addoption("--rounds", type=int, default=3, help="faults of each kind (tests/faults)")


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
    from videogen.cli.main import main

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


@pytest.fixture(scope="session")
def make_video(tmp_path_factory):
    """Draw a short video: a square that moves over a gradient, with or without a tone."""
    import av
    import numpy as np

    folder = tmp_path_factory.mktemp("videos")

    def make(name="source.mp4", *, frames=30, size=(160, 96), fps=24, audio=False, codec="libx264"):
        if (folder / name).exists():  # encoders with several threads do not write the same bytes twice
            return folder / name
        width, height = size
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=fps)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            sound = container.add_stream("aac", rate=16000, layout="mono") if audio else None
            for index in range(frames):
                picture = np.zeros((height, width, 3), np.uint8)
                picture[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)
                picture[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
                left = index * 3 % max(1, width - 16)
                picture[height // 3 : height // 3 + 12, left : left + 12] = 255
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
            if sound is not None:
                wave = np.sin(np.arange(int(16000 * frames / fps)) * 0.17).astype(np.float32)[None]
                chunk = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                chunk.sample_rate = 16000
                container.mux(sound.encode(chunk))
                container.mux(sound.encode())
        return folder / name

    return make


@pytest.fixture(scope="session")
def speech(tmp_path_factory):
    """A sound of 1.4 seconds, 35 frames of an avatar, with a click at one second."""
    import wave

    import numpy as np

    path = tmp_path_factory.mktemp("sounds") / "speech.wav"
    samples = 0.1 * np.sin(np.arange(22400) * 0.05)
    samples[16000:16160] = 0.9
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture
def robot():
    from PIL import Image

    return Image.open(REFS / "robot.png").convert("RGB")


@pytest.fixture
def refuse(monkeypatch):
    """Let a function fail with an error number."""

    def refused(module, name, number):
        def fail(*args, **kwargs):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(module, name, fail)

    return refused
