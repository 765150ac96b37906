"""What a pipeline's call takes: its signature and docstring, made from the rows of its tasks."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from videogen.errors import CallError, nearest
from videogen.pipelines.call import COMMON, TEXTS, CallArguments
from videogen.pipelines.pixels import VideoOutput
from videogen.tasks.options import OPTIONS, Options, Size
from videogen.tasks.table import ROWS
from videogen.tasks.task_spec import TaskSpec

KINDS: dict[str, object] = {
    "image": Image.Image,
    "video": str | np.ndarray | list[Image.Image],
    "audio": str,
}
SHAPE = (
    "rolls",
    "latent_frames",
    "clip_frames",
)  # arguments of ``parts`` that follow from the size and length
INTERNAL = ("first", "state")  # arguments of ``parts`` for resuming
PROMPT = "what the video shows; a list makes a video of each, or gives each segment of a long video its own"


@cache
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


@cache
def accepted(pipeline: type) -> Mapping[str, str]:
    """Return every name that a call takes, diffusers' among them, and which of our arguments it is."""
    options = dict.fromkeys(name for row in rows_of(pipeline) for name in OPTIONS if name in usable(row))
    own = inspect.signature(getattr(pipeline, "parts")).parameters  # noqa: B009 - of each pipeline
    common = [each.name for each in fields(CallArguments)]
    names = {name: name for name in (*options, *common, *embedding_names(pipeline), "prompt", *own)}
    return names | {also: name for name in options for also in OPTIONS[name].call_names}


def named(pipeline: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments under our names; None counts as not given.

    Raises:
        CallError: a name that no pipeline has, or two for one argument.
    """
    names, renamed = accepted(pipeline), dict[str, Any]()
    for name, value in given.items():
        if value is None:
            continue
        if name not in names and name not in OPTIONS:
            close = nearest(name, names)
            what = f"is no argument of {pipeline.__name__}"
            raise CallError(f"{name}=", None, what, f"nearest {close}=" if close else "leave it out")
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
    """Give a pipeline class a ``__call__`` with the named, typed arguments of its tasks, and what they mean."""
    inherited: Callable[..., VideoOutput] = pipeline.__call__

    def call(self: object, *given: Any, **arguments: Any) -> Any:
        return inherited(self, *given, **arguments)

    hints = {each.name: each.type for each in fields(Options)}
    inputs = {name: files for row in rows_of(pipeline) for name, files in row.inputs.items()}
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        inspect.Parameter(
            "prompt", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=str | list[str] | None
        ),
    ]
    about = {"prompt": PROMPT}
    for name, own in accepted(pipeline).items():
        if name in ("self", "prompt") or own not in OPTIONS:
            continue
        kind = list[KINDS[inputs[own].kind]] if own in inputs and inputs[own].most > 1 else None  # type: ignore[misc]
        kind = kind or (KINDS[inputs[own].kind] if own in inputs else hints[own])
        kind = kind if "None" in str(kind) else kind | None  # type: ignore[operator] - a type
        parameters.append(inspect.Parameter(name, keyword, default=None, annotation=kind))
        about[name] = OPTIONS[own].help if name == own else f"diffusers' name of {own}"
    for name, own in inspect.signature(getattr(pipeline, "parts")).parameters.items():  # noqa: B009 - as above
        if name not in {*about, *OPTIONS, *SHAPE, *INTERNAL, *COMMON, "self"}:
            parameters.append(own)
            about[name] = f"as in diffusers, {own.default!s:.40}... unless given"
    for name in embedding_names(pipeline):
        parameters.append(inspect.Parameter(name, keyword, default=None, annotation=Tensor | None))
        about[name] = "the prompt as it was encoded, in place of it, [prompts, ...]"
    for each in fields(CallArguments):
        parameters.append(inspect.Parameter(each.name, keyword, default=each.default, annotation=each.type))
        about[each.name] = each.metadata["about"]
    call.__signature__ = inspect.Signature(parameters, return_annotation=VideoOutput | tuple)  # type: ignore[attr-defined]
    lines = [f"    {name}: {text}" for name, text in about.items()]
    call.__doc__ = "\n".join(
        (
            f"{_sentence(rows_of(pipeline))}",
            "",
            "What is left out, or None, is as published for the model.",
            "",
            "Args:",
            *lines,
            "",
            "Returns:",
            "    VideoOutput: ``frames``, one video after another, in the form that ``output_type`` names.",
            "",
            "Raises:",
            "    CallError: an argument that cannot be used; the message says what is allowed and the nearest fix.",
        )
    )
    call.__name__, call.__qualname__ = "__call__", f"{pipeline.__qualname__}.__call__"
    call.__module__ = pipeline.__module__
    setattr(pipeline, "__call__", call)  # noqa: B010 - of the class


def _sentence(rows: Sequence[TaskSpec]) -> str:
    return f"Make videos: {', '.join(dict.fromkeys(row.name for row in rows))}."
