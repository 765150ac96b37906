"""What a pipeline's call takes: its signature and docstring, made from the rows of its tasks."""

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from videogen.errors import CallError, nearest
from videogen.pipelines.call import COMMON, TEXTS, CallArguments
from videogen.pipelines.pixels import VideoOutput
from videogen.tasks.options import OPTIONS, Options, Size
from videogen.tasks.table import INPUTS, ROWS
from videogen.tasks.task_spec import TaskSpec

KINDS: dict[str, object] = {
    "image": Image.Image | np.ndarray,
    "video": str | Path | np.ndarray | Sequence[Image.Image],
    "audio": str | Path,
}
SHAPE = ("rolls", "latent_frames", "clip_frames")  # arguments of ``parts`` that follow from size and length
INTERNAL = ("first", "state")  # arguments of ``parts`` for resuming
DOCUMENTATION = """Make videos: {tasks}.

What is left out, or None, is as published for the model. Several videos are made one after another; if a
callback interrupts one, those after it are not made.

Args:
{about}

Returns:
    VideoOutput: ``frames``, of one video after another, in the form that ``output_type`` names.

Raises:
    InputError: an argument that cannot be used; the message says what is allowed and what is near.
"""
INSTEAD = {
    "callback": "give callback_on_step_end=",
    "callback_steps": "give callback_on_step_end=",
    "guidance_scale_2": "give guidance_scale=(for low noise, for high noise)",
    "seed": "give generator=torch.Generator().manual_seed(...)",
    "sigmas": "set pipe.scheduler",
    "timesteps": "set pipe.scheduler",
    "true_cfg_scale": "give guidance_scale=, and embedded_cfg_scale= for the distilled one",
}
"""Arguments of diffusers' pipelines that are something else here."""
PROMPT = "what the video shows; a list makes a video of each, or gives each segment of a long video its own"


def rows_of(pipeline: type) -> tuple[TaskSpec, ...]:
    """Return the rows of the tasks that a pipeline class runs."""
    names = {each.__name__ for each in pipeline.__mro__}
    return tuple(row for row in ROWS if row.pipeline.partition(":")[2] in names)


def usable(row: TaskSpec) -> set[str]:
    """Return the options that a call may give for a row."""
    size = (each.name for each in fields(Size) if row.uses(each.name))
    return {name for name in (*row.arguments, *row.inputs, *size) if name in OPTIONS}


def embedding_names(pipeline: type) -> list[str]:
    """Return the names of the encoded prompts that a call may give."""
    names: Sequence[str] = getattr(pipeline, "embeddings")  # noqa: B009 - of the pipeline's base
    return [f"{sign}{name}" for sign in ("", "negative_") for name in names]


def accepted(pipeline: type) -> Mapping[str, str]:
    """Return every name that a call takes, diffusers' among them, and which of our arguments it is."""
    options = dict.fromkeys(name for row in rows_of(pipeline) for name in OPTIONS if name in usable(row))
    own = inspect.signature(getattr(pipeline, "parts")).parameters  # noqa: B009 - of each pipeline
    common = [each.name for each in fields(CallArguments)]
    names = {name: name for name in (*options, *common, *embedding_names(pipeline), "prompt", *own)}
    names |= {also: name for name in options for also in OPTIONS[name].call_names}
    return names | {name: own for name, own in _call_names(pipeline).items() if name not in names}


def _call_names(pipeline: type) -> Mapping[str, str]:
    names: Mapping[str, str] = getattr(pipeline, "call_names")  # noqa: B009 - of the pipeline's base
    return names


