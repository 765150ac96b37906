"""Conditioning as data: segments of latent frames, packed into the transformer's input.

A segment has its own noise level and temporal position. Reference frames have the video's noise level and
follow it; a prefix has level 0 and comes first; a shot context has level 0 at position 1024. The transformer
does not distinguish them: it gets one stack of frames, with a noise level and a position each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Segment:
    """Latent frames [B, C, F, h, w] with a common origin.

    Args:
        timestep: noise level 0..1000, one for all frames (0-d) or one per frame ([F] or [B, F]); on the CPU.
        temporal_start: position of the first frame; the others follow.
        extra: channels appended to the latents [B, E, F, h, w] (mask and image of image-conditioned models).
    """

    latents: Tensor
    timestep: Tensor
    temporal_start: int = 0
    extra: Tensor | None = None

    @property
    def frames(self) -> int:
        """Number of latent frames."""
        return self.latents.shape[2]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Packed:
    """All segments in one: latents [B, C+E, F, h, w]; on the CPU timestep [B, F] or [B, 1], positions [F]."""

    latents: Tensor
    timestep: Tensor
    positions: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Context:
    """Inputs of cross-attention and embeddings; None where the model has no such input.

    text [B, T, text_dim], image [B, I, image_dim], audio [B, 4(F-1)+1, window, layers, channels], fps class
    [B].
    """

    text: Tensor
    image: Tensor | None = None
    audio: Tensor | None = None
    fps: Tensor | None = None


def pack(segments: Sequence[Segment]) -> Packed:
    """Concatenate segments in time."""
    with_extra = [s.latents if s.extra is None else torch.cat([s.latents, s.extra], dim=1) for s in segments]
    latents = torch.cat(with_extra, dim=2)
    positions = [torch.arange(s.frames) + s.temporal_start for s in segments]
    return Packed(
        latents=latents, timestep=_timesteps(segments, len(latents)), positions=torch.cat(positions)
    )


def unpack(output: Tensor, segments: Sequence[Segment]) -> list[Tensor]:
    """Split [B, C, F, h, w] back into the frames of each segment."""
    return list(output.split([segment.frames for segment in segments], dim=2))


def _timesteps(segments: Sequence[Segment], batch: int) -> Tensor:
    """Return [B, 1] if all frames share one noise level, else [B, F]."""
    first = segments[0].timestep
    if all(segment.timestep.ndim == 0 and bool(segment.timestep == first) for segment in segments):
        return first.expand(batch, 1)
    return torch.cat([segment.timestep.float().expand(batch, segment.frames) for segment in segments], dim=1)
