"""Wan's VAE over a whole clip at once, for training: diffusers' layers in another order of work.

The library goes through a clip in chunks of four frames and keeps two frames per convolution between them.
Here every causal convolution takes all frames at once, as a 2-D convolution whose channels are those of three
frames; narrow layers are several times faster so, and gradients need no chunks. Results are equal
(``tests/miniature/test_whole_clip.py``).

Shapes: B clips, F frames, H/W height/width, h/w those of latents, C channels, which come last.
"""

from collections.abc import Callable
from functools import partial

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanAttentionBlock,
    WanCausalConv3d,
    WanDecoder3d,
    WanEncoder3d,
    WanMidBlock,
    WanResample,
    WanResidualBlock,
    WanRMS_norm,
    WanUpBlock,
)
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional


def encode(vae: AutoencoderKLWan, video: Tensor) -> tuple[Tensor, Tensor]:
    """Encode video [B, 4k + 1, H, W, 3] in [-1, 1] to (mean, log variance), each [B, k + 1, h, w, C]."""
    hidden = _convolve(vae.quant_conv, _encoder(vae.encoder, video))
    mean, log_variance = hidden.chunk(2, dim=-1)
    return mean, log_variance.clamp(-30, 20)


def decode(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Decode latents [B, k + 1, h, w, C] to video [B, 4k + 1, H, W, 3]."""
    return _decoder(vae.decoder, _convolve(vae.post_quant_conv, latents))


def _encoder(encoder: WanEncoder3d, x: Tensor) -> Tensor:
    x = _convolve(encoder.conv_in, x)
    for block in encoder.down_blocks:
        x = _residual(block, x) if isinstance(block, WanResidualBlock) else _resample(block, x)
    return _convolve(encoder.conv_out, _activate(encoder.norm_out, _middle(encoder.mid_block, x)))


def _decoder(decoder: WanDecoder3d, x: Tensor) -> Tensor:
    x = _middle(decoder.mid_block, _convolve(decoder.conv_in, x))
    for block in decoder.up_blocks:
        assert isinstance(block, WanUpBlock)
        for inner in block.resnets:
            x = _residual(inner, x)
        if block.upsamplers is not None:
            x = _resample(block.upsamplers[0], x)
    return _convolve(decoder.conv_out, _activate(decoder.norm_out, x))


def _convolve(layer: WanCausalConv3d, x: Tensor) -> Tensor:
    """Convolve causally, with stride 1; frames before the first are zeros."""
    reach, (rows, columns) = layer.kernel_size[0] - 1, layer.kernel_size[1:]
    if reach:
        x = _WithEarlier.apply(x, reach)
    weight = layer.weight.transpose(1, 2).flatten(1, 2)  # [out, frames of the kernel * in, rows, columns]
    padding = (rows // 2, columns // 2)
    return _frames(x, lambda pictures: functional.conv2d(pictures, weight, layer.bias, padding=padding))


class _WithEarlier(torch.autograd.Function):
    """Put the frames before each frame beside it, the earliest first: [B, F, H, W, (reach + 1) C].

    What padding, slices and ``torch.cat`` give, with fewer passes over memory.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, reach: int) -> Tensor:
        frames, channels = x.shape[1], x.shape[-1]
        ctx.channels = channels
        joined = x.new_empty(*x.shape[:-1], (reach + 1) * channels)
        for back, part in zip(range(reach, -1, -1), joined.split(channels, dim=-1), strict=True):
            part[:, :back].zero_()
            part[:, back:].copy_(x[:, : max(frames - back, 0)])
        return joined

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        *earlier, own = gradients[0].split(ctx.channels, dim=-1)
        total = own.clone()
        for back, part in zip(range(len(earlier), 0, -1), earlier, strict=True):
            total[:, : max(total.shape[1] - back, 0)] += part[:, back:]
        return total, None


def _frames(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of pictures [N, C, H, W] to every frame."""
    pictures = function(x.flatten(0, 1).movedim(-1, 1)).movedim(1, -1)
    return pictures.unflatten(0, x.shape[:2])


def _activate(norm: WanRMS_norm, x: Tensor, *, silu: bool = True) -> Tensor:
    gamma = norm.gamma.flatten().to(x.dtype)
    return _normalize_silu(x, gamma) if silu else functional.rms_norm(x, gamma.shape, gamma, 1e-12)


@partial(torch.compile, dynamic=True, recompile_limit=64)  # one for every width, with and without gradients
def _normalize_silu(x: Tensor, gamma: Tensor) -> Tensor:
    return functional.silu(functional.rms_norm(x, gamma.shape, gamma, 1e-12))


def _residual(block: WanResidualBlock, x: Tensor) -> Tensor:
    shortcut = x if isinstance(block.conv_shortcut, nn.Identity) else _convolve(block.conv_shortcut, x)
    x = _convolve(block.conv1, _activate(block.norm1, x))
    return shortcut + _convolve(block.conv2, _activate(block.norm2, x))


def _middle(block: WanMidBlock, x: Tensor) -> Tensor:
    first, *rest = block.resnets
    x = _residual(first, x)
    for attention, after in zip(block.attentions, rest, strict=True):
        x = _residual(after, _attend(attention, x))
    return x


def _attend(block: WanAttentionBlock, x: Tensor) -> Tensor:
    """Attend within every frame, one head."""
    joined = _frames(_activate(block.norm, x, silu=False), block.to_qkv).flatten(0, 1).flatten(1, 2)
    attended = functional.scaled_dot_product_attention(*joined.chunk(3, dim=-1))
    return x + _frames(attended.view_as(x), block.proj)


def _resample(layer: WanResample, x: Tensor) -> Tensor:
    """Halve or double the size, and for 3d the frames after the first."""
    if layer.mode == "upsample3d" and x.shape[1] > 1:
        later = _convolve(layer.time_conv, x[:, 1:])  # two frames beside each other
        later = later.unflatten(-1, (2, -1)).movedim(-2, 2).flatten(1, 2)
        x = torch.cat([x[:, :1], later], dim=1)
    x = _frames(x, layer.resample)
    if layer.mode == "downsample3d" and x.shape[1] > 1:
        weight, bias = layer.time_conv.weight.transpose(1, 2).flatten(1, 2), layer.time_conv.bias
        joined = torch.cat([x[:, 0:-2:2], x[:, 1:-1:2], x[:, 2::2]], dim=-1)  # (0, 1, 2), (2, 3, 4), ...
        x = torch.cat([x[:, :1], _frames(joined, lambda f: functional.conv2d(f, weight, bias))], dim=1)
    return x
