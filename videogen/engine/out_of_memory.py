"""Turn running out of memory into one line with what to try."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from videogen.errors import OutOfMemoryError
from videogen.planning.plan import Outline
from videogen.runtime import device as devices

# What libraries say who have no exception of their own for it.
OUT_OF_MEMORY = re.compile(r"out of memory|can.t allocate memory|not enough memory", re.IGNORECASE)


@contextmanager
def advise_when_out_of_memory(plan: Outline) -> Iterator[None]:
    """Turn every way of running out of memory into one line with what to try."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and not OUT_OF_MEMORY.search(str(error)):
            raise
        on_gpu = devices.choose_device(plan.options.device).type != "cpu"
        raise OutOfMemoryError(f"out of memory; try {memory_suggestions(plan, on_gpu=on_gpu)}") from error


def memory_suggestions(plan: Outline, *, on_gpu: bool) -> str:
    """Options that would make a plan fit in less memory."""
    need, options = plan.facts.memory, plan.options
    float8 = options.float8_matmul
    other = float8 or options.use_usp  # which --low_vram does not go with
    ways = (
        ("--offload", not (options.offload or options.low_vram or float8), need.peak(offload=True)),
        ("--low_vram", not (options.low_vram or other), need.peak(low_vram=True)),
    )
    tries = [f"{flag} (about {size / 1e9:.0f} GB)" for flag, useful, size in ways if on_gpu and useful]
    shorter = " or fewer --num_frames" if plan.task.uses("num_frames") else ""
    return ", ".join([*tries, f"a smaller --resolution{shorter}"])
