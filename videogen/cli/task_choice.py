"""Which task is meant: by name, by the name that a published command has for it, or by model and inputs."""

from collections.abc import Mapping
from pathlib import Path

from videogen.checkpoints import resolve
from videogen.checkpoints.resolve import HUB_ID, known_ids_like
from videogen.cli.published import TASK_NAMES, UNSUPPORTED_TASKS
from videogen.errors import CheckpointError, InputError
from videogen.tasks.config import tiny_name
from videogen.tasks.table import INPUTS, ROWS, TASKS, VARIANTS, variant
from videogen.tasks.task_spec import TaskSpec


def with_task(values: Mapping[str, object]) -> dict[str, object]:
    """Return values with the task under its name here.

    A published task brings its model, unless one is given; 'tiny' is then that of its family. Without a
    task it is the only one that the model and the inputs leave.

    Raises:
        InputError: a published task that is not here, or several that are left.
    """
    asked, model = values.get("task_type"), values.get("model_id")
    if asked is None:
        name = _only_task(values, model) if isinstance(model, str) and model != "tiny" else None
        return dict(values) if name is None else {**values, "task_type": name}
    name, family = published_task(str(asked), has_image=bool(values.get("input_image")))
    if family is not None and model in (None, "tiny"):
        row = variant(name, family)
        model = row.default_model() if model is None else f"tiny:{next(iter(row.tiny))}"
        return {**values, "task_type": name, "model_id": model}
    return {**values, "task_type": name}


def published_task(asked: str, *, has_image: bool) -> tuple[str, str | None]:
    """Return the name of a task here, and the family whose model a published task is made with.

    Raises:
        InputError: a published task that is not here.
    """
    word = asked.lower()
    if why := UNSUPPORTED_TASKS.get(word):
        raise InputError("--task_type", asked, "is not supported", why)
    if asked in TASKS or word not in TASK_NAMES:
        return asked, None
    without, with_image, family = TASK_NAMES[word]
    return with_image if has_image else without, family


def _only_task(values: Mapping[str, object], model: str) -> str | None:
    """Return the only task that a model and the inputs leave; None for a folder that says nothing.

    Raises:
        InputError: several are left, or nobody knows the model.
    """
    named = dict.fromkeys(row.name for row in ROWS if row.model(model) is not None)
    known = bool(named)
    left = [name for name in named or TASKS if _takes(name, values)] or list(named)
    if not known:
        left = [name for name in left if _reads(model, values.get("revision"), TASKS[name])]
        if not left and HUB_ID.fullmatch(model) and not Path(model).is_dir():
            what = f"none given, and {model} is not known here{known_ids_like(model)}"
            raise InputError("--task_type", None, what, f"choose one of {', '.join(TASKS)}")
    if len(left) > 1:
        what = f"none given, and {model} with these inputs is for {' and '.join(left)}"
        raise InputError("--task_type", None, what, "choose one")
    return left[0] if left else None


def _takes(task: str, values: Mapping[str, object]) -> bool:
    """Return whether a task takes the inputs given, and has all that it needs."""
    given = {name for name in INPUTS if values.get(name)}
    return any(row.is_made_of(given) for row in VARIANTS[task])


def _reads(model: str, revision: object, task: TaskSpec) -> bool:
    """Return whether a task can be made with the files of a folder, or has a tiny model of that name."""
    if tiny_name(model) is None and not Path(model).expanduser().is_dir():
        return False
    try:
        resolve.locate(model, None if revision is None else str(revision), task)
    except (CheckpointError, InputError):
        return False
    return True
