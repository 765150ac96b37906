"""What only a GPU shows; skipped without one."""

import itertools
import json

import numpy as np
import pytest
import torch

from tests.conftest import REFS
from videogen.engine import load, session
from videogen.models.wan.transformer import WanBlocks
from videogen.runtime.component_offload import Copier
from videogen.tasks.table import VARIANTS

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


def test_one_more_try_with_offload_makes_the_same_video(on_gpu, cli, r2v, tmp_path, monkeypatch):
    """A GPU that is too small is played; what follows from it is real."""
    plain, made = on_gpu("--seed", 1, "--offload")
    original, tried, loads, set_up = session.write, [], [], session.set_up
    monkeypatch.setattr(session, "set_up", lambda *args: (loads.append(1), set_up(*args))[1])

    def write(plan, *args, **kwargs):
        tried.append((plan.index, plan.options.offload))
        if not plan.options.offload:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(plan, *args, **kwargs)

    monkeypatch.setattr(session, "write", write)
    words = [*r2v[: r2v.index("--device")], "--device", "cuda", "--output", tmp_path / "out/{seed}.npy"]
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"seed": [1, 2]}')
    finished = cli(*words, "--jobs", jobs, "--retry", "offload")
    assert finished.code == 0, finished.err
    assert tried == [(1, False), (1, True), (2, True)]  # the second is known not to fit
    assert len(loads) == 2
    assert "once more with --offload (about " in finished.err
    record = json.loads((tmp_path / "out/1.json").read_text())
    assert record["request"]["offload"] is True
    assert record["plan_hash"] == made["plan_hash"]
    assert np.array_equal(np.load(tmp_path / "out/1.npy"), plain)
    lines = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert [line["retried"] for line in lines] == ["offload", "offload"]


def test_decoding_in_bfloat16_is_close(on_gpu):
    plain, _ = on_gpu()
    frames, record = on_gpu("--vae_dtype", "bfloat16")
    assert 0 < np.abs(plain - frames).mean() < 4
    assert record["request"]["vae_dtype"] == "bfloat16"


def test_copies_through_pinned_memory_are_whole():
    sources = [torch.randn(5000, 5000), torch.tensor(7.0), torch.arange(9, dtype=torch.bfloat16)]
    copies = Copier(torch.device("cuda")).start(sources)()
    assert all(torch.equal(one, two.cpu()) for one, two in zip(sources, copies, strict=True))


def test_the_text_encoder_is_gone_while_denoising(monkeypatch, on_gpu):
    seen = []
    original = WanBlocks.forward

    def forward(blocks, *arguments):
        seen.append(next(pipelines[0].text_encoder.parameters()).device.type)
        return original(blocks, *arguments)

    pipelines = []
    original_load = load.load_pipeline
    monkeypatch.setattr(
        load, "load_pipeline", lambda *args: (pipelines.append(original_load(*args)), pipelines[-1])[1]
    )
    monkeypatch.setattr(WanBlocks, "forward", forward)
    on_gpu()
    assert set(seen) == {"cpu"}


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


FAMILIES = [(name, row) for name, rows in VARIANTS.items() for row in rows]


@pytest.mark.parametrize("mode", [(), ("--offload",), ("--low_vram",)], ids=["plain", "offload", "low_vram"])
@pytest.mark.parametrize(("task", "row"), FAMILIES, ids=[f"{name}-{row.family}" for name, row in FAMILIES])
def test_every_task_in_every_memory_mode(cli, make_video, speech, tmp_path, task, row, mode):
    given = {"image": REFS / "robot.png", "video": make_video(), "audio": speech}
    inputs = [f"--{name}={given[files.kind]}" for name, files in row.inputs.items() if files.fewest]
    lengths = {"talking_avatar": ("--num_frames", 29)}
    length = ("--duration", 2) if "extension" in task else lengths.get(task, ("--num_frames", 5))
    usable = row.uses("teacache")
    cached = ("--teacache", "--teacache_model", "T2V-14B") if usable else ("--cache", "first_block:1")
    finished = cli(
        *(
            "--task_type",
            task,
            "--model_id",
            f"tiny:{next(iter(row.tiny))}",
            "--prompt",
            "x",
            "--device",
            "cuda",
        ),
        *("--height", 64, "--width", 64, "--num_inference_steps", 4, *length, *inputs, *mode, *cached),
        *("--output", tmp_path / "a.npy"),
    )
    assert finished.code == 0, finished.err
    assert np.load(tmp_path / "a.npy").std() > 5


def test_experts_are_never_both_on_the_gpu_when_offloaded(monkeypatch):
    """And change once."""
    import videogen

    pipeline = videogen.load("text_to_video", "tiny:wan22-a14b", dtype="float32", device="cpu")
    pipeline.enable_model_cpu_offload()
    seen = []
    for expert in pipeline.transformers:
        expert.blocks.register_forward_pre_hook(
            lambda *_: seen.append(tuple(t.device.type for t in pipeline.transformers))
        )
    pipeline("x", num_frames=5, num_inference_steps=8, output_type="latent")
    assert set(seen) == {("cuda", "cpu"), ("cpu", "cuda")}
    assert sum(one != other for one, other in itertools.pairwise(seen)) == 1
