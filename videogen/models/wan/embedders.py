"""Embedders before the Wan transformer's blocks: positions, noise levels, text, image and audio.

Shape letters are those of transformer.py. Source: specs skyreels_v3 section 6, talking_avatar section 6.
"""

import torch
from diffusers.models.embeddings import PixArtAlphaTextProjection, TimestepEmbedding
from diffusers.models.transformers.transformer_wan import WanImageEmbedding
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional

from videogen.models.device_copies import to_device
from videogen.models.fifo_cache import FifoCache

ROPE_THETA = 10000.0
TIME_THETA = 10000.0
TABLES = 2  # cached tables; guidance branches may have different frames


def _exact(device: torch.device) -> torch.dtype:
    """Return float64 if the device supports it (Apple's MPS does not), else float32."""
    return torch.float32 if device.type == "mps" else torch.float64


class WanRotaryEmbed(nn.Module):
    """Rotary embedding of the (frame, row, column) position of every token, as cosines and sines.

    A head's K/2 channel pairs are split over the axes as K/2 - 2c, c, c with c = K // 6.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        spatial = head_dim // 6
        self.widths = (head_dim // 2 - 2 * spatial, spatial, spatial)
        self.tables = FifoCache(TABLES)

    def forward(
        self, frame_positions: Tensor, rows: int, columns: int, device: torch.device | None = None
    ) -> Tensor:
        """Return rotations [F, S, K/2, 2], float32, of frame positions [F] (any integers) and a grid.

        Recent tables are cached; compiled code computes its own. Positions on the CPU avoid a GPU
        synchronization.
        """
        device = device or frame_positions.device
        if torch.compiler.is_compiling():
            return self._table(frame_positions.to(device), rows, columns)
        key = (*frame_positions.tolist(), rows, columns, device)
        with torch.inference_mode(mode=False):  # tables of inference are also used in training
            return self.tables.get_or_compute(
                key, lambda: self._table(to_device(frame_positions, device), rows, columns)
            )

    def _table(self, frame_positions: Tensor, rows: int, columns: int) -> Tensor:
        device = frame_positions.device
        exact, frames = _exact(device), len(frame_positions)
        axes = [frame_positions.to(exact)]
        axes += [torch.arange(size, dtype=exact, device=device) for size in (rows, columns)]
        tables = []
        for positions, width in zip(axes, self.widths, strict=True):
            frequency = ROPE_THETA ** -(torch.arange(width, dtype=exact, device=device) / width)
            angle = torch.outer(positions, frequency)
            tables.append(torch.stack([angle.cos(), angle.sin()], dim=-1).float())
        frame, row, column = tables
        return torch.cat(
            [
                repeat(frame, "f k two -> f (r c) k two", r=rows, c=columns),
                repeat(row, "r k two -> f (r c) k two", f=frames, c=columns),
                repeat(column, "c k two -> f (r c) k two", f=frames, r=rows),
            ],
            dim=-2,
        )


def sinusoid(timestep: Tensor, dim: int) -> Tensor:
    """Embed timesteps [n] (0..1000) to [n, dim], float32: cosines first, then sines."""
    exact = _exact(timestep.device)
    exponent = torch.arange(dim // 2, dtype=exact, device=timestep.device) / (dim // 2)
    angle = timestep.to(exact)[:, None] * TIME_THETA**-exponent
    return torch.cat([angle.cos(), angle.sin()], dim=-1).float()


class WanConditionEmbedder(nn.Module):
    """MLPs that project noise levels, text and image features to the network's width."""

    def __init__(
        self, dim: int, freq_dim: int, text_dim: int, image_dim: int | None, positions: int | None = None
    ) -> None:
        super().__init__()
        self.freq_dim = freq_dim
        self.time_embedder = TimestepEmbedding(in_channels=freq_dim, time_embed_dim=dim)
        self.time_proj = nn.Linear(dim, 6 * dim)
        self.text_embedder = PixArtAlphaTextProjection(text_dim, dim, act_fn="gelu_tanh")
        if image_dim is not None:
            self.image_embedder = WanImageEmbedding(image_dim, dim, positions)

    def forward(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Embed noise levels [B, F]: (embedding [B, F, D], modulation [B, F, 6, D]).

        Every distinct level is computed once; in compiled code, which cannot know how many there are, each.

        Levels on the CPU avoid a GPU synchronization.
        """
        if torch.compiler.is_compiling():
            levels, level_of = timestep.flatten(), torch.arange(timestep.numel()).view(timestep.shape)
        else:
            levels, level_of = torch.unique(timestep.cpu(), return_inverse=True)
        weight = self.time_embedder.linear_1.weight
        waves = to_device(sinusoid(levels, self.freq_dim).to(weight.dtype), weight.device)
        level_of = to_device(level_of, weight.device)
        embedding = self.time_embedder(waves)
        modulation = self.time_proj(functional.silu(embedding).to(self.time_proj.weight.dtype))
        modulation = rearrange(modulation.float(), "n (m d) -> n m d", m=6)
        return embedding.float()[level_of], modulation[level_of]


class WanAudioProjection(nn.Module):
    """Projection of audio windows around every video frame to A audio tokens per latent frame.

    The first latent frame covers one video frame and uses its whole window. Each later one covers four: it
    uses the leading half of the first window, the centre of the middle two and the trailing half of the last.
    """

    def __init__(
        self, *, window: int, features: int, hidden: int, tokens: int, audio_dim: int, stride: int
    ) -> None:
        super().__init__()
        self.tokens, self.stride = tokens, stride
        self.proj1 = nn.Linear(window * features, hidden)
        self.proj1_vf = nn.Linear((window + stride - 1) * features, hidden)
        self.proj2 = nn.Linear(hidden, hidden)
        self.proj3 = nn.Linear(hidden, tokens * audio_dim)
        self.norm = nn.LayerNorm(audio_dim)

    def forward(self, audio: Tensor) -> Tensor:
        """Project windows [B, 4(F-1)+1, window, layers, channels] to tokens [B, F, A, audio_dim]."""
        centre = audio.shape[2] // 2
        groups = rearrange(audio[:, 1:], "b (f v) w l c -> b f v w l c", v=self.stride)
        parts = [groups[:, :, 0, : centre + 1], groups[:, :, 1:-1, centre], groups[:, :, -1, centre:]]
        first = functional.relu(self.proj1(audio[:, :1].flatten(2)))
        later = functional.relu(self.proj1_vf(torch.cat(parts, dim=2).flatten(2)))
        hidden = functional.relu(self.proj2(torch.cat([first, later], dim=1)))
        return self.norm(rearrange(self.proj3(hidden), "b f (a d) -> b f a d", a=self.tokens))
