"""Protocols between networks, pipelines and the runtime options applied to them.

Pipelines never import ``runtime`` and ``runtime`` never imports pipelines: both use these protocols. A
network states with the attributes of ``Network`` what runtime options must know: ``runtime`` knows no family.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from diffusers.hooks import TaylorSeerCacheConfig
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class TokenAxis(NamedTuple):
    """Axis of a tensor with the tokens of a section: those of one frame, or of all frames in order."""

    axis: int
    section: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenPlan:
    """Where the tokens of a network are sharded over ranks, by names of its modules.

    Args:
        positions: module whose output is sharded.
        inputs: module -> its positional arguments that are sharded.
        head: module whose output is gathered.
        frame_size: positional argument of the blocks that is the number of tokens per frame.
    """

    positions: tuple[str, TokenAxis]
    inputs: tuple[str, Mapping[int, TokenAxis]]
    head: tuple[str, TokenAxis]
    frame_size: int | None = None


class Network(ModelMixin, CacheMixin):
    """Denoising network, with the facts about it that runtime options depend on.

    Its blocks are its children of type ``ModuleList``, in order.
    """

    token_plan: ClassVar[TokenPlan]
    extrapolated_layers: ClassVar[list[str]]
    """Patterns of the layers whose outputs TaylorSeer extrapolates."""
    skipped_layers: ClassVar[list[str]] = []
    """Patterns of the layers that are not needed where others are extrapolated."""

    def enable_cache(self, config: object) -> None:
        """Enable a cache of diffusers; TaylorSeer gets this network's layers unless it names others."""
        if isinstance(config, TaylorSeerCacheConfig) and not (
            config.cache_identifiers or config.use_lite_mode
        ):
            skipped = config.skip_predict_identifiers or self.skipped_layers
            config = replace(
                config, cache_identifiers=self.extrapolated_layers, skip_predict_identifiers=skipped
            )
        super().enable_cache(config)

    def token_sections(self, inputs: Mapping[str, Tensor]) -> Sequence[tuple[int, int]]:
        """Return the sections of the token sequence of a forward: (frames, tokens per frame) each.

        ``inputs``: the keyword arguments of ``forward``.
        """
        raise NotImplementedError

    def context_embedders(self) -> list[nn.Module]:
        """Return the embedders of text and image, if what blocks make of these is the same in every step.

        Then ``blocks`` is a module that runs all blocks, and ``ContextBlocks``.
        """
        return []


class ContextBlocks(Protocol):
    """Stack of blocks that takes text and image also as keys and values, per block."""

    def text_keys_values(self, text: Tensor) -> list:
        """Return every block's keys and values of embedded text [B, T, D]."""

    def image_keys_values(self, image: Tensor) -> list:
        """Return every block's keys and values of image tokens [B, I, D]."""


class StepCache(Protocol):
    """Cache that skips forwards or parts of them, like ``TeaCache``."""

    recorded_as: ClassVar[str]

    @property
    def computed(self) -> int:
        """Number of forwards since ``reset`` that ran all blocks."""

    @property
    def skipped(self) -> int:
        """Number of forwards since ``reset`` that skipped blocks."""

    @property
    def needs_pairs(self) -> bool:
        """Return whether every step must make two calls."""

    def reset(self, num_steps: int) -> None:
        """Start a generation."""

    def start_loop(self, num_steps: int, published_steps: int | None = None) -> None:
        """Start a denoising loop."""

    def end_loop(self) -> None:
        """End a denoising loop and free its cached tensors."""

    def disable(self) -> None:
        """Remove the cache from its transformers."""


class ContextCache(Protocol):
    """Cross-attention keys and values cached while denoising."""

    def clear(self) -> None:
        """Remove all entries."""


class OffloadedComponents(Protocol):
    """Components that are on the device only while they run."""

    def place_residents(self, device: torch.device | None = None) -> None:
        """Move the resident components to a device; None is the one they run on."""

    def evict_all(self) -> None:
        """Evict all transient components."""


class Pipeline(Protocol):
    """Attributes of a built pipeline that runtime options read or set."""

    model_cpu_offload_seq: str
    cpu_encoders: ClassVar[Sequence[str]]
    always_tiled: ClassVar[bool]
    attention_backend: str
    component_offload: OffloadedComponents | None
    context_caches: Sequence[ContextCache]
    step_cache: StepCache | None
    evaluate: Callable[[Sequence[str], Callable[[str], Tensor]], Sequence[Tensor]]
    sync_scalar: Callable[[float], float]

    @property
    def transformers(self) -> Sequence[Network]:
        """Denoising networks: one, or two experts."""

    @property
    def transformer(self) -> Network:
        """First of the denoising networks."""

    @property
    def vae(self) -> Any:
        """VAE."""

    def encoder_names(self) -> Sequence[str]:
        """Return the names of the components that run before the transformers, in order of use."""

    @property
    def components(self) -> Mapping[str, nn.Module | Any]:
        """Return all components by name."""
