"""diffusers' step caches, applied to the transformers of a built pipeline.

FirstBlockCache computes the first block and skips the others if its residual hardly changed. MagCache skips
all blocks while ratios, measured once, predict a small error. TaylorSeer extrapolates the outputs of layers
(lite mode: of the transformer). Every transformer and guidance branch has its own state, which is reset for
every denoising loop.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from diffusers.hooks import FirstBlockCacheConfig, MagCacheConfig, TaylorSeerCacheConfig
from diffusers.hooks.hooks import HookRegistry, ModelHook, StateManager
from diffusers.hooks.mag_cache import _MAG_CACHE_LEADER_BLOCK_HOOK, nearest_interp
from torch import nn

from videogen.runtime.memory import blocks
from videogen.tasks.step_caches import KINDS, Ratios

HOOK = "videogen_counter"
ENDLESS = 10**9  # steps; diffusers prints and drops the calibrated ratios after the last step
# Layers whose outputs TaylorSeer extrapolates, by stack (its default patterns match nothing in Wan): Wan's
# blocks, then HunyuanVideo's, whose single blocks return the sum of the last line's layers.
EXTRAPOLATED = [
    r"blocks\.\d+\.(attn1|attn2|audio_cross_attn|ffn)",
    r"transformer_blocks\.\d+\.(attn|ff|ff_context)",
    r"single_transformer_blocks\.\d+\.proj_out",
]
LEFT_OUT = [r"single_transformer_blocks\.\d+\.(attn|proj_mlp)"]


class _Counter(ModelHook):
    """Hook that counts how often a module really runs; registered before a cache, so it lies inside of it."""

    count = 0

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        self.count += 1
        return args, kwargs


class _Cached:
    """Transformer with a step cache; counts calls and records whether each call ran the blocks."""

    def __init__(
        self, transformer: Any, config: Any, *, in_blocks: bool, on_call: Callable[["_Cached"], None]
    ) -> None:
        self.transformer, self.config, self.calls = transformer, config, 0
        self.counter = _Counter()
        stack = blocks(transformer)
        for block in () if in_blocks else stack:
            _compile_inside(block)
        last = stack[-1]
        self.counted = next(module for name, module in last.named_children() if "attn" in name)
        self.counted = self.counted if in_blocks else last
        HookRegistry.check_if_exists_or_initialize(self.counted).register_hook(self.counter, HOOK)
        transformer.enable_cache(config)
        first = HookRegistry.check_if_exists_or_initialize(stack[0])
        leader = first.get_hook(_MAG_CACHE_LEADER_BLOCK_HOOK)
        self.states: StateManager | None = getattr(leader, "state_manager", None)
        self.listener = transformer.register_forward_pre_hook(lambda *_: on_call(self))

    @property
    def branch(self) -> str:
        """Guidance branch that is being computed."""
        assert self.states is not None
        return self.states.context.name

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
    """One of diffusers' caches on every transformer of a pipeline; created by ``enable_cache``.

    ``ratios``: measured by a calibrating MagCache in the first loop after its creation.
    """

    recorded_as: ClassVar[str] = "cache"
    needs_pairs = False

    def __init__(
        self,
        transformers: Sequence[Any],
        make: Callable[[], Any],
        *,
        in_blocks: bool = False,
        known: Ratios | None = None,
    ) -> None:
        self.known = known
        self.ratios: Ratios = {}
        self._working: _Cached | None = None
        self._steps = 0
        self._measured: dict[int, dict[str, list[float]]] = {}
        self.cached = [
            _Cached(transformer, make(), in_blocks=in_blocks, on_call=self._on_call)
            for transformer in transformers
        ]

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
        branches = self.known["transformers"][self.cached.index(cached)]
        ratios: list[float] = branches.get(cached.branch) or next(iter(branches.values()), [])
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


def enable_cache(
    transformers: Sequence[Any],
    name: str,
    threshold: float | None,
    *,
    dtype: torch.dtype,
    ratios: Ratios | None = None,
) -> DiffusersCache:
    """Install a step cache on transformers; their blocks may be streamed, quantized or compiled.

    Args:
        transformers: networks of the pipeline.
        name: key of KINDS.
        threshold: diffusers' threshold; TaylorSeer: interval of computed steps; None lets MagCache calibrate.
        dtype: dtype of TaylorSeer's cached tensors.
        ratios: ratios for MagCache, from an earlier ``DiffusersCache.ratios``.

    Raises:
        ValueError: another cache is on; MagCache has neither ratios nor is to calibrate.
    """
    kind, measured = KINDS[name], threshold is not None
    if kind.calibrated and measured and ratios is None:
        raise ValueError(f"{name} needs ratios")
    return DiffusersCache(
        transformers,
        lambda: CONFIGS[name](threshold, dtype),
        in_blocks=kind.in_blocks,
        known=ratios if kind.calibrated and measured else None,
    )


def _first_block(threshold: float | None, _: torch.dtype) -> Any:
    assert threshold is not None
    return FirstBlockCacheConfig(threshold=threshold)


def _magcache(threshold: float | None, _: torch.dtype) -> Any:
    if threshold is None:
        return MagCacheConfig(calibrate=True, num_inference_steps=ENDLESS)
    return MagCacheConfig(threshold=threshold, mag_ratios=[1.0], num_inference_steps=1)


def _taylorseer(interval: float | None, dtype: torch.dtype) -> Any:
    assert interval is not None
    return TaylorSeerCacheConfig(
        cache_interval=int(interval),
        taylor_factors_dtype=dtype,
        cache_identifiers=EXTRAPOLATED,
        skip_predict_identifiers=LEFT_OUT,
    )


def _taylorseer_lite(interval: float | None, dtype: torch.dtype) -> Any:
    assert interval is not None
    return TaylorSeerCacheConfig(cache_interval=int(interval), taylor_factors_dtype=dtype, use_lite_mode=True)


CONFIGS: dict[str, Callable[[float | None, torch.dtype], Any]] = {
    "first_block": _first_block,
    "magcache": _magcache,
    "taylorseer": _taylorseer,
    "taylorseer_lite": _taylorseer_lite,
}
"""(threshold, dtype) -> diffusers' config, by name."""
