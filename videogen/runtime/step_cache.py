"""diffusers' step caches, applied to the transformers of a built pipeline.

FirstBlockCache computes the first block and skips the others if its residual hardly changed. MagCache skips
all blocks while ratios, measured once, predict a small error. TaylorSeer extrapolates the outputs of layers
(lite mode: of the transformer). Every transformer and guidance branch has its own state, which is reset for
every denoising loop.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias

import torch
from diffusers.hooks import FirstBlockCacheConfig, MagCacheConfig, TaylorSeerCacheConfig
from diffusers.hooks.hooks import HookRegistry, ModelHook, StateManager
from diffusers.hooks.mag_cache import _MAG_CACHE_LEADER_BLOCK_HOOK, nearest_interp
from torch import nn

from videogen.models.interface import Network
from videogen.runtime.memory import blocks
from videogen.tasks.step_caches import KINDS, Ratios

HOOK = "videogen_counter"
ENDLESS = 10**9  # steps; diffusers prints and drops the calibrated ratios after the last step

Config: TypeAlias = FirstBlockCacheConfig | MagCacheConfig | TaylorSeerCacheConfig
CONFIGS: dict[str, Callable[[float, torch.dtype], Config]] = {
    "first_block": lambda threshold, _: FirstBlockCacheConfig(threshold=threshold),
    "magcache": lambda threshold, _: MagCacheConfig(
        threshold=threshold, mag_ratios=[1.0], num_inference_steps=1
    ),
    "taylorseer": lambda interval, dtype: TaylorSeerCacheConfig(
        cache_interval=int(interval), taylor_factors_dtype=dtype
    ),
    "taylorseer_lite": lambda interval, dtype: TaylorSeerCacheConfig(
        cache_interval=int(interval), taylor_factors_dtype=dtype, use_lite_mode=True
    ),
}
"""(threshold or interval, dtype) -> diffusers' config, by name."""


class _Counter(ModelHook):
    """Hook that counts how often a module really runs; registered before a cache, so it lies inside of it."""

    count = 0

    def pre_forward(self, _module: nn.Module, *args: object, **kwargs: object) -> tuple[tuple, dict]:
        self.count += 1
        return args, kwargs


class _Cached:
    """Transformer with a step cache; counts calls and records whether each call ran the blocks."""

    def __init__(
        self, transformer: Network, config: Config, *, in_blocks: bool, on_call: Callable[["_Cached"], None]
    ) -> None:
        self.transformer, self.config, self.calls = transformer, config, 0
        self.counter = _Counter()
        stack = blocks(transformer)
        for block in () if in_blocks else stack:
            _compile_inside(block)
        attention = next(layer for layer in stack[-1].children() if hasattr(layer, "processor"))
        self.counted = attention if in_blocks else stack[-1]
        HookRegistry.check_if_exists_or_initialize(self.counted).register_hook(self.counter, HOOK)
        transformer.enable_cache(config)
        first = HookRegistry.check_if_exists_or_initialize(stack[0])
        leader = first.get_hook(_MAG_CACHE_LEADER_BLOCK_HOOK)
        self.states: StateManager | None = getattr(leader, "state_manager", None)
        self.listener = transformer.register_forward_pre_hook(lambda *_: on_call(self))

    def calibrated(self) -> dict[str, list[float]]:
        """Return the ratios measured since the last reset, by branch; empty unless it calibrates."""
        states = {} if self.states is None else self.states._state_cache
        return {name: list(found) for name, state in states.items() if (found := state.calibration_ratios)}

    def reset(self) -> None:
        """Forget the states of all branches, and free what they hold."""
        self.transformer._reset_stateful_cache()

    def disable(self) -> None:
        """Remove the cache."""
        self.listener.remove()
        self.transformer.disable_cache()
        HookRegistry.check_if_exists_or_initialize(self.counted).remove_hook(HOOK, recurse=False)
        self.transformer._diffusers_hook.invalidate_child_registries_cache()


def _compile_inside(block: nn.Module) -> None:
    """Compile the forward that a step cache wraps, instead of the cache together with it."""
    if block._compiled_call_impl is not None:
        block._compiled_call_impl = None
        processors = (getattr(module, "processor", None) for module in block.modules())
        # The exchange of tokens between ranks cannot be compiled.
        sharded = any(getattr(processor, "exchange", None) is not None for processor in processors)
        block.forward = torch.compile(block.forward, fullgraph=not sharded)


