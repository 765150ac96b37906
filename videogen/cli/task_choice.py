"""Which task is meant: by name, by the name that a published command has for it, or by model and inputs."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from videogen.checkpoints import resolve
from videogen.cli.published import TASK_NAMES, UNSUPPORTED_TASKS
from videogen.errors import CheckpointError, InputError
from videogen.tasks.table import ROWS, TASKS, variant
from videogen.tasks.task_spec import TaskSpec

INPUTS = tuple(dict.fromkeys(name for row in ROWS for name in row.inputs))


def with_task(values: Mapping[str, object]) -> dict[str, object]:
    """Return values with the task under its name here.

    A published task brings its model, unless one is given. Without a task it is the only one that
    the model and the inputs leave.

    Raises:
        InputError: a published task that is not here, or several that are left.
    """
    asked, model = values.get("task_type"), values.get("model_id")
    if asked is None:
        left = list(_left(values)) if isinstance(model, str) and model != "tiny" else []
        if len(left) > 1:
            what = f"none given, and {model} with these inputs is for {' and '.join(left)}"
            raise InputError("--task_type", None, what, "choose one")
        return {**values, "task_type": left[0]} if left else dict(values)
    name, family = published_task(str(asked), has_image=bool(values.get("input_image")))
    if family is not None and model is None:
        return {**values, "task_type": name, "model_id": variant(name, family).default_model()}
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


def _left(values: Mapping[str, object]) -> Iterator[str]:
    """Yield the tasks that the model is for and that take the inputs given, each once."""
    model, given = str(values["model_id"]), {name for name in INPUTS if values.get(name)}
    named = [row for row in ROWS if row.model(model) is not None] or [*ROWS]
    fitting = (
        row.name
        for row in named
        if {name for name, files in row.inputs.items() if files.fewest} <= given <= set(row.inputs)
    )
    for name in dict.fromkeys(fitting):
        if _is_for(model, values.get("revision"), TASKS[name], known=len(named) < len(ROWS)):
            yield name


def _is_for(model: str, revision: object, task: TaskSpec, *, known: bool) -> bool:
    """Return whether a task can be made with a model, as far as its name or its files tell."""
    if known:
        return True
    if model.partition(":")[0] != "tiny" and not Path(model).expanduser().is_dir():
        return False
    try:
        resolve.locate(model, None if revision is None else str(revision), task)
    except (CheckpointError, InputError):
        return False
    return True
