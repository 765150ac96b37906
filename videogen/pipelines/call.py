"""One call of a pipeline: what callbacks read and set while it runs, and how lists become several videos."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from threading import Thread, current_thread
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from videogen.diffusion.guidance import Guidance
from videogen.errors import CallError, nearest
from videogen.tasks.options import Scale

EMBEDDINGS = {"prompt_embeds": "cond", "negative_prompt_embeds": "uncond"}
"""Tensors of a callback besides the latents -> the branch whose text they are."""
TEXTS = ("prompt", "negative_prompt")
OUTPUT_TYPES = ("np", "pt", "pil", "uint8", "latent")
T = TypeVar("T")


@dataclass(eq=False)
class RunState:
    """What one video's run is doing; callbacks read and change it through the pipeline's properties.

    Args:
        guidance_scale: of the text; a callback may set another for the steps that follow.
        noise: initial latents in place of the first draw.
        max_sequence_length: rows of an encoded prompt.
        attention_kwargs: handed to the transformer.
        tensor_inputs: names of the tensors that the callback gets.
    """

    guidance_scale: float | None = None
    noise: Tensor | None = None
    max_sequence_length: int | None = None
    attention_kwargs: Mapping[str, object] | None = None
    tensor_inputs: Sequence[str] = ("latents",)
    num_timesteps: int | None = None
    current_timestep: Tensor | None = None
    running: bool = False
    _scale_at_start: float | None = None
    _texts: dict[str, Tensor] = field(init=False, default_factory=dict)
    _replaced: dict[int, tuple[Tensor, Tensor]] = field(init=False, default_factory=dict)

    def start(self, guidance_scale: Scale) -> None:
        """Begin with a guidance scale; of two experts' scales it is that for high noise, as in diffusers."""
        self.guidance_scale = guidance_scale[1] if isinstance(guidance_scale, tuple) else guidance_scale
        self._scale_at_start, self.running = self.guidance_scale, True

    def ended(self) -> "RunState":
        """Return what may still be read of it after the run."""
        return RunState(
            self.guidance_scale,
            attention_kwargs=self.attention_kwargs,
            num_timesteps=self.num_timesteps,
            _scale_at_start=self.guidance_scale,
        )

    def take_noise(self, shape: Sequence[int]) -> Tensor | None:
        """Return the initial latents, the first time that noise is drawn.

        Raises:
            CallError: they have another shape.
        """
        noise, self.noise = self.noise, None
        if noise is not None and noise.shape != torch.Size(shape):
            raise CallError("latents=", list(noise.shape), f"must be {list(shape)}", "or leave them out")
        return noise

    def adjusted(self, guidance: Guidance) -> Guidance:
        """Return the guidance with the scale that a callback has set, if it has.

        Raises:
            CallError: guidance is switched on, and the call started without.
        """
        scale = self.guidance_scale
        if scale is None or scale == self._scale_at_start:
            return guidance
        changed = guidance.rescaled(scale)
        if missing := set(changed.branches) - set(guidance.branches):
            what = f"the call started without guidance, so it has no {', '.join(sorted(missing))} branch"
            raise CallError("guidance_scale", scale, what, "start with a scale above 1")
        return changed

    def text(self, branch: str, given: Tensor) -> Tensor:
        """Return the text of a branch: what the run was given, or what a callback has put in its place."""
        self._texts[branch] = given
        _, current = self._replaced.get(id(given), (given, given))
        return current

    def tensors(self, latents: Tensor) -> dict[str, Tensor | None]:
        """Return the tensors that the callback asked for."""
        have: dict[str, Tensor | None] = {"latents": latents}
        for name, branch in EMBEDDINGS.items():
            have[name] = self.text(branch, self._texts[branch]) if branch in self._texts else None
        return {name: have[name] for name in self.tensor_inputs}

    def replace_texts(self, given: Mapping[str, Tensor | None]) -> None:
        """Use the texts that a callback returned from now on."""
        for name, branch in EMBEDDINGS.items():
            text, before = given.get(name), self._texts.get(branch)
            if text is not None and before is not None and text is not self.text(branch, before):
                self._replaced[id(before)] = (before, text)  # the key is kept alive


