"""Wan's causal video VAEs (diffusers' AutoencoderKLWan, 2.1 and 2.2): encode, and streaming decode.

The decoder is causal: a latent frame depends only on earlier ones, through a small cache per convolution. So
frames are yielded as they are decoded, and memory does not grow with the length of the video.

Source: specs skyreels_v3 section 4, wan22 section 10.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, patchify, unpatchify
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from videogen.models.device_copies import to_device
from videogen.models.host_copies import HostCopies
from videogen.models.wan import vae_layers  # noqa: F401 - registers the layers


def _statistics(vae: AutoencoderKLWan, like: Tensor) -> tuple[Tensor, Tensor]:
    shape = (1, -1, 1, 1, 1)
    mean, std = (
        torch.tensor(values).to(like).view(shape)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, std


def normalize(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Normalize VAE latents [B, C, F, h, w] to the range of the transformer."""
    mean, std = _statistics(vae, latents)
    return (latents - mean) / std


def denormalize(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Undo ``normalize``."""
    mean, std = _statistics(vae, latents)
    return latents * std + mean


@torch.no_grad()
def encode(
    vae: AutoencoderKLWan, video: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
) -> Tensor:
    """Encode video [B, 3, F, H, W] in [-1, 1] to normalized latents [B, C, 1 + (F-1)//4, h, w], float32.

    Frames beyond 4k+1 are dropped, as published. Returns the mean of the posterior, or with ``sample`` one
    draw from it (normal, float32, the shape of the latents). Never tiled. The video may be on another device
    than the VAE: at most four frames are on the VAE's device at a time.
    """
    onload(vae)
    causal = sum(isinstance(module, WanCausalConv3d) for module in vae.encoder.modules())
    cache = [None] * causal if video.shape[2] > 4 else None  # a single frame needs no cache
    hidden = []
    for end in range(1, video.shape[2] + 1, 4):
        chunk = video[:, :, max(0, end - 4) : end].to(vae.device, vae.dtype)
        if vae.config.patch_size is not None:
            chunk = patchify(chunk, patch_size=vae.config.patch_size)
        hidden.append(vae.encoder(chunk, feat_cache=cache, feat_idx=[0]))
    posterior = DiagonalGaussianDistribution(vae.quant_conv(torch.cat(hidden, dim=2)))
    latents = posterior.sample(generator) if sample else posterior.mode()
    return normalize(vae, latents.float()).contiguous()


@dataclass(frozen=True, slots=True)
class Span:
    """One tile along one axis: its range and the blending weight of each of its pixels."""

    start: int  # latent pixels
    stop: int
    weight: Tensor  # output pixels

    def pixels(self, scale: int) -> slice:
        """Return the range in output pixels."""
        return slice(self.start * scale, self.stop * scale)


def spans(length: int, tile: int, stride: int, scale: int) -> list[Span]:
    """Split an axis into tiles, in latent pixels: equal lengths, evenly spaced, at most ``stride`` apart.

    Weights rise and fall linearly over the overlaps and sum to 1 everywhere, so blended tiles show no seam.
    """
    tile = min(tile, length)
    gaps = math.ceil((length - tile) / stride)
    starts = [round(index * (length - tile) / gaps) for index in range(gaps + 1)] if gaps else [0]
    weights = torch.ones(len(starts), tile * scale)
    for index, (left, right) in enumerate(pairwise(starts)):
        overlap = (left + tile - right) * scale
        ramp = (torch.arange(overlap) + 0.5) / overlap
        weights[index, tile * scale - overlap :] *= 1 - ramp
        weights[index + 1, :overlap] *= ramp
    total = torch.zeros(length * scale)  # 1 where two tiles overlap, other where three do
    for start, weight in zip(starts, weights, strict=True):
        total[start * scale : (start + tile) * scale] += weight
    return [
        Span(start, start + tile, weight / total[start * scale : (start + tile) * scale])
        for start, weight in zip(starts, weights, strict=True)
    ]


class _CausalDecoder:
    """Streaming decoder of one region, called with one latent frame after another."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        self.vae = vae
        self.cache: list = [None] * sum(
            isinstance(module, WanCausalConv3d) for module in vae.decoder.modules()
        )
        self.first = True

    def __call__(self, frame: Tensor) -> Tensor:
        """Decode a latent frame [B, C, 1, h, w] to frames [B, 3, 1 or 4, H, W] in [-1, 1], float32."""
        hidden = self.vae.post_quant_conv(frame)
        video = self.vae.decoder(hidden, feat_cache=self.cache, feat_idx=[0], first_chunk=self.first)
        self.first = False
        if self.vae.config.patch_size is not None:
            video = unpatchify(video, patch_size=self.vae.config.patch_size)
        return video.float().clamp(-1, 1).contiguous()  # contiguous, as after saving and loading


def _decode_tiles(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Decode overlapping tiles and blend them to one video [B, 3, 4(F-1)+1, H, W] in RAM.

    Each tile is decoded through all frames before the next one, so that the device holds the caches of a
    single tile and none is ever moved. The video takes 12 bytes per pixel and frame, less than the caches of
    all tiles up to about 1,400 frames.
    """
    (batch, _, frames, height, width), scale = latents.shape, vae.spatial_compression_ratio
    tile = (vae.tile_sample_min_height // scale, vae.tile_sample_min_width // scale)
    stride = (vae.tile_sample_stride_height // scale, vae.tile_sample_stride_width // scale)
    video = torch.zeros(batch, 3, 4 * (frames - 1) + 1, height * scale, width * scale)
    copies = HostCopies(vae.device)
    for row in spans(height, tile[0], stride[0], scale):
        for column in spans(width, tile[1], stride[1], scale):
            decoder, done = _CausalDecoder(vae), 0
            weight = to_device(torch.outer(row.weight, column.weight), vae.device)
            place = video[..., row.pixels(scale), column.pixels(scale)]
            for frame in latents[..., row.start : row.stop, column.start : column.stop].split(1, dim=2):
                piece = decoder(frame) * weight
                copies.start(piece, place[:, :, done : done + piece.shape[2]].add_)
                done += piece.shape[2]
    copies.finish()
    return video


@torch.no_grad()
def decode_stream(vae: AutoencoderKLWan, latents: Tensor) -> Iterator[Tensor]:
    """Decode normalized latents [B, C, F, h, w] to video, one latent frame at a time.

    Yields:
        frames [B, 3, 1, H, W], then [B, 3, 4, H, W] for every further latent frame, in [-1, 1], float32,
        whatever the decoder computes in.

    Equal to the one-shot ``vae.decode``, except with tiling: if ``vae.enable_tiling()`` was called and the
    frame is larger than a tile, tiles are blended, the result is close but not equal, and all tiles are
    decoded before the first frames are yielded.
    """
    onload(vae)
    latents = denormalize(vae, latents.to(vae.device).float()).to(vae.post_quant_conv.weight.dtype)
    height, width = latents.shape[-2:]
    scale = vae.spatial_compression_ratio
    if vae.use_tiling and (
        height * scale > vae.tile_sample_min_height or width * scale > vae.tile_sample_min_width
    ):
        video = _decode_tiles(vae, latents)
        for end in range(1, video.shape[2] + 1, 4):
            yield video[:, :, max(0, end - 4) : end].to(vae.device).contiguous()
        return
    sharding = getattr(vae, "spatial_sharding", None)  # over ranks; see runtime/vae_parallel.py
    decoder: Callable[[Tensor], Tensor] = _CausalDecoder(vae)
    if sharding is not None and sharding.ranks <= height:
        decoder = sharding.shard(decoder)
    for frame in latents.split(1, dim=2):
        yield decoder(frame)


def decode(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Decode all latents at once: [B, 3, 4(F-1)+1, H, W]."""
    return torch.cat(list(decode_stream(vae, latents)), dim=2)


def onload(vae: nn.Module) -> None:
    """Move an offloaded VAE to its device; streaming bypasses the methods that diffusers' hooks wrap."""
    hook = getattr(vae, "_hf_hook", None)
    if hook is not None and hasattr(hook, "pre_forward"):
        hook.pre_forward(vae)
