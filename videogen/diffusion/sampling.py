"""Flow matching: noise schedules, solvers (diffusers'), and the denoising loop.

A model predicts the velocity v of x = (1 - sigma) * clean + sigma * noise; timestep = 1000 * sigma.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from torch import Tensor

from videogen.tasks.forcing_schedule import Row

NUM_TRAIN_TIMESTEPS = 1000
# The first noise level before the shift. Most published code computes 1 - 1/1000 in float32; SkyReels-V3 R2V
# goes through diffusers, which has the double (spec skyreels_v3 section 5).
SIGMA_MAX = float(np.float32(0.999))
SIGMA_MAX_DOUBLE = 0.999
FLOW = {
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "num_train_timesteps": NUM_TRAIN_TIMESTEPS,
}
UNTOUCHED = 999  # timestep of frames whose denoising has not started
RowT = TypeVar("RowT")  # one step's entry in a schedule: a timestep, or a ``Row``


class StopDenoising(Exception):  # noqa: N818 - a request, not an error
    """Request by ``on_step`` to end the loop early with the latents it carries."""

    def __init__(self, latents: Tensor) -> None:
        super().__init__("denoising was stopped")
        self.latents = latents


@dataclass(frozen=True, slots=True)
class Solver:
    """Noise schedule and its step function. Stateful: make a new one for every generation."""

    scheduler: SchedulerMixin
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        # By index, because truncated timesteps repeat when there are many steps.
        self.scheduler.set_begin_index(0)

    @property
    def timesteps(self) -> Tensor:
        """Timesteps [N], descending."""
        return self.scheduler.timesteps

    @property
    def schedule(self) -> Tensor:
        """Rows of the denoising loop: the timesteps."""
        return self.timesteps

    def level(self, row: Tensor) -> Tensor:
        """Return the timestep of a step."""
        return row

    @property
    def sigmas(self) -> Tensor:
        """Noise levels [N + 1], descending to 0."""
        return self.scheduler.sigmas

    def step(self, velocity: Tensor, timestep: Tensor, latents: Tensor) -> Tensor:
        """Return the latents at the next noise level, float32 whatever the velocity's dtype."""
        return self.scheduler.step(velocity.float(), timestep, latents.float(), return_dict=False)[0]

    def clean(self, velocity: Tensor, row: Tensor, latents: Tensor) -> Tensor:
        """Return the clean latents that a velocity predicts, float32."""
        return latents.float() - self.level(row) / NUM_TRAIN_TIMESTEPS * velocity.float()


@dataclass(frozen=True, slots=True)
class LcmSolver(Solver):
    """Latent consistency solver: each step predicts clean latents and adds fresh noise.

    Draws noise in every step, including the last: shape of the latents, normal, float32.
    """

    def step(self, velocity: Tensor, timestep: Tensor, latents: Tensor) -> Tensor:
        taken = self.scheduler.step(
            velocity.float(), timestep, latents.float(), generator=self.generator, return_dict=False
        )
        return taken[0]


@dataclass(frozen=True, slots=True)
class ScheduledSolver(Solver):
    """A scheduler of diffusers as it is, with its own noise levels; ``generator`` is for those that draw."""

    def step(self, velocity: Tensor, timestep: Tensor, latents: Tensor) -> Tensor:
        draws = {} if self.generator is None else {"generator": self.generator}
        self.scheduler.sigmas = self.scheduler.sigmas.to(latents.device)
        return self.scheduler.step(velocity.float(), timestep, latents.float(), return_dict=False, **draws)[0]


@dataclass(frozen=True, slots=True)
class UniPcSolver(Solver):
    """UniPC with its noise levels on the device of the latents, where diffusers' step reads them."""

    def step(self, velocity: Tensor, timestep: Tensor, latents: Tensor) -> Tensor:
        self.scheduler.sigmas = self.scheduler.sigmas.to(latents.device)
        return Solver.step(self, velocity, timestep, latents)


def unipc(steps: int, shift: float, *, sigma_max: float = SIGMA_MAX) -> Solver:
    """Return a UniPC solver, order 2, bh2, predicting clean data (spec skyreels_v3 section 5).

    diffusers' default spacing differs from the published one (12 % in the result), so the unshifted levels
    are passed; the scheduler shifts them.
    """
    scheduler = UniPCMultistepScheduler(flow_shift=shift, **FLOW)
    scheduler.set_timesteps(sigmas=np.linspace(sigma_max, 0, steps + 1)[:-1])
    return UniPcSolver(scheduler)


def dpmpp(steps: int, shift: float, *, sigma_max: float = 1.0) -> Solver:
    """Return a DPM-Solver++, order 2, midpoint (spec wan22 section 8).

    Its published schedule starts at pure noise.
    """
    scheduler = DPMSolverMultistepScheduler(flow_shift=shift, **FLOW)
    scheduler.set_timesteps(steps)
    base = np.linspace(sigma_max, 0, steps + 1)[:-1]
    sigmas = shift * base / (1 + (shift - 1) * base)
    scheduler.timesteps = torch.from_numpy((sigmas * NUM_TRAIN_TIMESTEPS).astype(np.int64))
    scheduler.sigmas = torch.from_numpy(np.append(sigmas, 0.0).astype(np.float32))
    return Solver(scheduler)