def named(pipeline: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments under our names; None counts as not given.

    Some names mean one thing in diffusers and another here (``call_names``): they mean diffusers' in a call
    that has a name which only diffusers has.

    Raises:
        CallError: a name that no pipeline has, or two for one argument.
    """
    names, renamed = dict(accepted(pipeline)), dict[str, Any]()
    theirs = _call_names(pipeline)
    if any(given.get(name) is not None for name in theirs.keys() - OPTIONS.keys()):
        names.update(theirs)
    for name, value in given.items():
        if value is None:
            continue
        if name not in names and (name not in OPTIONS or name in INSTEAD):
            close = nearest(name, names)
            what = f"is no argument of {pipeline.__name__}"
            fix = INSTEAD.get(name) or (f"nearest {close}=" if close else "leave it out")
            raise CallError(f"{name}=", None, what, fix)
        own = names.get(name, name)
        if own in renamed:
            raise CallError(f"{name}=", None, f"is {own}= under diffusers' name", "give one of the two")
        renamed[own] = value
    return renamed


def check_texts(given: Mapping[str, Any], encoded: Mapping[str, object]) -> None:
    """Refuse prompts of another type, and texts given twice or not at all.

    Raises:
        CallError: the first such argument.
    """
    for name, value in encoded.items():
        if not isinstance(value, Tensor):
            raise CallError(f"{name}=", type(value).__name__, "must be a tensor", "see encode_prompt")
        if name.removeprefix("negative_") == "prompt_embeds" and value.ndim != 3:
            what = "must be [prompts, rows, width]"
            raise CallError(f"{name}=", list(value.shape), what, "see encode_prompt")
    for text in TEXTS:
        value, name = given.get(text), f"{text}_embeds"
        if value is not None and name in encoded:
            raise CallError(
                f"{name}=", None, f"stands for {text}=, which is given too", "give one of the two"
            )
        items = value if isinstance(value, list | tuple) else [value]
        flat = [one for item in items for one in (item if isinstance(item, list | tuple) else [item])]
        if value is not None and not (flat and all(isinstance(item, str) for item in flat)):
            raise CallError(
                f"{text}=", type(value).__name__, "must be a text or a list of texts", "give a str"
            )
    if given.get("prompt") is None and "prompt_embeds" not in encoded:
        raise CallError("prompt=", None, "none given", "give a text, or prompt_embeds=")


def describe_call(pipeline: type) -> None:
    """Give a pipeline class a ``__call__`` that names, types and explains the arguments of its tasks."""
    inherited: Callable[..., VideoOutput] = pipeline.__call__

    def call(self: object, *given: Any, **arguments: Any) -> Any:
        return inherited(self, *given, **arguments)

    described = list(_arguments(pipeline))
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [first, *(parameter for parameter, _ in described)]
    signature = inspect.Signature(parameters, return_annotation=VideoOutput | tuple)
    setattr(call, "__signature__", signature)  # noqa: B010 - of the function
    tasks = ", ".join(dict.fromkeys(row.name for row in rows_of(pipeline)))
    wrap = textwrap.TextWrapper(104, initial_indent=" " * 4, subsequent_indent=" " * 8)
    about = "\n".join(wrap.fill(f"{parameter.name}: {text}") for parameter, text in described)
    call.__doc__ = DOCUMENTATION.format(tasks=tasks, about=about)
    call.__name__, call.__qualname__ = "__call__", f"{pipeline.__qualname__}.__call__"
    call.__module__ = pipeline.__module__
    setattr(pipeline, "__call__", call)  # noqa: B010 - of the class


def _arguments(pipeline: type) -> Iterator[tuple[inspect.Parameter, str]]:
    """Yield the parameters of a pipeline's call, and what they mean."""
    hints = {each.name: each.type for each in fields(Options)}
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    texts = str | Sequence[str] | Sequence[Sequence[str]] | None
    yield _parameter("prompt", texts, None, positional), PROMPT
    for name, own in accepted(pipeline).items():
        if own not in OPTIONS or name == "prompt":
            continue
        kind: Any = hints[own]
        if (files := INPUTS.get(own)) is not None:
            kind = KINDS[files.kind]
            kind = Sequence[kind] if files.most > 1 else kind
        if own in INPUTS or own in TEXTS:
            kind = kind | Sequence[kind]  # one for each video
        kind = kind if "None" in str(kind) else kind | None
        yield _parameter(name, kind, None), OPTIONS[own].help if name == own else f"{own}, in diffusers"
    for name, parameter in inspect.signature(getattr(pipeline, "parts")).parameters.items():  # noqa: B009 - as above
        if name not in {*OPTIONS, *SHAPE, *INTERNAL, *COMMON, "self"}:
            yield parameter, "as in diffusers"
    for name in embedding_names(pipeline):
        yield _parameter(name, Tensor | None, None), "what encode_prompt returns, in place of a prompt"
    for each in fields(CallArguments):
        yield _parameter(each.name, each.type, each.default), each.metadata["about"]


def _parameter(
    name: str, kind: object, default: object, how: Any = inspect.Parameter.KEYWORD_ONLY
) -> inspect.Parameter:
    return inspect.Parameter(name, how, default=default, annotation=kind)
