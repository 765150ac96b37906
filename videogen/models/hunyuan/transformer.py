"""HunyuanVideo's networks: diffusers' classes, and streamed VAE decoding.

The classes are diffusers', verified against the published code (spec hunyuan section 0). Added here: RIFLEx
positions, and a decode whose memory does not grow with the length of the video.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import ClassVar

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel, ModelMixin  # noqa: F401 - as in Wan
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0
from einops import rearrange
from torch import Tensor, nn

from videogen.models.attention import AttentionProcessor
from videogen.models.component import Arguments
from videogen.models.fifo_cache import FifoCache
from videogen.models.host_copies import HostCopies
from videogen.models.hunyuan import vae_layers  # noqa: F401 - registers the VAE's layers
from videogen.models.interface import Network, TokenAxis, TokenPlan
from videogen.models.kernels import operators

STRIDE = 0.75  # distance of tiles, as a fraction of the tile size
# RIFLEx: smallest number of latent frames, and periods of the lowered frequency over the video.
LONG = 49
PERIOD = 0.9


class HunyuanDiT(Network, HunyuanVideoTransformer3DModel):
    """diffusers' network, with what runtime options must know; text changes from block to block."""

    token_plan: ClassVar = TokenPlan(
        positions=("rope", TokenAxis(0)),
        inputs=("transformer_blocks.0", {0: TokenAxis(1), 1: TokenAxis(1, section=1)}),
        head=("proj_out", TokenAxis(1)),
        frame_size=6,
    )
    # Single blocks return the sum of their attention and their feed-forward, both made by ``proj_out``.
    extrapolated_layers: ClassVar = [
        r"transformer_blocks\.\d+\.(attn|ff|ff_context)",
        r"single_transformer_blocks\.\d+\.proj_out",
    ]
    skipped_layers: ClassVar = [r"single_transformer_blocks\.\d+\.(attn|proj_mlp)"]

    def to_json_string(self) -> str:
        """Return the config as JSON, under the name of diffusers' class, which can hold the model too."""
        own, theirs = (f'"{kind.__name__}"' for kind in (type(self), HunyuanVideoTransformer3DModel))
        return super().to_json_string().replace(own, theirs)

    def token_sections(self, inputs: Mapping[str, Tensor]) -> list[tuple[int, int]]:
        """Return those of the image, then those of the text."""
        frames, height, width = inputs["hidden_states"].shape[2:]
        patch = self.config.patch_size
        return [
            (frames, height // patch * (width // patch)),
            (1, inputs["encoder_hidden_states"].shape[1]),
        ]


def make_dit(values: Arguments) -> HunyuanDiT:
    """Build the transformer from its arguments."""
    model = HunyuanDiT(**values)
    install_layers(model)
    return model


def install_layers(transformer: HunyuanVideoTransformer3DModel) -> None:
    """Install RIFLEx positions and attention without padding in a transformer."""
    config = transformer.config
    if not isinstance(transformer.rope, RiflexRotaryEmbed):
        patch = config.patch_size_t, config.patch_size, config.patch_size
        transformer.rope = RiflexRotaryEmbed(tuple(config.rope_axes_dim), config.rope_theta, patch)
    for module in transformer.modules():
        if isinstance(getattr(module, "processor", None), HunyuanVideoAttnProcessor2_0):
            module.processor = HunyuanAttnProcessor()


class HunyuanAttnProcessor(AttentionProcessor):
    """Joint attention of image and text tokens, for texts without padding.

    Without a mask every kernel can be used, and tokens can be sharded over ranks in any order.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,  # noqa: ARG002 - diffusers passes it
        image_rotary_emb: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend and project image tokens [B, L, D] and text tokens [B, T, D].

        Queries and keys of the image are rotated by ``image_rotary_emb`` [L, 1, K/2, 2].
        """
        image, text = hidden_states, encoder_hidden_states
        own = attn.add_q_proj is not None  # text has its own projections
        read = image if own else torch.cat([image, text], dim=1)
        query = operators.rms_norm_rotary(
            attn.to_q(read), attn.norm_q.weight, image_rotary_emb, attn.heads, attn.norm_q.eps
        )
        key = operators.rms_norm_rotary(
            attn.to_k(read), attn.norm_k.weight, image_rotary_emb, attn.heads, attn.norm_k.eps
        )
        value = _split(attn.to_v(read), attn.heads)
        if own:
            layers = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            heads = [_split(layer(text), attn.heads) for layer in layers]
            query = torch.cat([query, attn.norm_added_q(heads[0])], dim=1)
            key = torch.cat([key, attn.norm_added_k(heads[1])], dim=1)
            value = torch.cat([value, heads[2]], dim=1)
        out = self.attend(query, key, value, sharded=True).flatten(2).type_as(query)
        image, text = out.split([image.shape[1], text.shape[1]], dim=1)
        if own:
            image, text = attn.to_out[0](image), attn.to_add_out(text)
        return image, text


def _split(x: Tensor, heads: int) -> Tensor:
    return rearrange(x, "b l (n k) -> b l n k", n=heads)


class RiflexRotaryEmbed(nn.Module):
    """Rotary embedding of (frame, row, column); uses RIFLEx beyond 192 frames if ``riflex`` is set.

    RIFLEx lowers the temporal frequency whose period is shorter than the video, so that the video does not
    repeat (Zhao et al. 2025, https://arxiv.org/abs/2502.15894; spec hunyuan section 6).
    """

    def __init__(
        self, dims: tuple[int, int, int], theta: float, patch: tuple[int, int, int] = (1, 2, 2)
    ) -> None:
        super().__init__()
        self.dims, self.theta, self.patch, self.riflex = dims, theta, patch, True
        self.tables = FifoCache(1)

    def lowered_frequency(self, frames: int) -> int | None:
        """Return the index of the temporal frequency that RIFLEx lowers; None if there is none."""
        slow = min(max(4, 2 + (4 * (frames - 1) + 4) // 100), 8) - 1
        return slow if self.riflex and frames >= LONG else None

    def inactive_reason(self, frames: int) -> str | None:
        """Return why RIFLEx has no effect although the video is long enough; None if it has."""
        slow, has = self.lowered_frequency(frames), self.dims[0] // 2
        if slow is None or slow < has:
            return None
        return f"RIFLEx changes nothing: it needs {slow + 1} temporal frequencies, and the model has {has}"

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the rotation of latents [B, C, F, h, w], made once per shape (in compiled code, each time).

        Cosines and sines of every channel pair [F * h/2 * w/2, 1, K/2, 2] for patches of 2, float32.
        """
        frames, height, width = (
            size // step for size, step in zip(hidden_states.shape[2:], self.patch, strict=True)
        )
        sizes, device = (frames, height, width), hidden_states.device
        if torch.compiler.is_compiling():
            return self._table(sizes, device)
        return self.tables.get_or_compute((sizes, device, self.riflex), lambda: self._table(sizes, device))

    def _table(self, sizes: tuple[int, int, int], device: torch.device) -> Tensor:
        frames = sizes[0]
        axes = [torch.arange(size, device=device, dtype=torch.float32) for size in sizes]
        grid = torch.meshgrid(*axes, indexing="ij")
        angles = []
        for dim, positions in zip(self.dims, grid, strict=True):
            frequencies = 1.0 / self.theta ** (torch.arange(0, dim, 2, device=device).float() / dim)
            angles.append(torch.outer(positions.reshape(-1), frequencies))
        if (slow := self.lowered_frequency(frames)) is not None and slow < angles[0].shape[1]:
            angles[0][:, slow] = grid[0].reshape(-1) * (PERIOD * 2 * torch.pi / frames)
        angle = torch.cat(angles, dim=1)[:, None]
        return torch.stack([angle.cos(), angle.sin()], dim=-1)


def make_vae(values: Arguments) -> AutoencoderKLHunyuanVideo:
    """Build the VAE with the tiles of its config; ``use_tiling`` switches tiling, for decoding only."""
    tiles = {name: values[name] for name in ("sample_size", "sample_tsize")}
    vae = AutoencoderKLHunyuanVideo(**{name: value for name, value in values.items() if name not in tiles})
    vae.register_to_config(**tiles)
    size, frames = tiles.values()
    vae.enable_tiling(size, size, frames, int(STRIDE * size), int(STRIDE * size), int(STRIDE * frames))
    return vae


@torch.no_grad()
def encode_image(
    vae: AutoencoderKLHunyuanVideo, image: Tensor, onload: Callable[[nn.Module], None]
) -> Tensor:
    """Encode an image [B, 3, 1, H, W] in [-1, 1] to scaled latents [B, C, 1, h, w]: the mean, untiled."""
    onload(vae)
    moments = vae.quant_conv(vae.encoder(image.to(vae.device, vae.dtype)))
    latents = DiagonalGaussianDistribution(moments).mode().float() * vae.config.scaling_factor
    return latents.contiguous()


@torch.no_grad()
def decode_stream(
    vae: AutoencoderKLHunyuanVideo, latents: Tensor, onload: Callable[[nn.Module], None]
) -> Iterator[Tensor]:
    """Decode scaled latents [B, C, F, h, w] to 4 (F-1) + 1 frames; yields [B, 3, f, H, W] in about [-1, 1].

    With ``vae.use_tiling`` tiles overlap as published, in space and in time, and each is blended with the
    previous one. At most two temporal tiles exist at a time, in RAM.
    """
    onload(vae)
    latents = latents.to(vae.device).float() / vae.config.scaling_factor
    latents = latents.to(vae.post_quant_conv.weight.dtype)
    ratio, tile = vae.temporal_compression_ratio, vae.tile_sample_min_num_frames
    stride = vae.tile_sample_stride_num_frames
    if not vae.use_tiling or latents.shape[2] <= tile // ratio:
        yield _decoded(vae, latents)
        return
    left = ratio * (latents.shape[2] - 1) + 1
    before: Tensor | None = None
    for start in range(0, latents.shape[2], stride // ratio):
        frames = _decoded(vae, latents[:, :, start : start + tile // ratio + 1])
        if before is not None:
            frames = frames[:, :, 1:]
            blend_edge(before, frames, tile - stride, dim=2)
        shown = frames[:, :, : min(left, stride + (before is None))]
        before, left = frames, left - shown.shape[2]
        for part in shown.split(ratio, dim=2) if shown.shape[2] else ():
            yield part.to(vae.device).contiguous()


def _decoded(vae: AutoencoderKLHunyuanVideo, latents: Tensor) -> Tensor:
    """Decode to float32 video; frames larger than a tile are decoded in spatial tiles, blended in RAM."""
    largest = max(latents.shape[-2:]) * vae.spatial_compression_ratio
    if vae.use_tiling and largest > vae.tile_sample_min_height:
        return _decode_tiles(vae, latents)
    return vae.decoder(vae.post_quant_conv(latents)).float().contiguous()


def _decode_tiles(vae: AutoencoderKLHunyuanVideo, latents: Tensor) -> Tensor:
    """Return the blended tiles as the VAE's own ``tiled_decode`` does; the device holds one at a time."""
    (_, _, frames, height, width), ratio = latents.shape, vae.spatial_compression_ratio
    tile, stride = vae.tile_sample_min_height, vae.tile_sample_stride_height
    frames = vae.temporal_compression_ratio * (frames - 1) + 1
    video = torch.empty(len(latents), vae.config.out_channels, frames, height * ratio, width * ratio)
    copies = HostCopies(latents.device)
    above: list[Tensor] = []  # blended tiles of the row above
    row: list[Tensor] = []

    def blend(top: int, left: int, decoded: Tensor) -> None:
        nonlocal above, row
        if left == 0:
            above, row = row, []
        decoded = decoded.to(torch.float32, copy=True)
        if above:
            blend_edge(above[len(row)], decoded, tile - stride, dim=3)
        if row:
            blend_edge(row[-1], decoded, tile - stride, dim=4)
        row.append(decoded)
        place = video[..., top : top + stride, left : left + stride]
        place.copy_(decoded[..., : place.shape[3], : place.shape[4]])

    for top in range(0, height, stride // ratio):
        for left in range(0, width, stride // ratio):
            part = latents[..., top : top + tile // ratio, left : left + tile // ratio]
            decoded = vae.decoder(vae.post_quant_conv(part))
            copies.start(decoded, partial(blend, top * ratio, left * ratio))
            del decoded
    copies.finish()
    return video


def blend_edge(before: Tensor, after: Tensor, extent: int, *, dim: int) -> None:
    """Blend the end of ``before`` into the start of ``after``, over ``extent`` items of an axis."""
    extent = min(before.shape[dim], after.shape[dim], extent)
    shape = [extent if axis == dim else 1 for axis in range(after.ndim)]
    ramp = (torch.arange(extent, dtype=torch.float64, device=after.device) / extent).view(shape)
    end, begin = before.narrow(dim, before.shape[dim] - extent, extent), after.narrow(dim, 0, extent)
    begin.copy_(end * (1 - ramp).float() + begin * ramp.float())
