"""Quantized transformers at full size take on the card what ``--dry_run`` says, and less than bfloat16."""

from functools import partial

import pytest
import torch

from benchmarks import quantized
from tests.simulated.guard import has_compiler
from tests.simulated.jobs import MODES, ROOM, run_with_little_room
from videogen.models.wan.transformer import WanDiT

pytest.importorskip("gguf")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not has_compiler(), reason="needs g++ for the device guard"),
]
# What a weight of the blocks takes, in bytes; SkyReels-V2-T2V-14B has 14.05e9 of them.
FORMATS = {
    "float8": (quantized.write_float8, {}, 1),
    "Q8_0": (partial(quantized.write_gguf, "Q8_0"), {}, 34 / 32),
    "Q4_K": (partial(quantized.write_gguf, "Q4_K"), {}, 144 / 256),
    "int8": (None, {"quantize": "int8"}, 1),
}
BLOCK_WEIGHTS = 40 * (8 * 5120**2 + 2 * 5120 * 13824)
FRAMES = 9


@pytest.mark.parametrize(("name", "mode"), [*((name, "offload") for name in FORMATS), ("int8", "plain")])
def test_a_14b_job_takes_what_its_weights_do(tmp_path, name, mode):
    write, options, each = FORMATS[name]
    if write is not None:
        with torch.device("meta"):
            tensors = WanDiT(**quantized.LARGE_SIZES).state_dict()
        halves = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
        options = {"transformer": [str(write(halves, tmp_path / "large"))]}
    settings = {"num_inference_steps": 2, **options, **MODES[mode]}
    job, fitted = run_with_little_room("text_to_video", frames=FRAMES, **settings)
    assert fitted, f"{job.peak / 1e9:.1f} GB"
    assert job.peak <= job.estimate <= job.peak * ROOM, f"{job.peak / 1e9:.2f}, {job.estimate / 1e9:.2f} GB"
    (transformer,) = job.plan.facts.memory.transformers
    assert BLOCK_WEIGHTS * each < transformer < BLOCK_WEIGHTS * (each + 0.15)
    (held,) = (quantized.weight_bytes((*t.parameters(), *t.buffers())) for t in job.pipeline.transformers)
    assert transformer == pytest.approx(held, rel=ROOM - 1)
