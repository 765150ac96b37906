"""What each task's video will be: one function per task, (option values, inputs, size tables) -> Shape."""

from collections.abc import Mapping, Sequence
from typing import Any

from videogen.tasks.geometry import (
    Bucket,
)

Inputs = Mapping[str, Sequence[Any]]
"""Input files of a request, opened and checked (InputImage, InputVideo), by the name of their flag."""
SizeTables = Mapping[str, Sequence[Bucket]]
"""Size classes of a model, by name."""
