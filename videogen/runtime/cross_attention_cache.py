"""Cross-attention KV cache: text and image projections are the same in every step, so compute them once.

Bit-exact. The pipelines pass the same text and image tensors in every step; hooks on the embedders and on the
block stack return the results of the first one. Keys and values are computed before the blocks run, so blocks
may be compiled; they may not be streamed, because their weights are then not on the device.
"""

from functools import partial

from diffusers.hooks.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

from videogen.models.fifo_cache import FifoCache
from videogen.models.interface import ContextBlocks, Network, Pipeline

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

    def pre_forward(
        self,
        blocks: ContextBlocks,
        hidden_states: Tensor,
        text: Tensor,
        temb: Tensor,
        rotary_emb: Tensor,
        image: Tensor | None = None,
        *others: object,
    ) -> tuple[tuple, dict]:
        keys, seen = self.cache.get_or_compute_for(text, partial(blocks.text_keys_values, text)), None
        if image is not None:
            seen = self.cache.get_or_compute_for(image, partial(blocks.image_keys_values, image))
        return (hidden_states, keys, temb, rotary_emb, seen, *others), {}


class CrossAttentionCache:
    """Cross-attention KV cache of one transformer; call ``clear`` whenever weights change."""

    def __init__(self, transformer: Network) -> None:
        self.hooks = [_Blocks()]
        HookRegistry.check_if_exists_or_initialize(transformer.blocks).register_hook(self.hooks[0], HOOK)
        for embedder in transformer.context_embedders():
            self.hooks.append(_Embedder())
            HookRegistry.check_if_exists_or_initialize(embedder).register_hook(self.hooks[-1], HOOK)

    def clear(self) -> None:
        """Drop everything that is cached."""
        for hook in self.hooks:
            hook.cache.clear()


def cache_cross_attention(pipeline: Pipeline) -> None:
    """Cache keys and values in every transformer where they are the same in every step."""
    pipeline.context_caches = [
        CrossAttentionCache(transformer)
        for transformer in pipeline.transformers
        if transformer.context_embedders()
    ]
