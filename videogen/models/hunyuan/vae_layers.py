"""HunyuanVideo's VAE layers that process a few frames at a time; weights and results as in diffusers.

A tile of the published decode has 65 frames, and diffusers holds about five tensors of its size. Here norm,
activation, padding and convolution process a tile part by part, so that only a layer's input and output exist
as a whole. Activations are channels-last, for which convolutions are fastest. If hooks of an offloaded model
must see every call of every layer, layers run diffusers' code.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import (
    HunyuanVideoCausalConv3d,
    HunyuanVideoDecoder3D,
    HunyuanVideoEncoder3D,
    HunyuanVideoMidBlock3D,
    HunyuanVideoResnetBlockCausal3D,
    HunyuanVideoUpsampleCausal3D,
)
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from videogen.models.kernels.convolution import convolve, has_hooks
from videogen.models.kernels.vae_operators import BEFORE, empty_frames
from videogen.models.vae_layers import register

PART = 256 << 20  # approximate bytes of a part

Part = tuple[Sequence[int], Callable[[Tensor], object]]
"""Frames that are yet to be made: their shape [B, C, F, H, W], and what writes them."""


class CausalConv(HunyuanVideoCausalConv3d):
    """Causal convolution; replicates the outermost pixels at all edges."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Convolve [B, C, F, H, W]."""
        if has_hooks(self.conv):
            return super().forward(hidden_states)
        if self.conv.kernel_size == (1, 1, 1):
            return convolve(self.conv, hidden_states, (0, 0, 0))
        parts: list[Part] = [(hidden_states.shape, lambda place: place.copy_(hidden_states))]
        return self.over(parts, like=hidden_states)

    def over(self, parts: Iterable[Part], *, like: Tensor, frames: int | None = None) -> Tensor:
        """Convolve frames that come in parts, ``frames`` in all where there are several parts."""
        out, before, done = None, None, 0
        for shape, write in parts:
            joined = _padded(shape, write, before, like)
            done += shape[2]
            more = frames is not None and done < frames
            before = joined[:, :, -BEFORE:, 1:-1, 1:-1].clone() if more else None
            made = convolve(self.conv, joined, (0, 0, 0))
            del joined
            if out is None and not more:
                return made
            out = empty_frames(made, frames or done, made.shape[3]) if out is None else out
            out[:, :, done - made.shape[2] : done] = made
        assert out is not None
        return out


def _padded(
    shape: Sequence[int], write: Callable[[Tensor], object], before: Tensor | None, like: Tensor
) -> Tensor:
    """Return frames behind the two before them (None: the first of them, twice), edges repeated."""
    batch, channels, frames, height, width = shape
    joined = like.new_empty(batch, BEFORE + frames, height + 2, width + 2, channels).permute(0, 4, 1, 2, 3)
    inner = joined[..., 1:-1, 1:-1]
    write(inner[:, :, BEFORE:])
    inner[:, :, :BEFORE] = inner[:, :, BEFORE : BEFORE + 1] if before is None else before
    for edge, next_to_it in ((0, 1), (-1, -2)):
        joined[..., edge, 1:-1] = joined[..., next_to_it, 1:-1]
    for edge, next_to_it in ((0, 1), (-1, -2)):
        joined[..., edge] = joined[..., next_to_it]
    return joined


