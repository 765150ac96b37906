"""Options that the weights of a model decide."""

from collections.abc import Mapping

from videogen.checkpoints import model_features
from videogen.checkpoints.layouts import Checkpoint
from videogen.errors import InputError
from videogen.tasks.option import typed
from videogen.tasks.options import OPTIONS
from videogen.tasks.task_spec import TaskSpec


def options_of_weights(
    task: TaskSpec, checkpoint: Checkpoint, asked: Mapping[str, object]
) -> dict[str, object]:
    """Return the options that the weights decide, and None for those that they have no place for.

    As far as nobody knows the model yet, what was asked for holds.

    Raises:
        InputError: something else was asked for.
    """
    known = checkpoint.folder is not None or checkpoint.tiny or task.model(checkpoint.name)
    if not known:
        return {name: asked.get(name, value) for name, value in task.fixed_options.items()}
    for name, value in task.fixed_options.items():
        if asked.get(name, value) != value:
            channels = task.network["in_channels"]
            what = f"the weights of {checkpoint.name} have {channels} input channels, which are {value}"
            raise InputError(OPTIONS[name].flag, typed(asked[name]), what, f"nearest {value}")
    if not task.requires or checkpoint.folder is None:
        return dict(task.fixed_options)
    found = model_features.read_features(checkpoint)
    useless = [name for name, feature in task.requires.items() if not found[feature]]
    for name in useless:
        if name in asked:
            what = "this model has no embedding for it"
            raise InputError(OPTIONS[name].flag, typed(asked[name]), what, "leave it out")
    return {**task.fixed_options, **dict.fromkeys(useless)}
