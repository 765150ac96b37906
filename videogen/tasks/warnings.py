"""What a user should know about a plan, and what its options contradict: one function per kind of task.

(option values, those given explicitly, inputs) -> warnings, one line each.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from videogen.tasks.sizes import Inputs

if TYPE_CHECKING:
    pass

RATE_TOLERANCE = 0.01  # frames a second


def guidance_notes(values: Mapping[str, Any], explicit: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """Options that have no effect without guidance."""
    del inputs
    if values["guidance_scale"] <= 1:
        for name in ("guidance_scale_img", "negative_prompt"):
            if explicit.get(name) not in (None, "", 1.0):
                yield f"--{name} has no effect while --guidance_scale is 1 or less"


def unguided_notes(values: Mapping[str, Any], explicit: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """The same for tasks that are unguided only at a scale of exactly 1."""
    if values["guidance_scale"] in (1, (1, 1)):
        yield from guidance_notes({**values, "guidance_scale": 1}, explicit, inputs)
