"""Guidance: the branches of a prediction, and how they are combined.

A branch is a name; the pipeline defines its meaning (which text, which references). ``branches`` are
evaluated in order, one forward each, or in parallel on different ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor


class Guidance(Protocol):
    """Branch names, and the rule that combines their velocities."""

    branches: ClassVar[tuple[str, ...]]

    def combine(self, *velocities: Tensor) -> Tensor:
        """Combine the velocities of the branches, in their order."""

    def rescaled(self, scale: float) -> "Guidance":
        """Return the guidance with another scale of the text; 1 or less is none."""


@dataclass(frozen=True, slots=True)
class SinglePass:
    """No guidance: one forward per step."""

    branches: ClassVar[tuple[str, ...]] = ("cond",)

    def combine(self, *velocities: Tensor) -> Tensor:
        (cond,) = velocities
        return cond

    def rescaled(self, scale: float) -> Guidance:
        return ClassifierFree(scale) if scale > 1 else self


@dataclass(frozen=True, slots=True)
class ClassifierFree:
    """Classifier-free guidance: uncond + scale * (cond - uncond)."""

    scale: float
    branches: ClassVar[tuple[str, ...]] = ("cond", "uncond")

    def combine(self, *velocities: Tensor) -> Tensor:
        cond, uncond = velocities
        return uncond + self.scale * (cond - uncond)

    def rescaled(self, scale: float) -> Guidance:
        return ClassifierFree(scale) if scale > 1 else SinglePass()


@dataclass(frozen=True, slots=True)
class DualGuidance:
    """Guidance by text and a second condition (reference images, audio), each with its own scale.

    Branches: all conditions; all but the text; none. Specs skyreels_v3 section 9, talking_avatar section 7.
    """

    text_scale: float
    other_scale: float
    branches: ClassVar[tuple[str, ...]] = ("cond", "no_text", "uncond")

    def combine(self, *velocities: Tensor) -> Tensor:
        cond, no_text, uncond = velocities
        return uncond + self.other_scale * (no_text - uncond) + self.text_scale * (cond - no_text)

    def rescaled(self, scale: float) -> Guidance:
        return DualGuidance(scale, self.other_scale) if scale > 1 else SinglePass()


Velocity = Callable[[str], Tensor]
"""A branch's name to its velocity."""


def evaluate_sequentially(branches: Sequence[str], velocity: Velocity) -> list[Tensor]:
    """Evaluate the branches one after the other on this rank, in float32."""
    return [velocity(branch).float() for branch in branches]


def guide(
    guidance: Guidance,
    velocity: Velocity,
    evaluate: Callable[[Sequence[str], Velocity], Sequence[Tensor]] = evaluate_sequentially,
) -> Tensor:
    """Evaluate every branch and combine, in float32."""
    return guidance.combine(*evaluate(guidance.branches, velocity))
