"""Protocols between pipelines and the runtime options applied to them.

Pipelines never import ``runtime`` and ``runtime`` never imports pipelines: both use these protocols.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import nn


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
    always_tiled: ClassVar[bool]
    attention_backend: str
    component_offload: OffloadedComponents | None
    context_caches: Sequence[ContextCache]
    step_cache: StepCache | None
    evaluate: Callable[..., Any]
    sync_scalar: Callable[[float], float]

    @property
    def transformers(self) -> list[Any]:
        """Denoising networks: one, or two experts."""

    @property
    def transformer(self) -> Any:
        """First of the denoising networks."""

    @property
    def vae(self) -> Any:
        """VAE."""

    @property
    def components(self) -> Mapping[str, nn.Module | Any]:
        """All components by name."""