def _split(x: Tensor, larger: int = 1) -> Iterator[Tensor]:
    """Split frames into parts of about ``PART`` bytes when they have become ``larger``."""
    yield from x.split(max(1, PART * x.shape[2] // (x.nbytes * larger)), dim=2)


def activated(x: Tensor, norm: nn.GroupNorm) -> Iterator[Part]:
    """Yield SiLU(norm(x)) part by part."""
    scale, shift = _scale_and_shift(x, norm)
    for part in _split(x):
        yield part.shape, partial(_write_activated, part, scale, shift)


def _write_activated(part: Tensor, scale: Tensor, shift: Tensor, place: Tensor) -> None:
    if torch.is_grad_enabled():
        place.copy_(functional.silu(torch.addcmul(shift, part, scale)))
    else:
        functional.silu(torch.addcmul(shift, part, scale, out=place), inplace=True)


def _scale_and_shift(x: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Return [B, C, 1, 1, 1], float32, with which norm(x) is x * scale + shift."""
    sizes = [part.shape[2] for part in _split(x)]
    share = torch.full((len(sizes),), sizes[0] / x.shape[2], device=x.device)
    share[-1] = sizes[-1] / x.shape[2]
    moments = zip(*(_moments(part) for part in _split(x)), strict=True)
    variances, means = (
        rearrange(torch.stack(parts), "n b (g c) -> b g c n", g=norm.num_groups) for parts in moments
    )
    mean = (means * share).sum(-1).mean(-1, keepdim=True)
    variance = ((variances + (means - mean[..., None]) ** 2) * share).sum(-1).mean(-1, keepdim=True)
    weight, bias = (rearrange(n.float(), "(g c) -> g c", g=norm.num_groups) for n in (norm.weight, norm.bias))
    scale = weight * torch.rsqrt(variance + norm.eps)
    scale, shift = (rearrange(n, "b g c -> b (g c) 1 1 1") for n in (scale, bias - mean * scale))
    return scale, shift


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return variances and means [B, C], float32, over all pixels of frames [B, C, F, H, W]."""
    pixels = rearrange(x, "b c f h w -> b (f h w) c")
    if x.dtype != torch.float32:  # no float32 copy; E[x^2] - E[x]^2 is exact enough for 8-bit frames
        mean = pixels.mean(dim=1, dtype=torch.float32)
        norm = torch.linalg.vector_norm(pixels, dim=1, dtype=torch.float32)
        return (norm.square() / pixels.shape[1] - mean.square()).clamp(min=0), mean
    if x.device.type != "cpu":
        return torch.var_mean(pixels, dim=1, correction=0)
    mean = pixels.mean(dim=1, keepdim=True)  # three passes are faster than one var_mean on a CPU
    return (pixels - mean).square_().mean(dim=1), mean[:, 0]


class ResnetBlock(HunyuanVideoResnetBlockCausal3D):
    """Residual block of two convolutions."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Transform frames [B, C, F, H, W]; the frame count stays the same."""
        if has_hooks(self.conv1.conv):
            return super().forward(hidden_states)
        x, frames = hidden_states, hidden_states.shape[2]
        hidden = self.conv1.over(activated(x, self.norm1), like=x, frames=frames)
        out = self.conv2.over(activated(hidden, self.norm2), like=x, frames=frames)
        del hidden
        done = 0
        for part in _split(x):
            added = part if self.conv_shortcut is None else self.conv_shortcut(part)
            out[:, :, done : done + part.shape[2]] += added
            done += part.shape[2]
        return out


class Upsample(HunyuanVideoUpsampleCausal3D):
    """Upsampling by two in space and, except for the first frame, in time."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Upsample frames [B, C, F, h, w]."""
        if has_hooks(self.conv.conv):
            return super().forward(hidden_states)
        times, rows, columns = (int(factor) for factor in self.upsample_factor)
        frames = times * (hidden_states.shape[2] - 1) + 1

        def repeated() -> Iterator[Part]:
            once = 1  # frames that are not repeated
            for part in _split(hidden_states, times * rows * columns):
                batch, channels, count, height, width = part.shape
                shape = (batch, channels, once + times * (count - once), rows * height, columns * width)
                yield shape, partial(_write_repeated, part, once)
                once = 0

        return self.conv.over(repeated(), like=hidden_states, frames=frames)


def _write_repeated(part: Tensor, once: int, place: Tensor) -> None:
    """Write every pixel of a part as often as there is place for it; the first frames ``once``."""
    for source, target in ((part[:, :, :once], place[:, :, :once]), (part[:, :, once:], place[:, :, once:])):
        if source.shape[2]:
            sizes = zip("fhw", source.shape[2:], strict=True)
            cells = rearrange(target, "b c (f t) (h u) (w v) -> b c f t h u w v", **dict(sizes))
            cells.copy_(source[:, :, :, None, :, None, :, None])


class MidBlock(HunyuanVideoMidBlock3D):
    """Residual blocks with causal attention over frames."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Transform frames [B, C, F, H, W]; the frame count stays the same."""
        x = self.resnets[0](hidden_states)
        for attention, resnet in zip(self.attentions, self.resnets[1:], strict=True):
            x = resnet(x if attention is None else attend(attention, x))
        return x


def attend(attention: Attention, x: Tensor) -> Tensor:
    """Return x + attention(x), frame by frame, so that no mask is needed."""
    size, (frames, height, width) = x.shape[3] * x.shape[4], x.shape[2:]
    tokens = rearrange(x, "b c f h w -> b (f h w) c")
    normed = attention.group_norm(tokens.transpose(1, 2)).transpose(1, 2)
    layers = (attention.to_q, attention.to_k, attention.to_v)
    query, key, value = (layer(normed)[:, None] for layer in layers)  # one head
    out = [
        functional.scaled_dot_product_attention(
            query[:, :, end - size : end], key[:, :, :end], value[:, :, :end]
        )
        for end in range(size, frames * size + 1, size)
    ]
    tokens = tokens + attention.to_out[0](torch.cat(out, dim=2)[:, 0])
    return rearrange(tokens, "b (f h w) c -> b c f h w", f=frames, h=height, w=width)


class Decoder(HunyuanVideoDecoder3D):
    """Decoder from latent frames to video frames."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Decode latent frames [B, C, F, h, w]; every input is freed as early as possible."""
        if has_hooks(self.conv_out.conv):
            return super().forward(hidden_states)
        x = self.mid_block(self.conv_in(hidden_states))
        for block in self.up_blocks:
            for layer in (*block.resnets, *(block.upsamplers or ())):
                x = layer(x)
        return self.conv_out.over(activated(x, self.conv_norm_out), like=x, frames=x.shape[2])


class Encoder(HunyuanVideoEncoder3D):
    """Encoder from video frames to the moments of latent frames."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Encode video frames [B, 3, F, H, W] to moments."""
        if has_hooks(self.conv_out.conv):
            return super().forward(hidden_states)
        x = self.conv_in(hidden_states)
        for block in self.down_blocks:
            for layer in (*block.resnets, *(block.downsamplers or ())):
                x = layer(x)
        x = self.mid_block(x)
        return self.conv_out.over(activated(x, self.conv_norm_out), like=x, frames=x.shape[2])


register(CausalConv, ResnetBlock, Upsample, MidBlock, Decoder, Encoder)
