"""A pipeline's call: from diffusers' arguments to the arguments of ``parts``, video by video."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import current_thread
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from videogen.errors import CallError, InputError
from videogen.pipelines.call import COMMON, EMBEDDINGS, TEXTS, Batch, CallArguments, RunState
from videogen.pipelines.components import Components, register
from videogen.pipelines.pixels import Frames, Part, VideoOutput, collect, joined, rounded
from videogen.pipelines.scheduler import PublishedScheduler
from videogen.pipelines.signature import check_texts, describe_call, embedding_names, named, rows_of, usable
from videogen.planning.python_call import ACCEPT, is_several
from videogen.prompts.length import cut_notes
from videogen.tasks.options import OPTIONS, Options, defaults, merge
from videogen.tasks.table import INPUTS
from videogen.tasks.task_spec import TaskSpec, check_prompt_count, check_scales

if TYPE_CHECKING:
    from videogen.pipelines import typed

logger = logging.getLogger(__name__)


class Calls(Components):
    """A pipeline that can be called."""

    embeddings: ClassVar[Sequence[str]] = ("prompt_embeds",)  # what a call may give in place of a prompt
    call_names: ClassVar[Mapping[str, str]] = {}  # diffusers' names -> ours, where ours mean something else
    _callback_tensor_inputs: ClassVar = ["latents", *EMBEDDINGS]
    _interrupt = False

    parts: Callable[..., Iterator[Part]]
    """The task itself, a method of each pipeline: yields finished parts in order."""

    to_uint8 = staticmethod(rounded)

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if hasattr(cls, "task"):
            describe_call(cls)
            register(cls)

    if TYPE_CHECKING:  # no declaration, because type checkers would prefer it to those of the classes
        __call__ = typed.any_pipeline
    else:

        def __call__(self, *given: object, **arguments: object) -> VideoOutput | tuple[Frames]:
            """Make the videos of a call; ``describe_call`` gives each class one with its own signature."""
            return self._call(*given, **arguments)

    def _call(self, *positional: object, **arguments: object) -> VideoOutput | tuple[Frames]:
        if len(positional) > 1:
            what = "only the prompt is taken by its place"
            raise CallError("arguments", len(positional), what, "name the others, as in image=")
        if positional and "prompt" in arguments:
            raise CallError("prompt=", None, "is given twice", "give one")
        given = named(type(self), {**dict(zip(["prompt"], positional, strict=False)), **arguments})
        common = CallArguments(**{name: given.pop(name) for name in COMMON & given.keys()})
        common.check_tensor_inputs(self._callback_tensor_inputs)
        if not self.transformers:
            raise CallError("transformer", None, "is None", "set pipe.transformer")
        if getattr(self, "vae", None) is None and common.output_type != "latent":
            raise CallError(
                "output_type=", common.output_type, "needs a vae", "set pipe.vae, or take 'latent'"
            )
        self._interrupt, made = False, []
        for own, state in self._batch(given, common).videos():
            made.append(self._make_video(own, state, common))
            if self._interrupt:
                break
        self.maybe_free_model_hooks()
        frames = joined(made)
        return VideoOutput(frames=frames) if common.return_dict else (frames,)

    def _batch(self, given: Mapping[str, Any], common: CallArguments) -> Batch:
        """Return the arguments of a call that differ from video to video."""
        encoded = {name: given[name] for name in embedding_names(type(self)) if name in given}
        check_texts(given, encoded)
        listed = {name: value for name, value in given.items() if name not in encoded}
        for name, value in listed.items():
            several = is_several(INPUTS[name], value) if name in INPUTS else name in TEXTS
            if isinstance(value, list | tuple):
                listed[name] = list(value) if several else tuple(value)
        if isinstance(listed.get("prompt"), list) and self._has_segments(listed, common):
            listed["prompt"] = tuple(listed["prompt"])
        return Batch(listed=listed, embeddings=encoded, common=common)

    def _has_segments(self, listed: Mapping[str, Any], common: CallArguments) -> bool:
        """Return whether a list of prompts is for the segments of one video."""
        others = any(isinstance(value, list) for name, value in listed.items() if name != "prompt")
        nested = any(isinstance(prompt, list | tuple) for prompt in listed["prompt"])
        if others or nested or len(common.generators) > 1:
            return False
        rolls = self.complete({**listed, "prompt": listed["prompt"][0]}).get("rolls")
        return isinstance(rolls, Sequence) and len(rolls) > 1

    def _make_video(self, given: dict[str, Any], state: RunState, common: CallArguments) -> Frames:
        """Make one video of a call."""
        encoded = {name: given.pop(name) for name in embedding_names(type(self)) if name in given}
        complete: dict[str, Any] = self.complete(given) | self.encoded_prompts(encoded)
        state.start(complete["guidance_scale"])
        for note in self._cut_notes(complete):
            logger.warning(note)
        self._states[current_thread()] = state
        try:
            parts = self.parts(**complete, callback_on_step_end=common.callback_on_step_end)
            if common.output_type == "latent":
                return torch.cat([part.latents for part in parts], dim=2)
            chunks = (chunk for part in parts for chunk in part.frames)
            return collect(chunks, common.output_type, self.to_uint8)
        finally:
            self._states[current_thread()] = state.ended()

    def encoded_prompts(self, encoded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return encoded prompts as the arguments of ``parts`` that they stand for."""
        return {name.removesuffix("_embeds"): tensor for name, tensor in encoded.items()}

    def row_for(self, given: Mapping[str, object]) -> TaskSpec:
        """Return the row, of those that the pipeline runs with its weights, whose inputs were given."""
        wide = {model.config.in_channels for model in self.transformers}
        there = {name for name in INPUTS if given.get(name) is not None}
        for row in (self.row, *(row for row in rows_of(type(self)) if row.family == self.row.family)):
            if row.is_made_of(there) and (row is self.row or {row.network.in_channels} == wide):
                return row
        return self.row

    def complete(self, given: Mapping[str, object]) -> dict[str, object]:
        """Return the arguments of ``parts`` with the task's defaults and the size rule filled in."""
        spec = self.row_for(given)
        inputs = {
            name: [ACCEPT[files.kind](name, item) for item in files.listed(given.get(name))]
            for name, files in spec.inputs.items()
        }
        for name, files in spec.inputs.items():
            files.check(f"{name}=", spec.name, len(inputs[name]))
        others = {name: value for name, value in given.items() if name not in OPTIONS}
        for name in given:
            if name in OPTIONS and name not in (taken := usable(spec)):
                what = f"is no argument of {spec.name}; it takes {', '.join(sorted(taken))}"
                raise InputError(f"{name}=", None, what, "leave it out")
        asked = {
            name: value if name == "prompt" else OPTIONS[name].value(value)
            for name, value in given.items()
            if value is not None and name not in (*others, *inputs)
        }
        self._check_schedule(asked)
        usual = {**defaults(), **spec.defaults(self.checkpoint)}
        options = spec.resolve_defaults(Options.of(merge(usual, asked)))
        check_scales(spec, options.guidance_scale)
        shape = spec.shape(options, inputs, spec.size_tables(self.checkpoint))
        if isinstance(prompt := given.get("prompt"), list | tuple):
            check_prompt_count("prompt=", len(prompt), len(shape.rolls))
        return {**others, **spec.pick(options, shape), **spec.inputs_of(inputs)}

    def _check_schedule(self, asked: Mapping[str, object]) -> None:
        """Refuse what chooses a schedule, where a scheduler is set that has its own."""
        if isinstance(self.scheduler, PublishedScheduler):
            return
        for name in ("shift", "sample_solver"):
            if name in asked:
                what = f"{type(self.scheduler).__name__} is set as scheduler and has its own"
                raise InputError(f"{name}=", asked[name], what, "leave it out, or set pipe.scheduler = None")

    def _cut_notes(self, given: Mapping[str, object]) -> Iterator[str]:
        """Yield a line for every prompt of the caller of which an encoder sees only the beginning."""
        texts: dict[str, str] = {}
        published = self.row.defaults(self.checkpoint)
        for name in ("prompt", "negative_prompt", "connection_prompt"):
            value = given.get(name) if given.get(name) != published.get(name) else None
            if isinstance(value, str):
                texts[f"{name}="] = value
            elif isinstance(value, list | tuple):
                listed = {f"{name}[{index}]=": text for index, text in enumerate(value)}
                texts |= {place: text for place, text in listed.items() if isinstance(text, str)}
        if self.checkpoint is not None:
            yield from cut_notes(self.row.text, self.checkpoint, texts)
