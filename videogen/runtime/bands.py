"""The decoder of Wan's VAEs on several ranks: each decodes a band of rows, exactly.

A convolution sees one row beyond its band, which the neighbours send; the attention in the middle sees the
keys and values of all rows. Everything else in the decoder is per pixel. Encoding stays whole on every rank:
what it makes seeds the trajectory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanAttentionBlock, WanCausalConv3d
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from videogen.runtime.shares import Axis, all_gather

Decoder = Callable[[Tensor], Tensor]
"""One latent frame [B, C, 1, h, w] to video frames [B, 3, f, H, W]."""


class Bands:
    """Rows of a picture on the ranks of a group; made by ``split_decoder``."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.ranks, self.rank = dist.get_world_size(group), dist.get_rank(group)
        self.axis: Axis | None = None  # of the latent rows of the picture at work

    def fits(self, rows: int) -> bool:
        """Whether there is a latent row for every rank."""
        return rows >= self.ranks

    def decoder(self, whole: Decoder) -> Decoder:
        """A decoder of whole pictures, of which each rank decodes a band; all have the result."""

        def decode(frame: Tensor) -> Tensor:
            axis = Axis(frame.shape[-2], self.ranks)
            owned = axis.owned(self.rank)
            with self._at_work(axis):
                video = whole(frame[..., owned.start : owned.stop, :].contiguous())
                scale = video.shape[-2] // len(owned)
                rows = rearrange(video, "b c f (h s) w -> h b c f s w", s=scale)
                return rearrange(self._gathered(rows, axis), "h b c f s w -> b c f (h s) w")

        return decode

    @contextmanager
    def _at_work(self, axis: Axis) -> Iterator[None]:
        self.axis = axis
        try:
            yield
        finally:
            self.axis = None

    def _gathered(self, rows: Tensor, axis: Axis) -> Tensor:
        """The rows [h, ...] of all bands."""
        if missing := axis.share - len(rows):
            rows = torch.cat([rows, *[rows[-1:]] * missing])
        return axis.gather(rows, 0, self.group)

    def with_neighbours(self, x: Tensor) -> Tensor:
        """Rows [..., h, w] with one more above and below: a neighbour's, or zeros at the edge."""
        above = below = torch.zeros_like(x[..., :1, :])
        if self.axis is not None:
            edges = all_gather(torch.stack([x[..., :1, :], x[..., -1:, :]]), self.group)
            above = edges[self.rank - 1, 1] if self.rank > 0 else above
            below = edges[self.rank + 1, 0] if self.rank + 1 < self.ranks else below
        return torch.cat([above, x, below], dim=-2)

    def all_rows(self, x: Tensor) -> Tensor:
        """Rows [B, C, h, w] of all bands."""
        if self.axis is None:
            return x
        rows = self._gathered(rearrange(x, "b c h w -> h b c w"), self.axis)
        return rearrange(rows, "h b c w -> b c h w")


def split_decoder(vae: AutoencoderKLWan, group: dist.ProcessGroup) -> None:
    """Let ``vae.decode_stream`` decode in bands, where there are rows enough and no tiles."""
    bands = Bands(group)
    for module in vae.decoder.modules():
        if isinstance(module, WanCausalConv3d) and module._padding[2]:
            module._padding = (*module._padding[:2], 0, 0, *module._padding[4:])
            module.register_forward_pre_hook(partial(_widen_causal, bands))
        elif isinstance(module, nn.Conv2d) and module.padding == (1, 1):
            module.padding = (0, 1)
            module.register_forward_pre_hook(partial(_widen, bands))
        elif isinstance(module, WanAttentionBlock):
            module.forward = partial(_attend, bands, module)
    vae.bands = bands


def _widen(bands: Bands, _module: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
    return (bands.with_neighbours(arguments[0]),)


def _widen_causal(bands: Bands, _module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Of a convolution that may be given the frames before its own."""
    x, *earlier = arguments
    if not earlier or earlier[0] is None:
        return (bands.with_neighbours(x),)
    before = earlier[0].to(x.device)
    both = bands.with_neighbours(torch.cat([before, x], dim=2))
    return both[:, :, before.shape[2] :], both[:, :, : before.shape[2]]


def _attend(bands: Bands, block: WanAttentionBlock, x: Tensor) -> Tensor:
    """As the block's own forward; the keys and values are those of all rows."""
    batch, height = len(x), x.shape[-2]
    frames = block.norm(rearrange(x, "b c f h w -> (b f) c h w"))
    query, rest = block.to_qkv(frames).tensor_split([frames.shape[1]], dim=1)
    key, value = bands.all_rows(rest).chunk(2, dim=1)
    query, key, value = (rearrange(x, "n c h w -> n 1 (h w) c").contiguous() for x in (query, key, value))
    out = functional.scaled_dot_product_attention(query, key, value)
    out = block.proj(rearrange(out, "n 1 (h w) c -> n c h w", h=height))
    return x + rearrange(out, "(b f) c h w -> b c f h w", b=batch)
