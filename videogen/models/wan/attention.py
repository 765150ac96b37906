"""Attention of the Wan transformer: self, text and image, audio, and the assignment of speakers.

Shape letters are those of transformer.py. Source: specs skyreels_v3 section 6, talking_avatar section 6.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers.models.attention import AttentionModuleMixin
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from videogen.models.attention import AttentionProcessor, Spans
from videogen.models.kernels import operators
from videogen.models.kernels.operators import apply_rotary
from videogen.models.wan.embedders import ROPE_THETA

KeysValues = tuple[Tensor, Tensor]
"""Keys and values [B, T, N, K] of what is attended to."""


class Speech(NamedTuple):
    """What is said: audio tokens [B, F, A, audio_dim], and for two speakers where they are.

    ``regions`` [3, S] are ones and zeros per token of the first frame: the two speakers, and the rest. Then
    the first half of the audio tokens belongs to the first speaker.
    """

    tokens: Tensor
    regions: Tensor | None = None


def causal_spans(visible_frames: Sequence[int] | Tensor, tokens: int) -> Spans:
    """Return runs of frames that see the same frames, in tokens (``tokens`` per frame).

    Numbers, unlike a tensor, do not break a compiled graph.
    """
    spans: Spans = []
    listed = visible_frames.tolist() if isinstance(visible_frames, Tensor) else visible_frames
    for frame, visible in enumerate(listed):
        first, end = frame * tokens, (frame + 1) * tokens
        if spans and spans[-1][2] == visible * tokens:
            first = spans.pop()[0]
        spans.append((first, end, visible * tokens))
    return spans


# Where two speakers stand on the line that tells them apart, which of them a token shows being a matter of
# degree; where what shows neither stands; and where what they say does.
SHOWN = ((0.0, 4.0), (20.0, 24.0))
NEITHER = 12.0
HEARD = (2.0, 22.0)


def speaker_regions(masks: Tensor, rows: int, columns: int) -> Tensor:
    """Convert masks [3, h, w] (two speakers, the rest) to ones and zeros per token [3, S]."""
    covered = functional.interpolate(masks[None].float(), size=(rows, columns), mode="nearest")[0] > 0
    return covered.float().flatten(1)


def speaker_places(shares: Tensor, tokens: int, heads: int) -> Tensor:
    """Convert shares [B, F * S, 3] to positions on the speakers' line [B * F, S, N].

    S is ``tokens`` and N is ``heads``.

    The published code reads the positions, which are in the order (frame, token), as if they were in the
    order of its queries (frame, head, token). So only the first head of the first frame gets the positions of
    its own tokens. Kept for parity.
    """
    lowest, highest = shares.amin(dim=1, keepdim=True), shares.amax(dim=1, keepdim=True)
    degree = (shares - lowest) / (highest - lowest + 1e-8)
    places = [first + (last - first) * degree[..., index] for index, (first, last) in enumerate(SHOWN)]
    places.append(torch.full_like(places[0], NEITHER))
    own = torch.stack(places, dim=-1).gather(-1, shares.argmax(dim=-1, keepdim=True))[..., 0]
    return rearrange(own.repeat(1, heads), "b (f n s) -> (b f) s n", n=heads, s=tokens)


def rotary_line(places: Tensor, head_dim: int) -> Tensor:
    """Convert positions [...] on a line to cosines and sines [..., K/2, 2]."""
    exponent = torch.arange(0, head_dim, 2, device=places.device) / head_dim
    angle = places[..., None].float() * ROPE_THETA**-exponent
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


class WanRMSNorm(nn.RMSNorm):
    """RMS norm over the full width, fused with the rotation that may follow."""

    def forward(self, x: Tensor, rotary_emb: Tensor | None = None, heads: int = 1) -> Tensor:
        """Return tokens [B, L, D] normed; with ``rotary_emb`` [L, 1, K/2, 2] rotated heads [B, L, N, K]."""
        assert self.eps is not None
        if rotary_emb is None:
            return operators.rms_norm(x, self.weight, self.eps)
        return operators.rms_norm_rotary(x, self.weight, rotary_emb, heads, self.eps)


class WanAttnProcessor(AttentionProcessor):
    """Attention over prepared queries, keys and values."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, sharded: bool = False, spans: Spans | None = None
    ) -> Tensor:
        """Attend and merge the heads: returns [B, L, D]."""
        return self.attend(query, key, value, sharded=sharded, spans=spans).flatten(2).type_as(query)


