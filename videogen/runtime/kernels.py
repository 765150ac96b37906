"""Enable the fused kernels that agree with their plain form on a device."""

import logging
import math
from functools import cache

import torch
from torch import Tensor

from videogen.errors import first_line
from videogen.models.kernels import operators, vae_operators  # noqa: F401 - both register their operators

logger = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2**-9, torch.bfloat16: 2**-6}  # of the largest value


def enable_fused_kernels(device: torch.device, *dtypes: torch.dtype) -> None:
    """Enable every fused kernel that agrees with its plain form on ``device`` in all ``dtypes``.

    Kernels that fail or differ are disabled, with one warning. Without a CUDA device nothing happens.
    """
    operators.ENABLED.clear()
    if not needs_check(device):
        return
    problems = {name: _problem(name, device, dtypes) for name in operators.OPS}
    operators.ENABLED.update(name for name, problem in problems.items() if problem is None)
    for problem in dict.fromkeys(filter(None, problems.values())):
        names = ", ".join(name for name, found in problems.items() if found == problem)
        logger.warning("fused kernels %s are not used on %s: %s; slower, same result", names, device, problem)


def needs_check(device: torch.device) -> bool:
    """Return whether there are kernels for a kind of device."""
    return device.type == "cuda"


@cache
def _problem(name: str, device: torch.device, dtypes: tuple[torch.dtype, ...]) -> str | None:
    """Return why a kernel cannot be used on a device, found by running it; None when it can."""
    op = operators.OPS[name]
    for kind in dict.fromkeys((*dtypes, *op.dtypes)):
        try:
            with torch.no_grad():
                both = [
                    [op.outcome(run, sample, device, kind) for run in (op.plain, op.op)]
                    for sample in op.samples
                ]
                worst = max(_difference(*pair) for pair in both)
        except Exception as error:  # a missing or broken Triton raises many kinds of errors
            return f"they do not run ({first_line(error)})"
        if not worst <= TOLERANCE[kind]:
            return f"they differ from the plain form by {worst:.1e}"
    return None


def _difference(wanted: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> float:
    """Return the largest difference between two results, relative to the largest value; inf for NaN."""
    pairs = zip(wanted, found, strict=True)
    differences = [((a.float() - b.float()).abs().max() / a.float().abs().max()).item() for a, b in pairs]
    return max(math.inf if math.isnan(difference) else difference for difference in differences)
