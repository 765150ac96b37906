"""What a transformer makes of text and image in every step alike, made once per prompt. Exact.

Applied from outside to a built transformer: its embedders and its stack of blocks are asked with the same
tensors in every step (the pipelines keep them), and answer with what they made the first time. The keys and
values of cross-attention are made before the blocks run, so blocks may be compiled; they may not be streamed,
because then their weights are elsewhere.
"""

from typing import TYPE_CHECKING, Any

from diffusers.hooks.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

from videogen.models.lru import Recent
from videogen.models.wan.transformer import WanDiT

if TYPE_CHECKING:
    from videogen.pipelines.base import VideoPipeline

HOOK = "videogen_remember"
CONTEXTS = 2  # distinct texts of the guidance branches, and as many images


class _Embedder(ModelHook):
    """The embedder of text or image."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = Recent(CONTEXTS)

    def new_forward(self, _module: nn.Module, states: Tensor) -> Tensor:
        return self.kept.of(states, lambda: self.fn_ref.original_forward(states))


class _Blocks(ModelHook):
    """The stack of blocks: each is given keys and values instead of the text [B, T, D] and the image."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = Recent(2 * CONTEXTS)

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
        keys = self.kept.of(text, lambda: [block.attn2.keys_values(text) for block in blocks])
        more: Any = image
        if image is not None:
            more = self.kept.of(image, lambda: [block.attn2.image_keys_values(image) for block in blocks])
        return self.fn_ref.original_forward(hidden_states, keys, temb, rotary_emb, more, *others)


class Memory:
    """What one transformer remembers. Nothing may outlive a change of its weights: then ``forget``."""

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

    def forget(self) -> None:
        """Give the memory back."""
        for hook in self.hooks:
            hook.kept.clear()

    def remove(self) -> None:
        """Leave the transformer without it; what was put before the blocks later must be gone already."""
        self.forget()
        for module in self.modules:
            HookRegistry.check_if_exists_or_initialize(module).remove_hook(HOOK, recurse=False)


def remember_contexts(pipeline: "VideoPipeline") -> None:
    """Let the transformers of the Wan family remember (HunyuanVideo's text changes with every block)."""
    pipeline.memories = [
        Memory(transformer) for transformer in pipeline.transformers if isinstance(transformer, WanDiT)
    ]
