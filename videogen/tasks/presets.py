"""Presets: options that belong together, from configs/presets.yaml."""

from collections.abc import Mapping
from typing import Any

from videogen.errors import InputError, nearest
from videogen.tasks import config
from videogen.tasks.options import OPTIONS
from videogen.tasks.task_spec import TaskSpec


def preset_values(name: str, task: TaskSpec) -> Mapping[str, Any]:
    """Return the options that a preset sets for a task with the models of its family.

    Raises:
        InputError: no such preset, or it is for others.
    """
    presets = config.read("presets")
    if name not in presets:
        close = nearest(name, presets) or next(iter(presets))
        raise InputError("--preset", name, f"must be one of {', '.join(presets)}", f"nearest {close}")
    rows = presets[name]
    for row in rows:
        if task.name in row["tasks"] and task.family == row["family"]:
            return {option: OPTIONS[option].value(value) for option, value in row["values"].items()}
    users = [f"{', '.join(row['tasks'])} with {row['family']} models" for row in rows]
    what = f"is not for {task.name} with {task.family} models"
    raise InputError("--preset", name, what, f"leave it out; used by {'; '.join(users)}")
