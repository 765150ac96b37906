"""The pure parts: segments, guidance, the loop, sizes and lengths."""

import pytest
import torch

from videogen.diffusion.conditioning import Segment, pack, unpack
from videogen.diffusion.guidance import ClassifierFree, DualGuidance, SinglePass, guide
from videogen.diffusion.sampling import FrameSolver, StopDenoising, denoise, euler, unipc
from videogen.errors import InputError
from videogen.models.wan.embedders import WanRotaryEmbed, sinusoid
from videogen.tasks.forcing_schedule import forcing_rows
from videogen.tasks.geometry import Roll, Shape
from videogen.tasks.options import Size
from videogen.tasks.sizes import choose_num_frames, choose_size
from videogen.tasks.table import TASKS

TABLES = TASKS["reference_to_video"].size_tables()


def level(value):
    return torch.tensor(value)


def test_segments_own_their_noise_level_and_place():
    video = Segment(latents=torch.ones(1, 2, 3, 4, 4), timestep=level(500), extra=torch.zeros(1, 1, 3, 4, 4))
    shot = Segment(
        latents=torch.ones(1, 2, 2, 4, 4),
        timestep=level(0),
        temporal_start=1024,
        extra=torch.zeros(1, 1, 2, 4, 4),
    )
    packed = pack([video, shot])
    assert packed.latents.shape == (1, 3, 5, 4, 4)
    assert packed.positions.tolist() == [0, 1, 2, 1024, 1025]
    assert packed.timestep.tolist() == [[500, 500, 500, 0, 0]]
    assert [part.shape[2] for part in unpack(packed.latents, [video, shot])] == [3, 2]


def test_one_level_for_all_is_one_number():
    """The transformer then computes one modulation, not one per frame."""
    parts = [Segment(latents=torch.zeros(1, 2, n, 4, 4), timestep=level(7)) for n in (3, 4)]
    assert pack(parts).timestep.tolist() == [[7]]


def test_guidance():
    values = {"cond": 5.0, "no_text": 2.0, "uncond": 1.0}
    asked = []

    def velocity(branch):
        asked.append(branch)
        return torch.tensor(values[branch], dtype=torch.bfloat16)

    assert guide(SinglePass(), velocity) == 5
    assert asked == ["cond"]
    assert guide(ClassifierFree(3.0), velocity) == 1 + 3 * (5 - 1)
    result = guide(DualGuidance(4.0, 2.0), velocity)
    assert result == 1 + 2 * (2 - 1) + 4 * (5 - 2)
    assert result.dtype == torch.float32
    assert asked[-3:] == ["cond", "no_text", "uncond"]


def test_denoise_pins_steps_and_stops():
    seen = []

    def pin(latents, done):
        latents = latents.clone()
        latents[0] = 100 + done
        return latents

    def on_step(index, row, latents):
        seen.append((index, row, latents.tolist()))
        if index == 1:
            raise StopDenoising(latents * 2)
        return latents

    result = denoise(torch.zeros(2), ["a", "b", "c"], lambda x, row: x, lambda v, row, x: x + 1, pin, on_step)
    assert seen == [(0, "a", [101, 1]), (1, "b", [102, 2])]
    assert result.tolist() == [204, 4]


def test_solvers_reach_the_clean_latents():
    """A model that knows the answer: the straight path from noise to it."""
    clean, noise = torch.randn(3, 4), torch.randn(3, 4)
    for make in (unipc, euler):
        solver = make(8, 5.0)
        start = (1 - solver.sigmas[0]) * clean + solver.sigmas[0] * noise
        done = denoise(start, solver.timesteps, lambda x, t: noise - clean, solver.step)
        torch.testing.assert_close(done, clean, atol=1e-5, rtol=1e-5)