def euler(
    steps: int, shift: float, *, sigma_max: float = 1.0, sigma_min: float = 1 / NUM_TRAIN_TIMESTEPS
) -> Solver:
    """Return a flow-match Euler solver from ``sigma_max`` to ``sigma_min``, then 0, before the shift.

    Specs talking_avatar section 7, hunyuan section 5.
    """
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=NUM_TRAIN_TIMESTEPS, shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(sigma_max, sigma_min, steps, dtype=np.float32))
    return Solver(scheduler)


def lcm(steps: int, shift: float, *, sigma_max: float = 1.0) -> Solver:
    """Return a latent consistency solver, for weights distilled to it (spec performance, 4-step LoRA).

    With 4 steps the levels before the shift are 1, 0.75, 0.5 and 0.25, on which such weights are trained.
    """
    scheduler = FlowMatchLCMScheduler(num_train_timesteps=NUM_TRAIN_TIMESTEPS, shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(sigma_max, 0, steps + 1)[:-1])
    return LcmSolver(scheduler)


class FrameSolver:
    """Solvers of latent frames with schedules of their own; neighbours with equal history share one.

    Args:
        make: factory of solvers, called for every such group.
        schedule: rows of the denoising loop.
        known: number of leading frames that are never updated, whatever the rows say.

    The published code steps views of one tensor in place, so UniPC's stored last sample becomes the new one,
    and its corrector starts from there. This changes the result by 4-9 % and is kept for parity.
    """

    def __init__(self, make: Callable[[], Solver], schedule: Sequence[Row], known: int) -> None:
        columns = list(zip(*(row.indices for row in schedule), strict=True))
        self.schedule, self.known = schedule, known
        # Slices, because indexing with a list would synchronize the GPU.
        self.groups: list[tuple[slice, Solver]] = []
        for _, alike in groupby(range(known, len(columns)), columns.__getitem__):
            frames = list(alike)
            self.groups.append((slice(frames[0], frames[-1] + 1), make()))
        levels = make().timesteps.tolist()
        self.levels = torch.tensor([UNTOUCHED, *levels, 0])

    def timesteps(self, row: Row) -> Tensor:
        """Return the noise level of every frame [F] as the model's input."""
        levels = self.levels[list(row.indices)]
        levels[: self.known] = 0
        return levels

    def level(self, row: Row) -> Tensor:
        """Return the timestep of a step: that of the noisiest frame that it updates."""
        return self.timesteps(row)[row.window[0] : row.window[1]].max()

    def clean(self, velocity: Tensor, row: Row, latents: Tensor) -> Tensor:
        """Return the clean latents that a velocity predicts, float32; of frames out of view what is there."""
        levels = torch.zeros(latents.shape[2])
        levels[: len(row.indices)] = self.timesteps(row) / NUM_TRAIN_TIMESTEPS
        return latents.float() - levels.to(latents.device).view(-1, 1, 1) * velocity.float()

    def step(self, velocity: Tensor, row: Row, latents: Tensor) -> Tensor:
        """Step the frames of latents [B, C, F, h, w] that the row updates."""
        latents = latents.clone()
        for frames, solver in self.groups:
            if row.update[frames.start]:
                timestep = solver.timesteps[row.indices[frames.start] - 1]
                before = latents[:, :, frames].float().clone()
                after = solver.step(velocity[:, :, frames], timestep, before)
                before.copy_(after)
                latents[:, :, frames] = after
        return latents


SOLVERS: dict[str, Callable[..., Solver]] = {"unipc": unipc, "dpm++": dpmpp, "euler": euler, "lcm": lcm}


def make_solver(
    name: str, steps: int, shift: float, generator: torch.Generator | None, **options: float
) -> Solver:
    """Create a solver of SOLVERS; ``generator`` is its source of noise, if it draws any (lcm)."""
    return replace(SOLVERS[name](steps, shift, **options), generator=generator)


def denoise(
    latents: Tensor,
    schedule: Iterable[RowT],
    predict: Callable[[Tensor, RowT], Tensor],
    step: Callable[[Tensor, RowT, Tensor], Tensor],
    pin: Callable[[Tensor, int], Tensor] | None = None,
    on_step: Callable[[int, RowT, Tensor], Tensor] | None = None,
) -> Tensor:
    """Run the denoising loop (the same one for every task).

    Args:
        latents: noise [B, C, F, h, w].
        schedule: one row per step; a row is whatever ``predict`` and ``step`` understand (a timestep, say).
        predict: (latents, row) -> velocity of the latents, with guidance applied.
        step: (velocity, row, latents) -> latents at the next noise level.
        pin: (latents, steps done) -> latents with known frames put back; called before the first step and
            after every step.
        on_step: (index, row, latents) -> latents, after every step; may raise StopDenoising.
    """
    if pin is not None:
        latents = pin(latents, 0)
    for index, row in enumerate(schedule):
        latents = step(predict(latents, row), row, latents)
        if pin is not None:
            latents = pin(latents, index + 1)
        if on_step is not None:
            try:
                latents = on_step(index, row, latents)
            except StopDenoising as stop:
                return stop.latents
    return latents
