"""``pipeline.scheduler``: the published one, or one of diffusers' that the caller sets."""

import copy
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SchedulerMixin, UniPCMultistepScheduler

from videogen.diffusion.sampling import FLOW, ScheduledSolver, Solver
from videogen.errors import CallError

logger = logging.getLogger(__name__)

RECIPE = "UniPCMultistepScheduler.from_config(pipe.scheduler.config, flow_shift=5)"


class PublishedScheduler(UniPCMultistepScheduler):
    """What a pipeline's ``scheduler`` is until one is set: the solver and the levels are the task's own.

    Its config is UniPC's with the published shift, to make others from. The ``shift=`` and ``sample_solver=``
    of a call choose the solver that runs. Saved, it is the scheduler with which diffusers comes nearest.
    """

    solver = "unipc"  # the published one

    @classmethod
    def of(cls, solver: str, shift: float) -> Self:
        """Return the published scheduler of a solver and a shift."""
        scheduler = cls(flow_shift=shift, **FLOW)
        scheduler.solver = solver
        return scheduler

    def for_diffusers(self) -> SchedulerMixin:
        """Return diffusers' scheduler of the published kind, with the published shift."""
        if self.solver == "euler":
            return FlowMatchEulerDiscreteScheduler(shift=self.config.flow_shift)
        return UniPCMultistepScheduler(**FLOW, flow_shift=self.config.flow_shift)

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **options: Any) -> None:
        """Save the one for diffusers."""
        self.for_diffusers().save_pretrained(save_directory, push_to_hub=push_to_hub, **options)


def scheduler_for(given: object, published: Callable[[], "PublishedScheduler"]) -> SchedulerMixin:
    """Return the scheduler of a pipeline for which ``given`` is set; None is the published one.

    Raises:
        CallError: it is not for flow matching, or needs what no pipeline gives it.
    """
    if given is None or isinstance(given, PublishedScheduler):
        return given or published()
    name, config = type(given).__name__, getattr(given, "config", {})
    flow = config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    if not isinstance(given, SchedulerMixin) or not (flow or name.startswith("FlowMatch")):
        what = "is no flow-matching scheduler, which these models need"
        raise CallError("scheduler", name, what, f"use {RECIPE}")
    if config.get("use_dynamic_shifting"):
        what = "with use_dynamic_shifting takes its shift from the size of an image"
        raise CallError("scheduler", name, what, "set use_dynamic_shifting=False and a shift")
    if flow and (kind := config.get("prediction_type", "flow_prediction")) != "flow_prediction":
        logger.warning("scheduler %s: prediction_type is %s; these models predict the flow", name, kind)
    return given


def solver_of(
    scheduler: SchedulerMixin, steps: int, generator: torch.Generator | None, sigma_min: float | None = None
) -> Solver:
    """Return a solver that steps as a scheduler does; the scheduler stays as it is.

    The noise levels are its own, or, with ``sigma_min``, those from 1 down to it, shifted as it shifts them.
    """
    own = copy.deepcopy(scheduler)
    if sigma_min is None or "sigmas" not in inspect.signature(own.set_timesteps).parameters:
        own.set_timesteps(steps)
    else:
        own.set_timesteps(sigmas=np.linspace(1, sigma_min, steps))
    draws = "generator" in inspect.signature(own.step).parameters
    return ScheduledSolver(own, generator if draws else None)