def test_rotary_positions_may_start_anywhere():
    rope = WanRotaryEmbed(24)
    tables = rope(torch.arange(3), 2, 2), rope(torch.arange(3) + 1024, 2, 2)
    assert tables[0].shape == (3, 4, 12, 2)
    near, far = (torch.view_as_complex(table) for table in tables)
    assert torch.equal(near[..., 4:], far[..., 4:])  # rows and columns are unmoved
    turned = far[..., :4] * near[..., :4].conj()
    torch.testing.assert_close(turned, turned[:1].expand_as(turned), atol=1e-4, rtol=1e-4)


def test_sinusoid_has_cosines_first():
    assert sinusoid(torch.tensor([0.0]), 8).tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("values", "source", "size"),
    [
        ({"resolution": "720P"}, (1920, 1080), (720, 1280)),
        ({"resolution": "480P"}, (1080, 1920), (848, 480)),
        ({"resolution": "720P", "height": 32, "width": 48}, (1920, 1080), (32, 48)),
        ({"resolution": "720P", "size": (1280, 720)}, (10, 10), (720, 1280)),
    ],
)
def test_choose_size(values, source, size):
    assert choose_size(Size(**values), TABLES, source) == size


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resolution": "720P", "height": 32}, "--height 32: needs its partner"),
        ({"resolution": "720P", "size": (1281, 720)}, r"--size 1281\*720.*nearest 1280\*720"),
        ({"resolution": "360P"}, "--resolution 360P: this model has 480P, 540P, 720P"),
    ],
)
def test_sizes_that_do_not_exist(values, message):
    with pytest.raises(InputError, match=message):
        choose_size(Size(**values), TABLES, (16, 9))


@pytest.mark.parametrize(
    ("duration", "fps", "frames"),
    [(5, 24, 121), (1, 24, 25), (2.5, 24, 61), (0.1, 24, 1), (5, 16, 81), (5.05, 24, 121)],
)
def test_duration_is_the_largest_4k1(duration, fps, frames):
    assert choose_num_frames(Size(duration=duration), fps) == frames
    assert choose_num_frames(Size(duration=duration, num_frames=9), fps) == 9


def test_frames_beyond_the_tabulated_positions():
    with pytest.raises(InputError, match="at most 4077"):
        choose_num_frames(Size(num_frames=5001), 24, context_frames=4)


def test_shape_counts_what_the_network_sees():
    roll = Roll(latent_frames=31, context_frames=4, num_frames=121)
    shape = Shape(height=720, width=1280, fps=24, rolls=(roll,), forwards_per_step=3)
    assert shape.latent_shape == (1, 16, 31, 90, 160)
    assert shape.tokens == 35 * 45 * 80


def test_a_velocity_predicts_the_clean_latents():
    """x = (1 - sigma) clean + sigma noise, and the velocity is noise - clean."""
    draw = torch.Generator().manual_seed(1)
    clean, noise = (torch.randn((1, 2, 6, 3, 4), generator=draw) for _ in range(2))
    for solver in (unipc(5, 3.0), euler(5, 3.0)):
        for row in solver.schedule:
            sigma = row / 1000
            mixed = (1 - sigma) * clean + sigma * noise
            assert (solver.clean(noise - clean, row, mixed) - clean).abs().max() < 1e-5


def test_of_frames_with_their_own_levels_each_is_predicted_by_its_own():
    rows = forcing_rows(6, 5, ar_step=2, block=2, ready=2)
    solver = FrameSolver(lambda: unipc(5, 3.0), rows, 2)
    draw = torch.Generator().manual_seed(1)
    clean, noise = (torch.randn((1, 2, 6, 3, 4), generator=draw) for _ in range(2))
    for row in rows:
        sigma = (solver.timesteps(row) / 1000).view(-1, 1, 1)
        mixed = (1 - sigma) * clean + sigma * noise
        velocity = noise - clean
        assert (solver.clean(velocity, row, mixed) - clean).abs().max() < 1e-5
        assert solver.clean(velocity, row, mixed)[:, :, :2].equal(clean[:, :, :2])  # known
