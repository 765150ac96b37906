"""What to try when memory runs out; ``errors.is_out_of_memory`` recognises it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from videogen.errors import OutOfMemoryError, is_out_of_memory
from videogen.planning.option_rules import may_be_added
from videogen.planning.plan import Outline, Plan
from videogen.results.formatting import format_bytes
from videogen.runtime import device as devices

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Suggestion:
    """An option with which a plan takes less memory: ``size`` bytes on the GPU at its peak."""

    option: str
    size: int

    def __str__(self) -> str:
        return f"--{self.option} (about {format_bytes(self.size)})"


@contextmanager
def advise_when_out_of_memory(plan: Outline) -> Iterator[None]:
    """Turn every way of running out of memory into one line with what to try for this plan."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        on_gpu = devices.choose_device(plan.options.device).type != "cpu"
        raise OutOfMemoryError(f"out of memory; try {memory_suggestions(plan, on_gpu=on_gpu)}") from error


def memory_suggestions(plan: Outline, *, on_gpu: bool) -> str:
    """Return the options that would make a plan fit in less memory."""
    tries = [str(suggestion) for suggestion in suggestions(plan)] if on_gpu else []
    shorter = " or fewer --num_frames" if plan.task.uses("num_frames") else ""
    return ", ".join([*tries, f"a smaller --resolution{shorter}"])


def suggestions(plan: Outline) -> list[Suggestion]:
    """Return the options that would make a plan fit in less memory of a GPU."""
    peak, options = plan.facts.memory.peak, plan.options
    sizes = {"offload": peak(offload=True), "low_vram": peak(low_vram=True)}
    return [Suggestion(option=name, size=sizes[name]) for name in sizes if may_be_added(name, options)]


def smaller_plan(plan: Plan, option: str, *, why: str) -> Plan:
    """Return a plan with an option that makes it fit, and leaves the result as it is; says so in a line.

    Raises:
        OutOfMemoryError: there is none; the message says why it is not tried again.
    """
    device = devices.choose_device(plan.options.device)
    known = {found.option: found for found in suggestions(plan)} if device.type != "cpu" else {}
    refused = f"{why} (--retry {option}: not tried"
    if option not in known:
        raise OutOfMemoryError(f"{refused}, it would change nothing here)")
    smaller = replace(plan, options=plan.options.replace(**{option: True}))
    if smaller.plan_hash != plan.plan_hash:
        raise OutOfMemoryError(f"{refused}, it would change the video)")
    if known[option].size > (total := devices.total_memory(device)):
        fits = f"it takes about {format_bytes(known[option].size)}, and the GPU has {format_bytes(total)}"
        raise OutOfMemoryError(f"{refused}, {fits})")
    logger.warning("video %d: %s; once more with %s", plan.index, why, known[option])
    return smaller
