"""Wan's VAE layers with fewer passes over their activations; weights and results as in diffusers.

A causal convolution needs the two previous frames. diffusers normalizes, activates, prepends these frames,
pads, and copies frames for the next call, each in a separate pass; here ``norm_silu_append`` writes the
convolution's input once. Views replace copies if possible, and sums are in place. Activations are channels-
last, for which convolutions are fastest.

``runtime/vae.py`` installs these layers. If hooks of an offloaded model must see every
call of every layer, layers run diffusers' code.
"""

from typing import Protocol

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    AvgDown3D,
    DupUp3D,
    WanAttentionBlock,
    WanCausalConv3d,
    WanDecoder3d,
    WanEncoder3d,
    WanResample,
    WanResidualBlock,
    WanResidualDownBlock,
    WanResidualUpBlock,
    WanRMS_norm,
    WanUpBlock,
)
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from videogen.models.kernels.convolution import convolve, has_hooks
from videogen.models.kernels.vae_operators import BEFORE, add_biased, append, empty_frames, norm_silu_append
from videogen.models.vae_layers import register

AT_ONCE = 2  # full-size frames encoded at once
Cache = tuple[list | None, list[int]]
"""diffusers' cache of every causal convolution between calls, and in a list the index of the next one."""
FIRST = "Rep"  # diffusers' cache mark: the temporal convolution has seen only the first frame


class SpatialSharding(Protocol):
    """Sharding of a frame's rows over ranks; see ``runtime/vae_parallel.py``, which sets it on the layers."""

    @property
    def halo(self) -> int:
        """Halo rows on each side: 1, or 0 if the frame is not sharded."""

    def fill_halo(self, frames: Tensor) -> None:
        """Fill the first and the last row of frames [..., H, W, C] from the ranks above and below."""

    def gather_all_rows(self, x: Tensor) -> Tensor:
        """Gather the rows [B, C, h, w] of all ranks; returns ``x`` itself if the frame is not sharded."""


