"""Which videos can share a loaded model. Needs no torch."""

from collections.abc import Sequence
from typing import TypeVar

from videogen.planning.plan import Outline
from videogen.tasks.options import OPTIONS

Video = TypeVar("Video", bound=Outline)


def model_key(plan: Outline) -> tuple:
    """Return what a loaded pipeline depends on; plans with the same key share one."""
    model = plan.checkpoint
    return (
        plan.task.name,
        plan.task.family,
        model.folder or (model.name, model.revision),
        plan.facts.degrees,
        plan.facts.loras,
        *(getattr(plan.options, name) for name, option in OPTIONS.items() if option.reloads),
    )


def by_model(plans: Sequence[Video]) -> list[list[Video]]:
    """Return the plans in groups that share a loaded model, in the order in which each is first needed."""
    groups: dict[tuple, list[Video]] = {}
    for plan in plans:
        groups.setdefault(model_key(plan), []).append(plan)
    return list(groups.values())
