"""Cross-attention KV cache: text and image projections are the same in every step, so compute them once.

Bit-exact. The pipelines pass the same text and image tensors in every step; hooks on the embedders and on the
block stack return the results of the first one. Keys and values are computed before the blocks run, so blocks
may be compiled; they may not be streamed, because their weights are then not on the device.
"""

from typing import Any

from diffusers.hooks.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

from videogen.models.fifo_cache import FifoCache
from videogen.models.interface import Pipeline
from videogen.models.wan.transformer import WanDiT

HOOK = "videogen_cross_attention_cache"
CONTEXTS = 2  # distinct texts of the guidance branches, and as many images


class _Embedder(ModelHook):
    """Hook of the text or image embedder that caches its output."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = FifoCache(CONTEXTS)

    def new_forward(self, _module: nn.Module, states: Tensor) -> Tensor:
        return self.cache.get_or_compute_for(states, lambda: self.fn_ref.original_forward(states))


class _Blocks(ModelHook):
    """Hook of the block stack; passes cached keys and values instead of text [B, T, D] and image tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = FifoCache(2 * CONTEXTS)

    def new_forward(
        self,
        blocks: Any,
        hidden_states: Tensor,
        text: Tensor,
        temb: Tensor,
        rotary_emb: Tensor,
        image: Tensor | None = None,
        *others: Any,
    ) -> Tensor:
        keys = self.cache.get_or_compute_for(
            text, lambda: [block.attn2.keys_values(text) for block in blocks]
        )
        more: Any = image
        if image is not None:
            more = self.cache.get_or_compute_for(
                image, lambda: [block.attn2.image_keys_values(image) for block in blocks]
            )
        return self.fn_ref.original_forward(hidden_states, keys, temb, rotary_emb, more, *others)


class CrossAttentionCache:
    """Cross-attention KV cache of one transformer; call ``clear`` whenever weights change."""

    def __init__(self, transformer: WanDiT) -> None:
        embedder = transformer.condition_embedder
        places: list[tuple[nn.Module, Any]] = [
            (transformer.blocks, _Blocks()),
            (embedder.text_embedder, _Embedder()),
        ]
        if hasattr(embedder, "image_embedder"):
            places.append((embedder.image_embedder, _Embedder()))
        for module, hook in places:
            HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, HOOK)
        self.modules, self.hooks = [module for module, _ in places], [hook for _, hook in places]

    def clear(self) -> None:
        """Drop everything that is cached."""
        for hook in self.hooks:
            hook.cache.clear()

    def remove(self) -> None:
        """Remove the cache; hooks registered on the blocks after it must be removed first."""
        self.clear()
        for module in self.modules:
            HookRegistry.check_if_exists_or_initialize(module).remove_hook(HOOK, recurse=False)


def cache_cross_attention(pipeline: Pipeline) -> None:
    """Cache keys and values in every transformer of the Wan family; HunyuanVideo's text changes per block."""
    pipeline.context_caches = [
        CrossAttentionCache(transformer)
        for transformer in pipeline.transformers
        if isinstance(transformer, WanDiT)
    ]
