"""What a user should know about a plan: one function per kind of task.

(options, names of those asked for, inputs) -> warnings, one line each.
"""

from collections.abc import Collection, Iterator

from videogen.tasks.options import OPTIONS, Options
from videogen.tasks.sizes import Inputs

RATE_TOLERANCE = 0.01  # frames a second


def guidance_warnings(options: Options, asked: Collection[str], inputs: Inputs) -> Iterator[str]:
    """Warn of options that have no effect without guidance."""
    del inputs
    if options.guided:
        return
    for name, option in OPTIONS.items():
        if option.needs_guidance and name in asked and getattr(options, name) not in ("", 1):
            yield f"{option.flag} has no effect while --guidance_scale is 1 or less"


def unguided_warnings(options: Options, asked: Collection[str], inputs: Inputs) -> Iterator[str]:
    """Warn likewise for tasks that are unguided only at a scale of exactly 1."""
    if options.guidance_scale in (1, (1, 1)):
        yield from guidance_warnings(options, asked, inputs)
