"""Which videos can share a loaded model. Needs no torch."""

from videogen.planning.plan import Outline
from videogen.tasks.options import OPTIONS


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
