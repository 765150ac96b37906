"""The context-parallel plan of the transformer: two processes give what one gives."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

WORKER = """
import os, sys, torch, torch.distributed as dist
from diffusers import ContextParallelConfig
from videogen.models.wan.transformer import WanDiT

dist.init_process_group("gloo")
torch.accelerator.device_count = lambda: 2  # diffusers divides by it; a CPU has none
torch.manual_seed(0)
model = WanDiT(
    num_attention_heads=2, attention_head_dim=24, ffn_dim=64, num_layers=2, freq_dim=32, text_dim=16,
    image_dim=8, added_kv_proj_dim=48,
).eval()
inputs = dict(
    hidden_states=torch.randn(1, 16, 3, 4, 8),
    encoder_hidden_states=torch.randn(1, 512, 16),
    encoder_hidden_states_image=torch.randn(1, 257, 8),
    frame_positions=torch.tensor([0, 1, 1024]),
)
levels = [torch.tensor([500.0]), torch.tensor([[0.0, 300.0, 700.0]])]
with torch.no_grad():
    alone = [model(timestep=level, **inputs).sample for level in levels]
    model.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
    both = [model(timestep=level, **inputs).sample for level in levels]
error = max((one - two).abs().max().item() for one, two in zip(alone, both))
print(f"rank {dist.get_rank()} error {error}", flush=True)
dist.destroy_process_group()
sys.exit(error > 1e-5)
"""


@pytest.mark.slow
def test_ulysses_on_two_processes(tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, str(worker)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("error") == 2
