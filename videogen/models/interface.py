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
    def computed(self) -> int: ...

    @property
    def skipped(self) -> int: ...

    @property
    def needs_pairs(self) -> bool: ...

    def reset(self, num_steps: int) -> None: ...

    def start_loop(self, num_steps: int, published_steps: int | None = None) -> None: ...

    def end_loop(self) -> None: ...

    def disable(self) -> None: ...


class ContextCache(Protocol):
    """Cross-attention keys and values cached while denoising."""

    def clear(self) -> None: ...


class OffloadedComponents(Protocol):
    """Components that are on the device only while they run."""

    def place_residents(self, device: torch.device | None = None) -> None: ...

    def evict_all(self) -> None: ...


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
    def transformers(self) -> list[Any]: ...

    @property
    def transformer(self) -> Any: ...

    @property
    def vae(self) -> Any: ...

    @property
    def components(self) -> Mapping[str, nn.Module | Any]: ...