class CausalConv(WanCausalConv3d):
    """Causal convolution that writes its own padded input."""

    spatial_sharding: SpatialSharding | None = None

    def forward(self, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        """Convolve [B, C, F, H, W] like diffusers' layer, with the previous frames in ``cache_x``."""
        return super().forward(x, cache_x) if any(self._padding) else convolve(self, x, (0, 0, 0))

    def stream(
        self, x: Tensor, cache: Cache, norm: WanRMS_norm | None = None, *, biased: bool = True
    ) -> Tensor:
        """Convolve frames that follow those of the last call; with ``norm``, normalize and activate first.

        Without ``biased`` the caller adds the bias later.
        """
        return self.over(self.join(x, cache, norm), biased=biased)

    def join(
        self, x: Tensor, cache: Cache, norm: WanRMS_norm | None = None, *, bias: Tensor | None = None
    ) -> Tensor:
        """Return the input of ``over``: previous frames, then new ones.

        The last frames are kept for the next call.

        ``bias``: bias of the convolution that produced ``x``, if it is still to be added.
        """
        before, (feat_cache, feat_idx) = None, cache
        if feat_cache is not None:
            before = feat_cache[feat_idx[0]]
            if not isinstance(before, Tensor):
                before = feat_cache[feat_idx[0]] = empty_frames(x, BEFORE, x.shape[3]).zero_()
            feat_idx[0] += 1
        if norm is None:
            joined = append(x, before, self._halo)
        else:
            joined = norm_silu_append(x, bias, norm.gamma, before, self._halo)
        if self._halo:
            assert self.spatial_sharding is not None
            self.spatial_sharding.fill_halo(joined.permute(0, 2, 3, 4, 1))
        return joined

    def over(self, joined: Tensor, *, biased: bool = True) -> Tensor:
        """Convolve the result of ``join``."""
        padding = (0, self._padding[2] - self._halo, self._padding[0])
        return convolve(self, joined, padding, biased=biased)

    @property
    def _halo(self) -> int:
        return self.spatial_sharding.halo if self.spatial_sharding is not None and self._padding[2] else 0


class ResidualBlock(WanResidualBlock):
    """Residual block of two convolutions."""

    def forward(self, x: Tensor, feat_cache: list | None = None, feat_idx: list[int] | None = None) -> Tensor:
        """Transform frames [B, C, F, H, W]; every buffer is freed as soon as possible.

        cuDNN adds a bias in a separate pass; if there are fused kernels, they add it in the next operator.
        """
        cache = (feat_cache, feat_idx or [0])
        if has_hooks(self.conv1):
            return super().forward(x, *cache)
        late = norm_silu_append.is_used(x) and add_biased.is_used(x)
        hidden = self.conv1.stream(x, cache, self.norm1, biased=not late)
        joined = self.conv2.join(hidden, cache, self.norm2, bias=self.conv1.bias if late else None)
        del hidden
        hidden = self.conv2.over(joined, biased=not late)
        del joined
        shortcut = self.conv_shortcut(x)
        return add_biased(hidden, self.conv2.bias, shortcut) if late else hidden.add_(shortcut)


class Resample(WanResample):
    """Up- or downsampling by two in space and, for the 3d modes, in time."""

    spatial_sharding: SpatialSharding | None = None

    def forward(self, x: Tensor, feat_cache: list | None = None, feat_idx: list[int] | None = None) -> Tensor:
        """Resample frames [B, C, F, H, W]; without a cache only in space."""
        cache = (feat_cache, feat_idx or [0])
        if any(has_hooks(layer) for layer in self.modules()):
            return super().forward(x, *cache)
        if self.mode.startswith("upsample"):
            return self._upsample(x, cache)
        frames = rearrange(x, "b c f h w -> (b f) c h w")
        x = rearrange(self.resample(frames), "(b f) c h w -> b c f h w", b=len(x))
        if self.mode != "downsample3d" or feat_cache is None:
            return x
        index = cache[1]
        kept, last = feat_cache[index[0]], x[:, :, -1:].clone()
        feat_cache[index[0]] = last
        index[0] += 1
        return x if kept is None else convolve(self.time_conv, torch.cat([kept, x], dim=2), (0, 0, 0))

    def _upsample(self, x: Tensor, cache: Cache) -> Tensor:
        feat_cache, index = cache
        batch, channels = x.shape[:2]
        if self.mode == "upsample3d" and feat_cache is not None:
            if feat_cache[index[0]] is None:  # the first frame is not doubled
                feat_cache[index[0]] = FIRST
                index[0] += 1
            else:
                x = self.time_conv.stream(x, cache)
        pixels = rearrange(x, "b (two c) f h w -> b f two h w c", c=channels)
        x = self._convolve_doubled(pixels)
        return rearrange(x, "(b f) c h w -> b c f h w", b=batch)

    def _convolve_doubled(self, pixels: Tensor) -> Tensor:
        """Convolve frames [B, F, 1 or 2, h, w, C] with every pixel doubled both ways: [B * F, C, H, W]."""
        batch, frames, two, height, width, channels = pixels.shape
        halo = self.spatial_sharding.halo if self.spatial_sharding is not None else 0
        large = pixels.new_empty(batch * frames * two, 2 * height + 2 * halo, 2 * width, channels)
        inner = large[:, halo : 2 * height + halo]
        inner.view(batch, frames, two, height, 2, width, 2, channels).copy_(pixels[:, :, :, :, None, :, None])
        if halo:
            assert self.spatial_sharding is not None
            self.spatial_sharding.fill_halo(large)
        layer = self.resample[1]
        return functional.conv2d(large.permute(0, 3, 1, 2), layer.weight, layer.bias, padding=(1 - halo, 1))


class AttentionBlock(WanAttentionBlock):
    """Attention over the pixels of a frame, whose rows may be sharded over ranks."""

    spatial_sharding: SpatialSharding | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Attend from the rows here [B, C, F, h, W] to all rows."""
        if self.spatial_sharding is None:
            return super().forward(x)
        frames = self.norm(rearrange(x, "b c f h w -> (b f) c h w"))
        query, rest = self.to_qkv(frames).tensor_split([frames.shape[1]], dim=1)
        key, value = self.spatial_sharding.gather_all_rows(rest).chunk(2, dim=1)
        query, key, value = (
            rearrange(rows, "n c h w -> n 1 (h w) c").contiguous() for rows in (query, key, value)
        )
        out = functional.scaled_dot_product_attention(query, key, value)
        out = self.proj(rearrange(out, "n 1 (h w) c -> n c h w", h=x.shape[-2]))
        return x + rearrange(out, "(b f) c h w -> b c f h w", b=len(x))


class ResidualUpBlock(WanResidualUpBlock):
    """Wan2.2's upsampling block: the repeated input is added to the output."""

    def forward(
        self,
        x: Tensor,
        feat_cache: list | None = None,
        feat_idx: list[int] | None = None,
        first_chunk: bool = False,
    ) -> Tensor:
        """Upsample frames [B, C, F, h, w]."""
        cache, given = (feat_cache, feat_idx or [0]), x
        for resnet in self.resnets:
            x = resnet(x, *cache)
        if self.upsampler is None:
            return x
        return add_repeated(self.upsampler(x, *cache), given, self.avg_shortcut, first=first_chunk)


class ResidualDownBlock(WanResidualDownBlock):
    """Wan2.2's downsampling block: the averaged input is added to the output."""

    def forward(self, x: Tensor, feat_cache: list | None = None, feat_idx: list[int] | None = None) -> Tensor:
        """Downsample frames [B, C, F, H, W]."""
        cache, given = (feat_cache, feat_idx or [0]), x
        for resnet in self.resnets:
            x = resnet(x, *cache)
        if self.downsampler is not None:
            x = self.downsampler(x, *cache)
        return add_averaged(x, given, self.avg_shortcut)


class Decoder(WanDecoder3d):
    """Decoder from latent frames to video frames."""

    def forward(
        self,
        x: Tensor,
        feat_cache: list | None = None,
        feat_idx: list[int] | None = None,
        first_chunk: bool = False,
    ) -> Tensor:
        """Decode latent frames [B, C, F, h, w] that follow those of the last call."""
        cache = (feat_cache, feat_idx or [0])
        if has_hooks(self.conv_in):
            return super().forward(x, *cache, first_chunk)
        x = self.conv_in.stream(x, cache)
        x = self.mid_block(x, *cache)
        for block in self.up_blocks:
            if isinstance(block, WanUpBlock):  # layer by layer, so that the block's input is freed
                for layer in (*block.resnets, *(block.upsamplers or ())):
                    x = layer(x, *cache)
            else:
                x = block(x, *cache, first_chunk=first_chunk)
        return self.conv_out.stream(x, cache, self.norm_out)


class Encoder(WanEncoder3d):
    """Encoder from video frames to the moments of latent frames."""

    def forward(self, x: Tensor, feat_cache: list | None = None, feat_idx: list[int] | None = None) -> Tensor:
        """Encode video frames [B, 3, F, H, W] that follow those of the last call.

        Full-size frames need the most memory, so they are processed a few at a time.
        """
        cache = (feat_cache, feat_idx or [0])
        if has_hooks(self.conv_in):
            return super().forward(x, *cache)
        start, first = cache[1][0], self._full_size()
        at_once = AT_ONCE if feat_cache is not None and first else x.shape[2]
        parts = []
        for part in x.split(at_once, dim=2):
            cache[1][0] = start
            parts.append(self._through(first, self.conv_in.stream(part, cache), cache))
        x = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
        del parts
        x = self._through(self.down_blocks[len(first) :], x, cache)
        x = self.mid_block(x, *cache)
        return self.conv_out.stream(x, cache, self.norm_out)

    def _full_size(self) -> nn.ModuleList:
        """Return the layers up to the first spatial downsampling; none if it also downsamples in time."""
        for number, layer in enumerate(self.down_blocks, 1):
            resample = layer if isinstance(layer, WanResample) else getattr(layer, "downsampler", None)
            if resample is not None:
                return self.down_blocks[: number if resample.mode == "downsample2d" else 0]
        return self.down_blocks[:0]

    @staticmethod
    def _through(layers: nn.ModuleList, x: Tensor, cache: Cache) -> Tensor:
        for layer in layers:
            x = layer(x, *cache)
        return x


def add_repeated(x: Tensor, given: Tensor, shortcut: DupUp3D, *, first: bool) -> Tensor:
    """Add ``shortcut(given)`` to ``x`` in place, without making it."""
    times, sides = shortcut.factor_t, shortcut.factor_s
    kept = _without(shortcut.repeats, times, sides)
    if kept is None or (first and given.shape[2] > 1):
        return x.add_(shortcut(given, first_chunk=first))
    part = rearrange(given, "b (c t u v) f h w -> b c f t h u w v", **kept)
    if first:  # only the last repeat
        part, times = part[:, :, :, -1:], 1
    rearrange(x, "b c (f t) (h u) (w v) -> b c f t h u w v", t=times, u=sides, v=sides).add_(part)
    return x


def add_averaged(x: Tensor, given: Tensor, shortcut: AvgDown3D) -> Tensor:
    """Add ``shortcut(given)`` to ``x`` in place."""
    times, sides = shortcut.factor_t, shortcut.factor_s
    kept = _without(shortcut.group_size, times, sides)
    if kept is None:
        return x.add_(shortcut(given))
    given = functional.pad(given, (0, 0, 0, 0, -given.shape[2] % times, 0)) if times > 1 else given
    parts = rearrange(given, "b c (f t) (h u) (w v) -> b c f t h u w v", t=times, u=sides, v=sides)
    over = [axis for axis, name in ((3, "t"), (5, "u"), (7, "v")) if kept[name] == 1]
    rearrange(x, "b (c t u v) f h w -> b c f t h u w v", **kept).add_(parts.mean(over, keepdim=True))
    return x


def _without(count: int, times: int, sides: int) -> dict[str, int] | None:
    """Return the sizes of a cell [t, u, v] with its innermost axes, ``count`` places in all, made 1."""
    kept = {"t": times, "u": sides, "v": sides}
    for name in "vut":
        if count > 1 and count % kept[name] == 0:
            count, kept[name] = count // kept[name], 1
    return kept if count == 1 else None


register(
    CausalConv, ResidualBlock, Resample, AttentionBlock, ResidualUpBlock, ResidualDownBlock, Decoder, Encoder
)
