"""What a request may not say, as far as that depends on task and model."""

from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError, safe_open

from videogen.errors import InputError
from videogen.planning.parallelism import check_launch
from videogen.tasks.geometry import Shape
from videogen.tasks.option import typed
from videogen.tasks.option_types import Lora
from videogen.tasks.options import OPTIONS, Options
from videogen.tasks.task_spec import TaskSpec, check_scales


def check_unused(task: TaskSpec, explicit: Mapping[str, Any]) -> None:
    """Refuse options that the models found have no use for.

    Raises:
        InputError: the first one.
    """
    for name in explicit:
        if not task.uses(name):
            what = f"not used by {task.name} with {task.family} models"
            raise InputError(OPTIONS[name].flag, typed(explicit[name]), what, "leave it out")
    check_scales(task, explicit.get("guidance_scale"))
    for lora in explicit.get("lora", ()):
        if lora.expert is not None and task.network.get("experts") != 2:
            what = f"':{lora.expert}' is for models with two experts"
            raise InputError("--lora", lora.path, what, "leave it out")


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


def check_roll_prompts(options: Options, shape: Shape) -> None:
    """Refuse more prompts than there are segments.

    Raises:
        InputError: there are more.
    """
    prompts, rolls = len(options.roll_prompts or ()), len(shape.rolls)
    if prompts > rolls:
        what = f"has {prompts} prompts, and there are {rolls} rolls"
        raise InputError("--roll_prompts", None, what, f"leave out {prompts - rolls}")


def check_runtime(options: Options) -> None:
    """Refuse LoRA files that cannot be, and what does not fit the way the command was started.

    Raises:
        InputError: the first one.
    """
    check_launch(options)
    for lora in options.lora:
        _check_lora(lora)


def _check_lora(lora: Lora) -> None:
    path = lora.path
    files = [path] if path.is_file() and path.suffix == ".safetensors" else sorted(path.glob("*.safetensors"))
    if not files:
        raise InputError("--lora", path, "no such .safetensors file", "give the file, or the folder it is in")
    if len(files) > 1:
        what = f"holds {len(files)} .safetensors files"
        raise InputError("--lora", path, what, f"give one, for example {files[0]}")
    for file in files:
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise InputError(
                "--lora", file, f"is not a .safetensors file ({error})", "download it again"
            ) from None