class DiffusersCache:
    """One of diffusers' caches on every transformer of a pipeline.

    Blocks may be streamed, quantized or compiled. ``ratios``: measured by a calibrating MagCache in the first
    loop after its creation.

    Args:
        transformers: networks of the pipeline.
        name: key of KINDS.
        threshold: diffusers' threshold; TaylorSeer: interval of computed steps; None lets MagCache calibrate.
        dtype: dtype of TaylorSeer's cached tensors.
        ratios: ratios for MagCache, from an earlier ``DiffusersCache.ratios``.

    Raises:
        ValueError: another cache is on; MagCache has neither ratios nor is to calibrate.
    """

    recorded_as: ClassVar[str] = "cache"
    needs_pairs = False

    def __init__(
        self,
        transformers: Sequence[Network],
        name: str,
        threshold: float | None,
        *,
        dtype: torch.dtype,
        ratios: Ratios | None = None,
    ) -> None:
        kind = KINDS[name]
        self.known = ratios if kind.calibrated and threshold is not None else None
        if kind.calibrated and threshold is not None and ratios is None:
            raise ValueError(f"{name} needs ratios")
        self.ratios: Ratios | None = None
        self._working: _Cached | None = None
        self._steps = 0
        self._measured: dict[int, dict[str, list[float]]] = {}
        self.cached = []
        for network in transformers:
            if threshold is None:
                config = MagCacheConfig(calibrate=True, num_inference_steps=ENDLESS)
            else:
                config = CONFIGS[name](threshold, dtype)
            self.cached.append(_Cached(network, config, in_blocks=kind.in_blocks, on_call=self._on_call))

    @property
    def computed(self) -> int:
        """Number of forwards since ``reset`` that ran all blocks."""
        return sum(cached.counter.count for cached in self.cached)

    @property
    def skipped(self) -> int:
        """Number of forwards since ``reset`` that skipped some or all blocks."""
        return sum(cached.calls for cached in self.cached) - self.computed

    def reset(self, num_steps: int) -> None:  # noqa: ARG002 - start_loop gives the number of steps
        """Start a new generation."""
        self._forget()
        for cached in self.cached:
            cached.calls = cached.counter.count = 0

    def start_loop(self, num_steps: int, published_steps: int | None = None) -> None:  # noqa: ARG002
        """Start a denoising loop of ``num_steps`` steps."""
        self._forget()
        self._steps = num_steps
        self._measured.clear()

    def end_loop(self) -> None:
        """Free cached tensors; calibrated ratios are kept."""
        self._leave()
        if not self.ratios and self._measured:
            measured = [self._measured.get(index, {}) for index in range(len(self.cached))]
            self.ratios = {"steps": self._steps, "transformers": measured}
        self._forget()

    def disable(self) -> None:
        """Remove the caches."""
        self._forget()
        for cached in self.cached:
            cached.disable()

    def _on_call(self, cached: _Cached) -> None:
        """Handle a switch of experts and pass the branch's ratios to MagCache before a forward."""
        cached.calls += 1
        if cached is not self._working:
            self._leave()
            self._working = cached
        if self.known is None:
            return
        assert cached.states is not None
        branches = self.known["transformers"][self.cached.index(cached)]
        ratios: list[float] = branches.get(cached.states.context.name) or next(iter(branches.values()), [])
        cached.config.mag_ratios = _interpolate_ratios(ratios, self._steps / self.known["steps"])
        cached.config.num_inference_steps = max(1, len(cached.config.mag_ratios))

    def _leave(self) -> None:
        """Drop the cached tensors of an expert, because another one takes over or the loop ends."""
        if self._working is not None:
            index = self.cached.index(self._working)
            if found := self._working.calibrated():
                self._measured[index] = found
            self._working.reset()
        self._working = None

    def _forget(self) -> None:
        self._working = None
        for cached in self.cached:
            cached.reset()


def _interpolate_ratios(ratios: Sequence[float], scale: float) -> list[float]:
    """Interpolate ratios to a loop of another length, as diffusers does."""
    length = round(len(ratios) * scale)
    if length == len(ratios) or not ratios or not length:
        return list(ratios)
    return nearest_interp(torch.tensor(ratios), length).tolist()
