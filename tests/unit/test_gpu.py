"""What only a GPU shows; skipped without one."""

import json

import numpy as np
import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def on_gpu(cli, r2v, tmp_path):
    """Make a video on the GPU; returns its frames and its record."""
    words = [*r2v[: r2v.index("--device")], "--device", "cuda"]

    def make(*more):
        output = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        finished = cli(*words, "--output", output, *more)
        assert finished.code == 0, finished.err
        return np.load(output).astype(int), json.loads(output.with_suffix(".json").read_text())

    return make


@pytest.mark.parametrize("options", [("--offload",), ("--attention_backend", "cudnn"), ("--compile",)])
def test_options_change_nothing_but_rounding(on_gpu, options):
    plain, _ = on_gpu()
    frames, record = on_gpu(*options)
    assert np.abs(plain - frames).mean() < 2
    assert record["peak_memory"]["gpu"] > 0


def test_low_vram_runs(on_gpu):
    frames, record = on_gpu("--low_vram")
    assert frames.std() > 5
    assert record["vae_tiling"]


def test_the_cpu_agrees_in_float32(on_gpu, cli, r2v, tmp_path):
    frames, _ = on_gpu("--dtype", "float32", "--attention_backend", "native")
    assert cli(*r2v, "--dtype", "float32", "--output", tmp_path / "cpu.npy").code == 0
    assert np.abs(frames - np.load(tmp_path / "cpu.npy").astype(int)).max() <= 2


def test_noise_may_be_drawn_on_the_gpu(on_gpu):
    first, _ = on_gpu("--noise_device", "cuda")
    again, _ = on_gpu("--noise_device", "cuda")
    other, _ = on_gpu()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
