"""The layers of HunyuanVideo's VAE, working on a few frames at a time: diffusers' weights, and its results.

A tile of the published decode is 65 frames at once, and diffusers holds some five tensors of its size beside
each other. Here norm, activation, padding and convolution go through a tile part by part, so that only what
goes into a layer and what comes out of it are held whole. Activations keep the channels of a pixel side by
side, which the convolutions are fastest with.
"""

from collections.abc import Iterator

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

from videogen.models.convolution import convolve
from videogen.models.fused_vae import BEFORE

PART = 256 << 20  # bytes of a part, about


class CausalConv(HunyuanVideoCausalConv3d):
    """A convolution of frames with those before; at all edges the outermost pixels are repeated."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Convolve [B, C, F, H, W]."""
        return self.over(iter([hidden_states]))

    def over(self, parts: Iterator[Tensor], frames: int | None = None) -> Tensor:
        """Convolve frames that come in parts, ``frames`` in all where there are several parts."""
        if self.conv.kernel_size == (1, 1, 1):
            return convolve(self.conv, next(parts), (0, 0, 0))
        out, before, done = None, None, 0
        for part in parts:
            joined = _padded(part[:, :, :1] if before is None else before, part)
            del part
            done += joined.shape[2] - BEFORE
            more = frames is not None and done < frames
            before = joined[:, :, -BEFORE:, 1:-1, 1:-1].clone() if more else None
            made = convolve(self.conv, joined, (0, 0, 0))
            del joined
            if out is None and not more:
                return made
            out = _empty(made, frames or done) if out is None else out
            out[:, :, done - made.shape[2] : done] = made
        assert out is not None
        return out


def _padded(before: Tensor, part: Tensor) -> Tensor:
    """Return a part behind the two frames before it (or one, twice), with its outermost pixels repeated."""
    batch, channels, frames, height, width = part.shape
    joined = part.new_empty(batch, BEFORE + frames, height + 2, width + 2, channels).permute(0, 4, 1, 2, 3)
    inner = joined[..., 1:-1, 1:-1]
    inner[:, :, :BEFORE], inner[:, :, BEFORE:] = before, part
    for edge, next_to_it in ((0, 1), (-1, -2)):
        joined[..., edge, 1:-1] = joined[..., next_to_it, 1:-1]
    for edge, next_to_it in ((0, 1), (-1, -2)):
        joined[..., edge] = joined[..., next_to_it]
    return joined


def _empty(like: Tensor, frames: int) -> Tensor:
    batch, channels, _, height, width = like.shape
    return like.new_empty(batch, frames, height, width, channels).permute(0, 4, 1, 2, 3)


def _split(x: Tensor, larger: int = 1) -> Iterator[Tensor]:
    """Split frames into parts of about ``PART`` bytes when they have become ``larger``."""
    yield from x.split(max(1, PART * x.shape[2] // (x.nbytes * larger)), dim=2)


def activated(x: Tensor, norm: nn.GroupNorm) -> Iterator[Tensor]:
    """Yield SiLU(norm(x)) part by part."""
    scale, shift = _scale_and_shift(x, norm)
    for part in _split(x):
        yield functional.silu(torch.addcmul(shift, part, scale), inplace=True).type_as(x)


def _scale_and_shift(x: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Return [B, C, 1, 1, 1], float32, with which norm(x) is x * scale + shift."""
    sizes = [part.shape[2] for part in _split(x)]
    share = torch.full((len(sizes),), sizes[0] / x.shape[2], device=x.device)
    share[-1] = sizes[-1] / x.shape[2]
    moments = zip(*(_moments(part.float()) for part in _split(x)), strict=True)
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
    """Return variances and means [B, C] over all pixels of frames [B, C, F, H, W]."""
    pixels = rearrange(x, "b c f h w -> b (f h w) c")
    if x.device.type != "cpu":
        return torch.var_mean(pixels, dim=1, correction=0)
    mean = pixels.mean(dim=1, keepdim=True)  # on a CPU in three passes, which are faster than that one
    return (pixels - mean).square_().mean(dim=1), mean[:, 0]


class ResnetBlock(HunyuanVideoResnetBlockCausal3D):
    """Two convolutions and what they are added to."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Frames [B, C, F, H, W] to as many."""
        x, frames = hidden_states, hidden_states.shape[2]
        hidden = self.conv1.over(activated(x, self.norm1), frames)
        out = self.conv2.over(activated(hidden, self.norm2), frames)
        del hidden
        done = 0
        for part in _split(x):
            added = part if self.conv_shortcut is None else self.conv_shortcut(part)
            out[:, :, done : done + part.shape[2]] += added
            done += part.shape[2]
        return out


class Upsample(HunyuanVideoUpsampleCausal3D):
    """Twice as many pixels, and frames but for the first."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Frames [B, C, F, h, w] to larger ones."""
        times, height, width = (int(factor) for factor in self.upsample_factor)
        frames = times * (hidden_states.shape[2] - 1) + 1

        def repeated() -> Iterator[Tensor]:
            first = times - 1  # repetitions of the first frame that are left out
            for part in _split(hidden_states, times * height * width):
                sizes = {"t": times, "u": height, "v": width}
                large = part[:, :, :, None, :, None, :, None].expand(-1, -1, -1, times, -1, height, -1, width)
                yield rearrange(large, "b c f t h u w v -> b c (f t) (h u) (w v)", **sizes)[:, :, first:]
                first = 0

        return self.conv.over(repeated(), frames)


class MidBlock(HunyuanVideoMidBlock3D):
    """Convolutions, and attention of every frame to itself and those before."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Frames [B, C, F, H, W] to as many."""
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
    """Latent frames to video frames."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Latent frames [B, C, F, h, w] to video frames; no layer's input is kept longer than needed."""
        x = self.mid_block(self.conv_in(hidden_states))
        for block in self.up_blocks:
            for layer in (*block.resnets, *(block.upsamplers or ())):
                x = layer(x)
        return self.conv_out.over(activated(x, self.conv_norm_out), x.shape[2])


class Encoder(HunyuanVideoEncoder3D):
    """Video frames to the moments of latent frames."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Video frames [B, 3, F, H, W] to moments."""
        x = self.conv_in(hidden_states)
        for block in self.down_blocks:
            for layer in (*block.resnets, *(block.downsamplers or ())):
                x = layer(x)
        x = self.mid_block(x)
        return self.conv_out.over(activated(x, self.conv_norm_out), x.shape[2])


IN_PARTS: dict[type[nn.Module], type[nn.Module]] = {
    HunyuanVideoCausalConv3d: CausalConv,
    HunyuanVideoResnetBlockCausal3D: ResnetBlock,
    HunyuanVideoUpsampleCausal3D: Upsample,
    HunyuanVideoMidBlock3D: MidBlock,
    HunyuanVideoDecoder3D: Decoder,
    HunyuanVideoEncoder3D: Encoder,
}
"""diffusers' layers, and ours for them."""
