"""What to try when memory runs out; ``errors.is_out_of_memory`` recognises it."""

from collections.abc import Iterator
from contextlib import contextmanager

from videogen.errors import OutOfMemoryError, is_out_of_memory
from videogen.planning.plan import Outline
from videogen.results.formatting import format_bytes
from videogen.runtime import device as devices


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
    need, options = plan.facts.memory, plan.options
    float8 = options.float8_matmul
    other = float8 or options.use_usp  # which --low_vram does not go with
    ways = (
        ("--offload", not (options.offload or options.low_vram or float8), need.peak(offload=True)),
        ("--low_vram", not (options.low_vram or other), need.peak(low_vram=True)),
    )
    tries = [f"{flag} (about {format_bytes(size)})" for flag, useful, size in ways if on_gpu and useful]
    shorter = " or fewer --num_frames" if plan.task.uses("num_frames") else ""
    return ", ".join([*tries, f"a smaller --resolution{shorter}"])
