"""What a user should know about a plan, and what its options contradict: one function per kind of task.

(options, names of those asked for, inputs) -> warnings, one line each.
"""

from collections.abc import Collection, Iterator

from videogen.tasks.options import Options
from videogen.tasks.sizes import Inputs

RATE_TOLERANCE = 0.01  # frames a second


def guidance_warnings(options: Options, asked: Collection[str], inputs: Inputs) -> Iterator[str]:
    """Options that have no effect without guidance."""
    del inputs
    if options.guided:
        return
    without_effect = {
        "guidance_scale_img": options.guidance_scale_img != 1,
        "negative_prompt": bool(options.negative_prompt),
    }
    for name, given in without_effect.items():
        if given and name in asked:
            yield f"--{name} has no effect while --guidance_scale is 1 or less"


def unguided_warnings(options: Options, asked: Collection[str], inputs: Inputs) -> Iterator[str]:
    """Warn likewise for tasks that are unguided only at a scale of exactly 1."""
    if options.guidance_scale in (1, (1, 1)):
        yield from guidance_warnings(options, asked, inputs)
