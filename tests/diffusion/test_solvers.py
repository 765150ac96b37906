"""Schedules and steps of the solvers as the specs write them, and what the loop is told."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from videogen.diffusion import sampling
from videogen.diffusion.conditioning import Segment, pack
from videogen.diffusion.guidance import DualGuidance, guide
from videogen.diffusion.sampling import (
    FrameSolver,
    StopDenoising,
    denoise,
    dpmpp,
    euler,
    make_solver,
    unipc,
)
from videogen.tasks.forcing_schedule import forcing_rows

LATENTS = torch.randn(1, 4, 3, 2, 2, generator=torch.Generator().manual_seed(7))


def shifted(levels, shift):
    return [shift * level / (1 + (shift - 1) * level) for level in levels]


def predict(latents, timestep):
    return torch.tanh(latents) + timestep / 1000


def test_the_first_level_of_most_published_code_is_a_float32():
    assert np.float32(1) - np.float32(1 / 1000) == sampling.SIGMA_MAX
    assert pytest.approx(0.999, abs=1e-12) == sampling.SIGMA_MAX_DOUBLE
    assert sampling.SIGMA_MAX != sampling.SIGMA_MAX_DOUBLE


@pytest.mark.parametrize(
    ("name", "levels", "whole"),
    [
        ("unipc", [0.999, 0.74925, 0.4995, 0.24975], True),
        ("dpm++", [1, 0.75, 0.5, 0.25], True),
        ("euler", [1, 0.667, 0.334, 0.001], False),
        ("lcm", [1, 0.75, 0.5, 0.25], False),
    ],
)
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_schedules(name, levels, whole, shift):
    solver = make_solver(name, 4, shift, None)
    expected = shifted(levels, shift)
    assert solver.sigmas.tolist() == pytest.approx([*expected, 0], abs=1e-6)
    assert solver.schedule is solver.timesteps
    steps = [int(1000 * level) if whole else 1000 * level for level in expected]
    assert solver.timesteps.tolist() == pytest.approx(steps, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "options", "first", "last"),
    [
        (unipc, {"sigma_max": 0.8}, 0.8, 0.4),
        (dpmpp, {"sigma_max": 0.8}, 0.8, 0.4),
        (euler, {"sigma_max": 0.8, "sigma_min": 0.3}, 0.8, 0.3),
    ],
)
def test_schedules_that_begin_lower(make, options, first, last):
    assert make(2, 1.0, **options).sigmas.tolist() == pytest.approx([first, last, 0])


def test_the_order_of_the_dpm_solver_is_two():
    """Its first step and its last are of order one; the one between uses the prediction before it."""
    solver = dpmpp(3, 5.0, sigma_max=0.9)  # of pure noise the logarithm is infinite
    before, x, clean = 0.0, LATENTS, []
    for timestep, now, after in zip(solver.timesteps, solver.sigmas, solver.sigmas[1:], strict=False):
        clean.append(x - now * predict(x, timestep))
        guess = clean[-1]
        if len(clean) == 2:
            lam = [torch.log((1 - sigma) / sigma) for sigma in (before, now, after)]
            guess = guess + (lam[2] - lam[1]) / (2 * (lam[1] - lam[0])) * (clean[1] - clean[0])
        x = after / now * x + (1 - after - after / now * (1 - now)) * guess
        before = now
    made = denoise(LATENTS, solver.timesteps, predict, solver.step)
    torch.testing.assert_close(made, x, atol=1e-5, rtol=1e-5)


def test_an_euler_step_goes_along_the_velocity():
    solver = euler(4, 3.0)
    x = LATENTS
    for timestep, now, after in zip(solver.timesteps, solver.sigmas, solver.sigmas[1:], strict=False):
        x = x + (after - now) * predict(x, timestep)
    torch.testing.assert_close(denoise(LATENTS, solver.timesteps, predict, solver.step), x)


@pytest.mark.parametrize("name", ["unipc", "dpm++", "euler", "lcm"])
def test_steps_are_float32(name):
    solver = make_solver(name, 4, 5.0, torch.Generator().manual_seed(1))
    half = LATENTS.bfloat16()
    assert solver.step(half, solver.timesteps[0], half).dtype == torch.float32


def test_two_steps_may_have_one_timestep():
    """As a whole number; the second must not be taken for the first."""
    solver = unipc(60, 50.0)
    assert solver.timesteps[0] == solver.timesteps[1] == 999
    for done in (1, 2):
        solver.step(LATENTS, solver.timesteps[0], LATENTS)
        assert solver.scheduler.step_index == done


def test_generators_and_options_reach_the_solver():
    generator = torch.Generator()
    assert make_solver("euler", 4, 5.0, generator).generator is generator
    assert make_solver("unipc", 2, 1.0, None, sigma_max=0.8).sigmas[0] == pytest.approx(0.8)


def velocity_of(latents, row):
    return torch.tanh(latents) + torch.tensor(row.indices).view(1, 1, -1, 1, 1) / 7


def test_frames_are_corrected_from_where_they_were_left():
    """As published: UniPC keeps the result of its first step instead of what it began with."""
    rows = forcing_rows(3, 4)
    frames = FrameSolver(lambda: unipc(4, 5.0), rows, 0)
    made = denoise(LATENTS, rows, velocity_of, frames.step)
    assert [group for group, _ in frames.groups] == [slice(0, 3)]
    solver, plain = unipc(4, 5.0), unipc(4, 5.0)
    x = y = LATENTS
    for timestep, row in zip(solver.timesteps, rows, strict=True):
        x = solver.step(velocity_of(x, row), timestep, x)
        if row is rows[0]:
            solver.scheduler.last_sample = x
        y = plain.step(velocity_of(y, row), timestep, y)
    torch.testing.assert_close(made, x)
    assert (made - y).abs().max() > 0.01


def test_levels_of_frames():
    """999 before the first step, the steps' own after it, 0 when finished or known."""
    rows = forcing_rows(3, 2, ar_step=1, ready=1)
    solver = FrameSolver(lambda: unipc(2, 5.0), rows, 1)
    one, two = unipc(2, 5.0).timesteps.tolist()
    assert [solver.timesteps(row).tolist() for row in rows] == [[0, one, 999], [0, two, one], [0, 0, two]]
    first = replace(rows[0], indices=(2, 1, 0))
    assert solver.timesteps(first).tolist() == [0, one, 999]


