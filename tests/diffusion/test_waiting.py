"""What a step is told of noise levels stays on the CPU, where a GPU need not be waited for.

The meta device stands in for the GPU: reading from it is an error.
"""

import pytest
import torch

from videogen.diffusion.conditioning import Segment, pack
from videogen.diffusion.sampling import FrameSolver, unipc
from videogen.models.wan.transformer import WanDiT
from videogen.tasks.forcing_schedule import forcing_rows

META = torch.device("meta")
SIZES = {"num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 64, "num_layers": 2}


def latents(frames):
    return torch.empty(1, 16, frames, 4, 8, device=META)


@pytest.mark.parametrize("level", [torch.tensor(999), torch.tensor([900, 500])])
def test_levels_are_packed_on_the_cpu(level):
    before = Segment(latents=latents(1), timestep=torch.tensor(0))
    packed = pack([before, Segment(latents=latents(2), timestep=level, temporal_start=1)])
    assert packed.timestep.device.type == packed.positions.device.type == "cpu"
    assert packed.timestep.tolist() == [[0, *level.expand(2).tolist()]]


@pytest.mark.parametrize("levels", [[[500]], [[0, 500, 500]]])
def test_a_forward_reads_nothing_from_the_device(levels):
    with META:
        model = WanDiT(**SIZES, freq_dim=32, text_dim=16).eval()
        text = torch.empty(1, 9, 16)
    out = model(latents(3), torch.tensor(levels), text, frame_positions=torch.arange(3)).sample
    assert out.is_meta
    assert out.shape == (1, 16, 3, 4, 8)


def test_distinct_levels_are_embedded_once():
    model = WanDiT(**SIZES, freq_dim=32, text_dim=16).eval()
    rows = []
    model.condition_embedder.time_embedder.register_forward_pre_hook(lambda _, given: rows.append(given[0]))
    with torch.no_grad():
        embedding, modulation = model.condition_embedder(torch.tensor([[0, 500, 500], [500, 0, 7]]))
    assert len(rows[0]) == 3
    assert torch.equal(embedding[0, 1], embedding[1, 0])
    assert torch.equal(modulation[0, 0], modulation[1, 1])
    assert not torch.equal(modulation[0, 0], modulation[0, 1])


def test_unipc_takes_its_levels_to_the_device_once():
    solver = unipc(4, 5.0)
    for timestep in solver.timesteps:
        assert timestep.device.type == "cpu"
        step = solver.step(latents(2), timestep, latents(2))
    assert step.is_meta
    assert solver.scheduler.sigmas.is_meta


@pytest.mark.parametrize(("ar_step", "groups"), [(0, [(1, 5)]), (2, [(1, 2), (2, 3), (3, 4), (4, 5)])])
def test_frames_are_stepped_by_slices(ar_step, groups):
    """An index list would be copied to the device in every step."""
    rows = forcing_rows(5, 6, ar_step=ar_step, block=1, ready=1)
    solver = FrameSolver(lambda: unipc(6, 5.0), rows, known=1)
    assert [(frames.start, frames.stop) for frames, _ in solver.groups] == groups
    for row in rows:
        assert solver.step(latents(5), row, latents(5)).is_meta
