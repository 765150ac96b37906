"""What the user is told about a request that can be met."""

from collections.abc import Collection, Iterator

from videogen.checkpoints import lora as lora_files
from videogen.checkpoints.layouts import Checkpoint
from videogen.errors import InputError
from videogen.planning import option_rules
from videogen.tasks.geometry import Shape
from videogen.tasks.options import OPTIONS, Options
from videogen.tasks.sizes import Inputs
from videogen.tasks.table import VARIANTS
from videogen.tasks.task_spec import TaskSpec


def warnings(
    task: TaskSpec,
    options: Options,
    asked: Collection[str],
    inputs: Inputs,
    shape: Shape,
    checkpoint: Checkpoint,
) -> Iterator[str]:
    """Yield warnings, one line each; ``asked`` are the names of the options that were given.

    Raises:
        InputError: a published model of another task.
    """
    yield from task.warnings(options, asked, inputs)
    yield from _published_for_another(task, checkpoint)
    yield from option_rules.warnings(options)
    prompts, rolls = len(options.roll_prompts or ()), len(shape.rolls)
    if 0 < prompts < rolls:
        yield f"--roll_prompts has {prompts} prompts for {rolls} rolls; the last one is used to the end"
    if options.revision and checkpoint.folder is not None and not checkpoint.revision:
        yield "--revision has no effect on a folder or a tiny model"
    if "prompt_enhancer" in asked and options.prompt_enhancer and (options.input_image or options.end_image):
        yield "--prompt_enhancer is not used with an image, as published"
    yield from _without_effect(task, options, asked)
    if checkpoint.folder is not None:
        yield from (note for lora in options.lora if (note := lora_files.check(lora.path, checkpoint)))


def _without_effect(task: TaskSpec, options: Options, asked: Collection[str]) -> Iterator[str]:
    """Warn of options that mean nothing without others, or beside others."""
    prompted = task.describes and options.prompt is not None
    for name, option in OPTIONS.items():
        if name not in asked or getattr(options, name) == option.default_value:
            continue
        other = option.useless_without
        if other is not None and task.uses(other) and not getattr(options, other):
            yield f"{option.flag} has no effect without --{other}"
        if prompted and option.writes_prompt:
            yield f"{option.flag} has no effect with a --prompt"
        yield from (
            f"{option.flag} has no effect with --{other}"
            for other in option.useless_with
            if getattr(options, other)
        )


def _published_for_another(task: TaskSpec, checkpoint: Checkpoint) -> Iterator[str]:
    """Models that only their name tells apart from this task's.

    Raises:
        InputError: a published model that is not even here.
    """
    name = checkpoint.name
    if checkpoint.tiny or any(row.model(name) is not None for row in VARIANTS[task.name]):
        return
    for other in (row for rows in VARIANTS.values() for row in rows):
        if (model := other.model(name)) is None or other.name == task.name:
            continue
        alike = [
            own for own in task.models if own.weights == model.weights and own.defaults == model.defaults
        ]
        use = f"{task.name} uses {(alike or task.models)[0].names[0]}"
        if checkpoint.folder is None and name in model.names:
            raise InputError("--model_id", name, f"is published for {other.name}", use)
        yield f"{name} is published for {other.name}; {use}"
        return
