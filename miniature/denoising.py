"""What the trainings of both networks share: examples of noisy latents with captions, and their loss.

Shapes: B videos, C latent channels, F latent frames, h/w latent height/width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from miniature.training import fast_products
from videogen.diffusion.conditioning import Segment, pack
from videogen.models.attention import Spans
from videogen.models.wan.attention import WanAttnProcessor
from videogen.models.wan.text import TEXT_ROWS
from videogen.models.wan.transformer import WanDiT

ROWS = 40  # tokens of the longest caption
UNKNOWN = 0.05  # of captions: a word that means nothing is put in
SHAPE = 4.0  # what the shape weighs besides all pixels: it covers little, and is what a caption is about
SHIFT = 3.0  # of the noise levels towards 1


@dataclass(frozen=True, slots=True)
class Example:
    """Segments of a batch, of which the first is the video; captions.

    Args:
        velocity: what is to be predicted of the video [B, C, F, h, w].
        weight: of its pixels [B, 1, F, h, w]; 0 in frames without noise.
        image: features [B, I, image_dim]; ``audio``: windows [B, frames, window, layers, channels].
    """

    segments: list[Segment]
    velocity: Tensor
    weight: Tensor
    captions: list[str]
    image: Tensor | None = None
    audio: Tensor | None = None


def levels(rng: np.random.Generator, *shape: int) -> Tensor:
    """Draw noise levels 0..1."""
    uniform = torch.from_numpy(rng.uniform(size=shape)).float()
    return SHIFT * uniform / (1 + (SHIFT - 1) * uniform)


def add_noise(clean: Tensor, level: Tensor, extra: Tensor | None = None) -> tuple[Segment, Tensor]:
    """Return noisy latents with their levels, and the velocity that is to be predicted.

    Args:
        clean: [B, C, F, h, w].
        level: 0..1 [B, F], or [B, 1] of all frames.
        extra: channels beside the latents [B, E, F, h, w].
    """
    velocity = torch.randn(clean.shape) - clean
    noisy = clean + level[:, None, :, None, None] * velocity
    return Segment(latents=noisy, timestep=1000 * level, extra=extra), velocity


def draw_caption(rng: np.random.Generator, texts: Sequence[str]) -> str:
    """Draw one of a clip's captions, now and then with a word that means nothing."""
    words = str(rng.choice(texts)).split()
    if rng.uniform() < UNKNOWN:
        words.insert(rng.integers(len(words) + 1), "unknown")
    return " ".join(words)


def prepare(dit: WanDiT) -> None:
    """Make a network faster for the training: shared padding, compiled blocks."""
    for block in dit.blocks:
        block.attn2.processor = SharedPadding()
        block.compile(dynamic=True)


class SharedPadding(WanAttnProcessor):
    """Attention to text whose last row stands for all rows of padding.

    The pipeline's texts have 512 rows, almost all of them padding, and all are attended to. Equal rows weigh
    as much as one whose score is higher by the logarithm of their number: exact, and far less to compute.
    """

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, sharded: bool = False, spans: Spans | None = None
    ) -> Tensor:
        """Attend from [B, L, N, K] to [B, T, N, K], whose last is padding; returns [B, L, D]."""
        assert not sharded and spans is None
        bias = torch.zeros(key.shape[1], dtype=query.dtype)
        bias[-1] = math.log(TEXT_ROWS - ROWS)
        heads = (x.transpose(1, 2) for x in (query, key, value))
        out = functional.scaled_dot_product_attention(*heads, attn_mask=bias.expand(query.shape[1], -1))
        return out.transpose(1, 2).flatten(2)


def encode_text(tokenizer: PreTrainedTokenizerFast, encoder: UMT5EncoderModel, captions: list[str]) -> Tensor:
    """Encode captions to [B, ROWS + 1, D], zeros after their end; see ``videogen.models.wan.text``."""
    tokens = tokenizer(
        captions, padding="max_length", max_length=ROWS + 1, truncation=True, return_tensors="pt"
    )
    hidden = encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    return hidden * tokens.attention_mask[..., None]


def loss_of(
    dit: WanDiT, encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerFast, example: Example
) -> Tensor:
    """Return the squared error of the velocity, over the frames that have noise."""
    packed = pack(example.segments)
    text = encode_text(tokenizer, encoder, example.captions)
    with fast_products(), sdpa_kernel(SDPBackend.MATH):  # others have slow gradients
        predicted = dit(
            packed.latents,
            packed.timestep,
            text,
            example.image,
            example.audio,
            frame_positions=packed.positions,
        ).sample
    frames = example.velocity.shape[2]
    error = (predicted[:, :, :frames].float() - example.velocity).square().mean(dim=1, keepdim=True)
    return (error * example.weight).sum() / example.weight.sum()
