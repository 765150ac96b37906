"""Wan's decoders sharded by rows over several processes: equal to one process to 1e-5."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.parallel.test_ranks import launch

MODELS = """
residual = dict(decoder_base_dim=16, z_dim=48, is_residual=True, in_channels=12, out_channels=12,
                patch_size=2, scale_factor_spatial=16, latents_mean=[0.0] * 48, latents_std=[1.0] * 48)
models = [dict(z_dim=16), residual]
"""
WORKER = """
import sys, torch
import torch.distributed as dist
from types import SimpleNamespace
from diffusers import AutoencoderKLWan
from videogen.models.wan import vae as vae_io
from videogen.distributed import Degrees
from videogen.runtime import parallel

parallel.init_communicator(wanted=True)
degrees = Degrees(ulysses=dist.get_world_size())
worst = 0.0
for options in models:
    for rows in (4, 7):
        torch.manual_seed(0)
        vae = AutoencoderKLWan(base_dim=8, **options).eval()
        latents = torch.randn(1, options["z_dim"], 3, rows, 5)
        alone = vae_io.decode(vae, latents)
        parallel.apply_parallelism(SimpleNamespace(transformers=[], vae=vae), degrees, torch.device("cpu"))
        worst = max(worst, (vae_io.decode(vae, latents) - alone).abs().max().item())
print(worst)
sys.exit(worst > 1e-5)
"""
# Some of eight ranks, each alone: the others' messages never come, which the fake group does not mind.
SOME_OF_EIGHT = """
import collections, torch
import torch.distributed as dist
from diffusers import AutoencoderKLWan
from torch.testing._internal.distributed.fake_pg import FakeStore
from videogen.models.wan import vae as vae_io
from videogen.runtime import vae_parallel

asked = collections.Counter()
send = dist.P2POp.__new__
def counted(cls, act, *args, group_peer=None, **others):
    asked[act.__name__, group_peer] += 1
    return send(cls, act, *args, group_peer=group_peer, **others)
dist.P2POp.__new__ = counted
gather = vae_parallel.SpatialSharding._gather_rows
def gathered(self, rows, axis):
    asked["gather_rows", rows.ndim] += 1
    return gather(self, rows, axis)
vae_parallel.SpatialSharding._gather_rows = gathered
for rank, neighbours in ((0, {1}), (3, {2, 4}), (7, {6})):
    asked.clear()
    dist.init_process_group("fake", rank=rank, world_size=8, store=FakeStore())
    for options in models:
        vae = AutoencoderKLWan(base_dim=8, **options).eval()
        vae_parallel.shard_decoder(vae, dist.group.WORLD)
        latents = torch.randn(1, options["z_dim"], 2, 16, 4)
        assert vae_io.decode(vae, latents).shape[-2] == 16 * vae.spatial_compression_ratio
    peers = {peer for act, peer in asked if act in ("isend", "irecv")}
    assert peers == neighbours, (rank, peers)
    assert len({asked[act, peer] for act in ("isend", "irecv") for peer in peers}) == 1, (rank, asked)
    assert asked["gather_rows", 4] == 4, (rank, asked)  # keys and values, once per latent frame
    dist.destroy_process_group()
"""


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.slow
def test_spatial_sharding_is_exact(ranks, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(MODELS + WORKER)
    process = launch(ranks, worker)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err[-2000:]


@pytest.mark.slow
def test_rows_come_from_the_neighbours_alone():
    done = subprocess.run(
        [sys.executable, "-c", MODELS + SOME_OF_EIGHT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
