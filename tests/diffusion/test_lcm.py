"""LCM stepping: its levels, its steps, and where its noise comes from."""

import pytest
import torch

from videogen.diffusion.sampling import SOLVERS, FrameSolver, denoise, make_solver
from videogen.tasks.forcing_schedule import forcing_rows

LATENTS = torch.randn(1, 16, 3, 2, 2, generator=torch.Generator().manual_seed(7))


def predict(latents, timestep):
    return torch.tanh(latents) + timestep / 1000


def test_the_levels_that_four_step_weights_know():
    plain = SOLVERS["lcm"](4, 1.0)
    assert plain.timesteps.tolist() == [1000, 750, 500, 250]
    shifted = SOLVERS["lcm"](4, 5.0)
    expected = [5 * s / (1 + 4 * s) for s in (1, 0.75, 0.5, 0.25)]
    assert shifted.sigmas.tolist() == pytest.approx([*expected, 0])
    assert shifted.timesteps.tolist() == pytest.approx([1000 * s for s in expected])


def test_every_step_goes_to_the_clean_latents_and_back():
    """With noise that the generator gives in the order of the steps, the last one included."""
    generator = torch.Generator().manual_seed(3)
    solver = make_solver("lcm", 4, 5.0, generator)
    made = denoise(LATENTS, solver.timesteps, predict, solver.step)
    again = torch.Generator().manual_seed(3)
    x = LATENTS
    for timestep, sigma, after in zip(solver.timesteps, solver.sigmas, solver.sigmas[1:], strict=False):
        clean = x - sigma * predict(x, timestep)
        x = (1 - after) * clean + after * torch.randn(LATENTS.shape, generator=again)
    assert torch.allclose(made, x, atol=1e-6)
    assert torch.equal(generator.get_state(), again.get_state())


def test_other_solvers_draw_nothing():
    for name in ("unipc", "dpm++", "euler"):
        generator = torch.Generator().manual_seed(3)
        before = generator.get_state()
        solver = make_solver(name, 4, 5.0, generator)
        denoise(LATENTS, solver.timesteps, predict, solver.step)
        assert torch.equal(generator.get_state(), before)


def test_frames_on_schedules_of_their_own():
    """A frame that is known stays; of the others each comes from its last clean prediction."""
    rows = forcing_rows(3, 4, ar_step=2, ready=1)
    generator = torch.Generator().manual_seed(3)
    solver = FrameSolver(lambda: make_solver("lcm", 4, 5.0, generator), rows, 1)
    levels = []

    def seen(latents, row):
        levels.append(solver.timesteps(row).tolist())
        return torch.ones_like(latents)

    made = denoise(LATENTS, rows, seen, solver.step)
    assert torch.equal(made[:, :, 0], LATENTS[:, :, 0])
    assert not torch.allclose(made[:, :, 1:], LATENTS[:, :, 1:], atol=0.1)
    first = [row[1] for row in levels]
    assert first[:4] == pytest.approx([1000, 937.5, 833.333, 625])
    assert made.isfinite().all()
