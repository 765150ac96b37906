"""The registry: the families and networks there are, and from them the table of tasks.

A new family is added to ``FAMILIES``, a new network to ``NETWORKS``, and nowhere else.

Nothing here imports torch: a row names its pipeline class, and its ``shape`` function is plain arithmetic.
"""

import re
from collections.abc import Mapping

from videogen.errors import InputError, nearest
from videogen.tasks.families import hunyuan, skyreels_v2, skyreels_v3, wan22
from videogen.tasks.option import typed
from videogen.tasks.options import OPTIONS
from videogen.tasks.task_spec import DIFFUSERS, Files, Layout, TaskSpec

FAMILIES = (skyreels_v3, skyreels_v2, wan22, hunyuan)
NETWORKS = ("wan", "hunyuan")
"""Names of the modules in ``checkpoints/networks/`` and of the folders in ``models/``."""
LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (*(own for family in FAMILIES for own in family.LAYOUTS), DIFFUSERS)
}
TAKEN_OVER: dict[str, str] = {
    name: component for family in FAMILIES for name, component in family.TAKEN_OVER.items()
}
"""diffusers' transformers with the same tensors as ours -> our component."""
ROWS: tuple[TaskSpec, ...] = tuple(row for family in FAMILIES for row in family.TASKS)
VARIANTS: dict[str, tuple[TaskSpec, ...]] = {
    name: tuple(row for row in ROWS if row.name == name) for name in dict.fromkeys(row.name for row in ROWS)
}
TASKS: dict[str, TaskSpec] = {name: rows[0] for name, rows in VARIANTS.items()}
"""The row of every task's default model."""
INPUTS: dict[str, Files] = {name: files for row in ROWS for name, files in row.inputs.items()}
"""Every input that some task has -> what it takes."""
SHORT = {
    **{"t": "text", "txt": "text", "i": "image", "img": "image", "v": "video", "vid": "video"},
    **{"r": "reference", "ref": "reference"},
}
"""Words in the names of tasks, as other programs shorten them."""


def summary(name: str) -> str:
    """Return what a task makes, and with which models."""
    brands = dict.fromkeys(row.brand or row.family for row in VARIANTS[name])
    return f"{TASKS[name].summary} ({', '.join(brands)})"


def variant(name: str, family: str) -> TaskSpec:
    """Return the row of a task for the models of a family."""
    (row,) = (row for row in VARIANTS[name] if row.family == family)
    return row


def find(name: str | None, flag: str = "--task_type") -> TaskSpec:
    """Return the row of a task; ``flag`` names it.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    if name in TASKS:
        return TASKS[name]
    available = ", ".join(TASKS)
    if name is None:
        raise InputError(flag, None, "none given", f"choose one of {available}")
    close = _meant(name.lower().replace("-", "_")) or nearest(name, TASKS)
    raise InputError(
        flag, name, f"must be one of {available}", f"nearest {close}" if close else "see --list_tasks"
    )


def _meant(word: str) -> str | None:
    """Return the only task that a word is short for: t2v, txt2vid, df, avatar."""
    long = "_to_".join(SHORT.get(part, part) for part in re.split("2|_to_", word))
    short = [
        name
        for name in TASKS
        if word in name.split("_") or word == "".join(part[0] for part in name.split("_"))
    ]
    return long if long in TASKS else short[0] if len(short) == 1 else None


def users_of(option: str) -> list[str]:
    """Return the tasks that an option means something for, with any of their models."""
    return [name for name, rows in VARIANTS.items() if any(row.uses(option) for row in rows)]


def check_used(task: str, values: Mapping[str, object]) -> None:
    """Refuse options that a task uses with none of its models; the error names the tasks that do.

    Raises:
        InputError: the first such option.
    """
    for name, value in values.items():
        option, users = OPTIONS[name], users_of(name)
        if task in users:
            continue
        users = ["generate_continuous"] * option.chain + users
        fix = f"used by {', '.join(users)}" if users else "leave it out"
        raise InputError(option.flag, typed(value), f"not used by {task}", fix)