def test_frames_step_at_their_own_times():
    rows = forcing_rows(3, 2, ar_step=1, ready=1)
    solver = FrameSolver(lambda: euler(2, 5.0), rows, 1)
    x, own = LATENTS.clone(), euler(2, 5.0)
    for row in rows:
        after = solver.step(velocity_of(x, row), row, x)
        expected = x.clone()
        for frame in range(1, 3):
            if row.update[frame]:
                now = row.indices[frame] - 1
                change = own.sigmas[now + 1] - own.sigmas[now]
                expected[:, :, frame] += change * velocity_of(x, row)[:, :, frame]
        torch.testing.assert_close(after, expected)
        x = after


def test_the_loop_without_pins_and_reports():
    seen = []

    def step(velocity, row, latents):
        seen.append((velocity, row))
        return latents + velocity

    assert denoise(1, [10, 20], lambda x, row: x + row, step) == 1 + 11 + 32
    assert seen == [(11, 10), (32, 20)]


def test_the_loop_tells_how_many_steps_are_done():
    done, told = [], []

    def pin(latents, count):
        done.append(count)
        return latents

    def on_step(index, row, latents):
        told.append((index, row))
        return latents + 100

    assert denoise(0, ["a", "b"], lambda x, row: 1, lambda v, row, x: x + v, pin, on_step) == 202
    assert done == [0, 1, 2]
    assert told == [(0, "a"), (1, "b")]


def test_a_stop_says_so():
    assert str(StopDenoising(LATENTS)) == "denoising was stopped"


def test_each_condition_has_its_own_scale():
    values = {"cond": 7.0, "no_text": 4.0, "uncond": 1.0}
    assert guide(DualGuidance(3.0, 5.0), lambda branch: torch.tensor(values[branch])) == 1 + 5 * 3 + 3 * 3


def test_levels_of_a_batch():
    def segment(frames, timestep):
        return Segment(latents=torch.zeros(2, 4, frames, 2, 2), timestep=torch.tensor(timestep))

    assert pack([segment(3, 7)]).timestep.tolist() == [[7], [7]]
    assert pack([segment(3, 7), segment(1, 7)]).timestep.tolist() == [[7], [7]]
    assert pack([segment(2, 7), segment(1, 0)]).timestep.tolist() == [[7, 7, 0]] * 2
    mixed = pack([segment(2, [[1, 2], [3, 4]]), segment(1, [5])])
    assert mixed.timestep.tolist() == [[1, 2, 5], [3, 4, 5]]
    assert mixed.timestep.dtype == torch.float32


def test_positions_and_extra_channels():
    first = Segment(
        latents=torch.ones(1, 2, 1, 1, 1), timestep=torch.tensor(0), extra=torch.full((1, 1, 1, 1, 1), 5.0)
    )
    second = replace(first, latents=torch.full((1, 2, 1, 1, 1), 2.0), temporal_start=3)
    packed = pack([first, second])
    assert packed.positions.tolist() == [0, 3]
    assert packed.latents.flatten(1).tolist() == [[1, 2, 1, 2, 5, 5]]