class WanAttention(AttentionModuleMixin, nn.Module):
    """Self-attention, or cross-attention to text and (if ``image_dim`` is given) image tokens.

    Queries and keys are RMS-normalised over the full width before the split into heads. Text and image
    attend separately; their results are summed before the output projection.
    """

    _default_processor_cls = WanAttnProcessor
    _available_processors = (WanAttnProcessor,)
    _supports_qkv_fusion = False
    processor: WanAttnProcessor

    def __init__(
        self,
        dim: int,
        heads: int,
        eps: float,
        image_dim: int | None = None,
        *,
        is_cross_attention: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.is_cross_attention = heads, is_cross_attention  # diffusers' caches read the latter
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.norm_q = WanRMSNorm(dim, eps=eps)
        self.norm_k = WanRMSNorm(dim, eps=eps)
        if image_dim is not None:
            self.add_k_proj, self.add_v_proj = nn.Linear(image_dim, dim), nn.Linear(image_dim, dim)
            self.norm_added_k = WanRMSNorm(dim, eps=eps)
        self.processor = WanAttnProcessor()

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b l (n k) -> b l n k", n=self.heads)

    def keys_values(self, context: Tensor, rotary_emb: Tensor | None = None) -> KeysValues:
        """Return keys and values of text [B, T, D], or of the tokens themselves, whose keys are rotated."""
        return self._normalize(self.norm_k, self.to_k(context), rotary_emb), self._split(self.to_v(context))

    def _normalize(self, norm: WanRMSNorm, x: Tensor, rotary_emb: Tensor | None) -> Tensor:
        """Normalize queries or keys [B, L, D], split the heads, and rotate if there are positions."""
        return self._split(norm(x)) if rotary_emb is None else norm(x, rotary_emb, self.heads)

    def image_keys_values(self, image: Tensor) -> KeysValues:
        """Return keys and values of image tokens [B, I, D]."""
        return self._split(self.norm_added_k(self.add_k_proj(image))), self._split(self.add_v_proj(image))

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | KeysValues | None = None,
        rotary_emb: Tensor | None = None,
        image_states: Tensor | KeysValues | None = None,
        spans: Spans | None = None,
    ) -> Tensor:
        """Attend from tokens [B, L, D] to text [B, T, D], or to themselves without text; returns [B, L, D].

        Text and image may be given as their keys and values. ``spans`` restricts self-attention: (first
        query, end of the queries, end of their keys), in tokens.
        """
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = self._normalize(self.norm_q, self.to_q(hidden_states), rotary_emb)
        key, value = self.keys_values(context, rotary_emb) if isinstance(context, Tensor) else context
        out = self.processor(query, key, value, sharded=encoder_hidden_states is None, spans=spans)
        if image_states is not None:
            if isinstance(image_states, Tensor):
                image_states = self.image_keys_values(image_states)
            seen = self.processor(query, *image_states)
            out = out + seen if torch.is_grad_enabled() else seen.add_(out)
            del seen
        del query, key, value, image_states  # freed before the projection
        return self.to_out[0](out)

    def shares(self, hidden_states: Tensor, rotary_emb: Tensor, regions: Tensor) -> Tensor:
        """Return how much tokens [B, L, D] attend to each of R regions of the first frame: [B, L, R].

        Mean over heads and over the tokens of a region; ``regions`` [R, S] is one inside and zero outside.
        Regions are passed as the values of an ordinary attention, so no L x S weights are stored.
        """
        tokens = regions.shape[1]
        query = self._normalize(self.norm_q, self.to_q(hidden_states), rotary_emb)
        key = self._normalize(self.norm_k, self.to_k(hidden_states[:, :tokens]), rotary_emb[:tokens])
        mean = (regions / regions.sum(dim=1, keepdim=True).clamp(min=1)).T.to(query)
        value = functional.pad(mean, (0, query.shape[-1] - len(regions)))[None, :, None].expand_as(key)
        weights = rearrange(self.processor(query, key, value), "b l (n k) -> b l n k", n=self.heads)
        return weights.float().mean(dim=2)[..., : len(regions)]


class WanAudioAttention(AttentionModuleMixin, nn.Module):
    """Cross-attention of every latent frame to its own audio tokens, without q/k norm.

    With two speakers, queries are rotated by who is visible and keys by who is audible; else nothing is
    rotated.
    """

    _default_processor_cls = WanAttnProcessor
    _available_processors = (WanAttnProcessor,)
    _supports_qkv_fusion = False
    is_cross_attention = True
    processor: WanAttnProcessor

    def __init__(self, dim: int, heads: int, audio_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = nn.Linear(dim, dim)
        self.kv_linear = nn.Linear(audio_dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.processor = WanAttnProcessor()

    def forward(self, hidden_states: Tensor, audio_states: Tensor, shares: Tensor | None = None) -> Tensor:
        """Attend from tokens [B, F, S, D] to audio tokens [B, F, A, audio_dim]; returns [B, F, S, D].

        ``shares`` [B, F * S, 3] is how much a token shows of either speaker and of neither; then the first
        half of the audio tokens belongs to the first speaker.
        """
        batch = len(hidden_states)
        query = rearrange(self.q_linear(hidden_states), "b f s (n k) -> (b f) s n k", n=self.heads)
        keys = rearrange(
            self.kv_linear(audio_states), "b f a (two n k) -> two (b f) a n k", two=2, n=self.heads
        )
        key = keys[0]
        if shares is not None:
            places = speaker_places(shares, query.shape[1], self.heads)
            query = apply_rotary(query, rotary_line(places, query.shape[-1]))
            heard = torch.tensor(HEARD, device=key.device).repeat_interleave(key.shape[1] // len(HEARD))
            key = apply_rotary(key, rotary_line(heard[:, None], key.shape[-1]))
        out = self.processor(query, key, keys[1])
        return rearrange(self.proj(out), "(b f) s d -> b f s d", b=batch)