def argument(default: object, about: str) -> Any:
    """Return the field of an argument that all pipelines take."""
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True, kw_only=True)
class CallArguments:
    """What every pipeline's call takes besides the prompt and the arguments of its task."""

    num_videos_per_prompt: int = argument(1, "videos of each prompt, made one after another")
    generator: torch.Generator | Sequence[torch.Generator] | None = argument(
        None, "source of the random draws, one for all videos or one for each; None draws a seed"
    )
    latents: Tensor | None = argument(None, "initial noise, [videos, C, F, h, w], in place of the first draw")
    output_type: str = argument(
        "np",
        "'np' float [videos, F, H, W, 3] in [0, 1], 'pt' [videos, F, 3, H, W], 'pil' a list of images for "
        "each video, 'uint8' [videos, F, H, W, 3], or 'latent' [videos, C, F, h, w]",
    )
    return_dict: bool = argument(True, "False returns the tuple (frames,)")
    attention_kwargs: dict[str, object] | None = argument(
        None, 'handed to the transformer; {"scale": s} scales loaded LoRA layers'
    )
    callback_on_step_end: Callable[..., Mapping[str, Tensor] | None] | None = argument(
        None,
        "called as (pipeline, index, timestep, tensors) after every step; may return tensors to go on with",
    )
    callback_on_step_end_tensor_inputs: Sequence[str] = argument(
        ("latents",), "tensors that the callback gets; latents, prompt_embeds, negative_prompt_embeds"
    )
    max_sequence_length: int | None = argument(
        None, "rows of an encoded prompt, as published unless given; longer prompts are cut"
    )

    def __post_init__(self) -> None:
        if self.output_type not in OUTPUT_TYPES:
            what = f"must be one of {', '.join(OUTPUT_TYPES)}"
            fix = f"nearest {nearest(str(self.output_type), OUTPUT_TYPES) or 'np'}"
            raise CallError("output_type=", self.output_type, what, fix)
        for name in ("num_videos_per_prompt", "max_sequence_length"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise CallError(f"{name}=", value, "must be a whole number above 0", "nearest 1")
        for generator in self.generators:
            if generator is not None and not isinstance(generator, torch.Generator):
                what = "must be torch.Generators, one for all videos or one for each"
                raise CallError(
                    "generator=", type(generator).__name__, what, "torch.Generator().manual_seed(0)"
                )
        if self.latents is not None and not isinstance(self.latents, Tensor):
            what = "must be a tensor [videos, C, F, h, w]"
            raise CallError("latents=", type(self.latents).__name__, what, "or leave them out")

    @property
    def generators(self) -> Sequence[torch.Generator | None]:
        """Return the generators, listed."""
        return _listed(self.generator)

    def check_tensor_inputs(self, possible: Sequence[str]) -> None:
        """Refuse tensors that no callback gets.

        Raises:
            CallError: there is one.
        """
        if unknown := sorted(set(self.tensor_inputs) - set(possible)):
            what, fix = f"must be among {', '.join(possible)}", f"leave out {', '.join(unknown)}"
            raise CallError("callback_on_step_end_tensor_inputs=", ", ".join(self.tensor_inputs), what, fix)

    @property
    def tensor_inputs(self) -> Sequence[str]:
        """Return the names of the callback's tensors; a PipelineCallback says them itself."""
        return getattr(self.callback_on_step_end, "tensor_inputs", self.callback_on_step_end_tensor_inputs)


COMMON = frozenset(each.name for each in fields(CallArguments))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Arguments of a call that differ from video to video, where they are lists or tensors of several.

    Args:
        listed: name -> one value, or a list with one for each prompt.
        embeddings: name -> encoded prompts [B, ...].
    """

    listed: Mapping[str, object]
    embeddings: Mapping[str, Tensor]
    common: CallArguments

    def videos(self) -> Iterator[tuple[dict[str, Any], RunState]]:
        """Yield arguments and state of each video, in diffusers' order: all of the first prompt come first.

        Raises:
            CallError: lists of different lengths.
        """
        common = self.common
        lists = {name: value for name, value in self.listed.items() if isinstance(value, list)}
        lists |= {name: list(tensor.split(1)) for name, tensor in self.embeddings.items()}
        longest = max(lists, key=lambda name: len(lists[name]), default="prompt")
        count = len(lists.get(longest, [None]))
        total = count * common.num_videos_per_prompt
        values = {
            name: _each(f"{name}=", value, count, f"{longest}= has {count}") for name, value in lists.items()
        }
        videos = f"there are {total} videos"
        generators = _each("generator=", common.generators, total, videos)
        latents: Sequence[Tensor | None] = [None] * total
        if common.latents is not None:
            latents = _each("latents=", common.latents.split(1), total, videos)
        for index in range(total):
            which = index // common.num_videos_per_prompt
            own = {name: each[which] for name, each in values.items()}
            yield (
                {**self.listed, **own, "generator": generators[index]},
                RunState(
                    noise=latents[index],
                    max_sequence_length=common.max_sequence_length,
                    attention_kwargs=common.attention_kwargs,
                    tensor_inputs=common.tensor_inputs,
                ),
            )


def _listed(given: T | Sequence[T]) -> Sequence[T]:
    return list(given) if isinstance(given, list | tuple) else [cast(T, given)]


def _each(flag: str, given: Sequence[T], count: int, why: str) -> Sequence[T]:
    """Return one for each of ``count``: those listed, or the one there is."""
    if len(given) not in (1, count):
        raise CallError(flag, f"({len(given)})", why, f"give one, or {count}")
    return given if len(given) == count else [*given] * count


class RunStates:
    """The state of a pipeline's runs, one for each thread, as diffusers' callbacks and caches read it."""

    @cached_property
    def _states(self) -> WeakKeyDictionary[Thread, RunState]:
        return WeakKeyDictionary()

    def __getstate__(self) -> dict[str, object]:
        """Return what a copy has: all but the states of this one's runs."""
        return {name: value for name, value in vars(self).items() if name != "_states"}

    @property
    def _state(self) -> RunState:
        """Return what this thread's call is doing, or has done."""
        return self._states.setdefault(current_thread(), RunState())

    @property
    def guidance_scale(self) -> float | None:
        """Return the guidance scale of the text; a callback may set ``_guidance_scale`` for later steps."""
        return self._state.guidance_scale

    @property
    def _guidance_scale(self) -> float | None:
        return self._state.guidance_scale

    @_guidance_scale.setter
    def _guidance_scale(self, scale: float) -> None:
        self._state.guidance_scale = scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Return whether the guidance scale is above 1."""
        return (self.guidance_scale or 0) > 1

    @property
    def num_timesteps(self) -> int | None:
        """Return how many steps the denoising loop has."""
        return self._state.num_timesteps

    @property
    def current_timestep(self) -> Tensor | None:
        """Return the timestep of the step that runs; None outside the loop."""
        return self._state.current_timestep

    @property
    def attention_kwargs(self) -> Mapping[str, object] | None:
        """Return what the transformer gets besides its inputs."""
        return self._state.attention_kwargs
