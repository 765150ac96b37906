"""What a request may not say with its task and its model, and what the user is told about it."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from videogen.checkpoints import lora as lora_files
from videogen.checkpoints import tensor_headers
from videogen.checkpoints.layouts import Checkpoint
from videogen.checkpoints.resolve import is_published, known_ids_like
from videogen.errors import CheckpointError, InputError
from videogen.planning import option_rules
from videogen.planning.file_notes import file_notes
from videogen.planning.parallelism import check_launch
from videogen.results.writable import check_writable
from videogen.tasks import config
from videogen.tasks.geometry import Shape
from videogen.tasks.option import typed
from videogen.tasks.options import OPTIONS, Options
from videogen.tasks.sizes import Inputs
from videogen.tasks.table import VARIANTS, users_of
from videogen.tasks.task_spec import TaskSpec, check_prompt_count, check_scales


def check_unused(task: TaskSpec, asked: Mapping[str, object]) -> None:
    """Refuse options that the model found has no use for.

    Raises:
        InputError: the first one.
    """
    for name in asked:
        if not task.uses(name):
            what = f"not used by {task.name} with {task.family} models"
            raise InputError(OPTIONS[name].flag, typed(asked[name]), what, _who_uses(name, task))


def _who_uses(option: str, task: TaskSpec) -> str:
    """Name the models and tasks that an option is for."""
    families = [row.family for row in VARIANTS[task.name] if row.uses(option)]
    others = [name for name in users_of(option) if name != task.name]
    users = [f"{task.name} with {', '.join(families)} models"] if families else []
    return f"leave it out; used by {', '.join([*users, *others])}"


def check_experts(task: TaskSpec, options: Options) -> None:
    """Refuse what is for models with two experts.

    Raises:
        InputError: the model has one.
    """
    check_scales(task, options.guidance_scale)
    for lora in options.lora:
        if lora.expert is not None and task.network.experts != 2:
            what = f"':{lora.expert}' is for models with two experts"
            raise InputError("--lora", lora.name, what, "leave it out")


def check_prompt(task: TaskSpec, options: Options) -> None:
    """Refuse a video that nobody says anything about, and a prompt where models are to write it.

    Raises:
        InputError: there is one.
    """
    prompt = options.prompt
    if options.captioner and (prompt is not None or options.roll_prompts):
        raise InputError("--captioner", None, "writes the prompt itself", "leave the prompt out")
    if options.captioner or options.roll_prompts or (prompt is None and task.describes):
        return
    if prompt is None or not prompt.strip():
        what = f"required by {task.name}" if prompt is None else "must not be empty"
        raise InputError("--prompt", prompt, what, "say what the video shows")


def check_runtime(options: Options) -> None:
    """Refuse folders and LoRA files that cannot be, and what does not fit the way the command was started.

    Raises:
        InputError: the first one.
    """
    check_launch(options)
    if options.embedding_cache is not None:
        check_writable("--embedding_cache", Path(options.embedding_cache))
    for lora in options.lora:
        if lora.path.exists() or lora.source is None:
            check_lora(lora.path, lora.name)


def check_lora(path: Path, name: str) -> None:
    """Refuse what is no LoRA file, or none that is whole; messages call it by its name.

    Raises:
        InputError: it is so.
    """
    if not (path.is_dir() or (path.is_file() and path.suffix in lora_files.SUFFIXES)):
        kinds = ", ".join(lora_files.SUFFIXES)
        fix = f"give the file ({kinds}), the folder it is in, a URL, or OWNER/REPO:FILE"
        what = "is no LoRA file" if path.is_file() else "no such .safetensors file"
        raise InputError("--lora", name, what, fix)
    try:
        tensor_headers.check(lora_files.file_of(path))
    except CheckpointError as error:
        what, _, fix = str(error).partition(": ")[2].rpartition("; ")
        raise InputError("--lora", name, what, fix) from None


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
        InputError: a published model of another task, or more prompts than segments.
    """
    yield from task.warnings(options, asked, inputs)
    yield from _published_for_another(task, checkpoint)
    yield from _unknown_repository(task, checkpoint)
    yield from _untrained_size(task, shape, checkpoint)
    yield from option_rules.warnings(options)
    prompts, rolls = len(options.roll_prompts or ()), len(shape.rolls)
    check_prompt_count("--roll_prompts", prompts, rolls)
    if 0 < prompts < rolls:
        yield f"--roll_prompts has {prompts} prompts for {rolls} segments; the last one is used to the end"
    if options.revision and checkpoint.folder is not None and not checkpoint.revision:
        yield "--revision has no effect on a folder or a tiny model"
    if "prompt_enhancer" in asked and options.prompt_enhancer and (options.input_image or options.end_image):
        yield "--prompt_enhancer is not used with an image, which it does not see"
    yield from _without_effect(task, options, asked)
    yield from file_notes(task, options, checkpoint)


def _without_effect(task: TaskSpec, options: Options, asked: Collection[str]) -> Iterator[str]:
    """Warn of options that mean nothing without others, or beside others."""
    prompted = task.describes and options.prompt is not None
    for name, option in OPTIONS.items():
        if name not in asked or getattr(options, name) == option.default:
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


def _unknown_repository(task: TaskSpec, checkpoint: Checkpoint) -> Iterator[str]:
    """Warn of a hub id that no row knows, and name those that it may be a misspelling of."""
    name = checkpoint.name
    if checkpoint.folder is None and not checkpoint.tiny and not is_published(name):
        what = f"is not known here, and planned as a {task.family} model until the hub says what it is"
        yield f"--model_id {name} {what}{known_ids_like(name)}"


def _untrained_size(task: TaskSpec, shape: Shape, checkpoint: Checkpoint) -> Iterator[str]:
    """Warn of a size that the miniature was not trained at."""
    if checkpoint.tiny and config.is_trained(checkpoint.tiny):
        sizes = [(h, w) for table in task.size_tables(checkpoint).values() for _, h, w in table]
        if (shape.height, shape.width) not in sizes:
            known = " and ".join(f"{w}x{h}" for h, w in sizes)
            yield f"{checkpoint.name} was trained at {known}, not {shape.width}x{shape.height}"


def _published_for_another(task: TaskSpec, checkpoint: Checkpoint) -> Iterator[str]:
    """Warn of a model of another task that only its name tells apart from this one's.

    Raises:
        InputError: a published model that is not even here.
    """
    name = checkpoint.name
    if checkpoint.tiny or any(row.model(name) is not None for row in VARIANTS[task.name]):
        return
    for other in (row for rows in VARIANTS.values() for row in rows):
        if (model := other.model(name)) is None or other.name == task.name:
            continue
        alike = [own for own in task.models() if own.weights == model.weights] or task.models()
        shared = [sum(model.defaults.get(k) == v for k, v in own.defaults.items()) for own in alike]
        use = f"{task.name} uses {alike[shared.index(max(shared))].names[0]}"
        if checkpoint.folder is None and name in model.names:
            raise InputError("--model_id", name, f"is published for {other.name}", use)
        yield f"{name} is published for {other.name}; {use}"
        return
