"""VAE parallel: streaming decoders sharded over ranks by rows, with halo exchange; exact.

A convolution needs one halo row on each side, received from the neighbour ranks; the attention in the middle
uses the keys and values of all rows. Everything else in the decoder is per pixel. Encoding is not sharded,
because its result seeds the trajectory and must be bit-exact.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor, nn

from videogen.models.vae_layers import use_fused_layers
from videogen.runtime.token_sharding import ShardSpec

Decoder = Callable[[Tensor], Tensor]
"""One latent frame [B, C, 1, h, w] to video frames [B, 3, f, H, W]."""


class SpatialSharding:
    """Sharding of image rows over the ranks of a group, with halo exchange; created by ``shard_decoder``."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.ranks, self.rank = dist.get_world_size(group), dist.get_rank(group)
        self.spec: ShardSpec | None = None  # of the latent rows of the current frame; None outside a decode

    def shard(self, whole: Decoder) -> Decoder:
        """Return a decoder that decodes only this rank's rows and gathers the whole result on every rank."""

        def decode(frame: Tensor) -> Tensor:
            self.spec = spec = ShardSpec(frame.shape[-2], self.ranks)
            rows_here = spec.local_range(self.rank)
            try:
                video = whole(frame[..., rows_here.start : rows_here.stop, :].contiguous())
            finally:
                self.spec = None
            scale = video.shape[-2] // len(rows_here)
            rows = rearrange(video, "b c f (h s) w -> h b c f s w", s=scale)
            return rearrange(self._gather_rows(rows, spec), "h b c f s w -> b c f (h s) w")

        return decode

    def _gather_rows(self, rows: Tensor, spec: ShardSpec) -> Tensor:
        """Gather the rows [h, ...] of all ranks."""
        if missing := spec.shard_length - len(rows):
            rows = torch.cat([rows, *[rows[-1:]] * missing])
        return spec.unshard(rows, 0, self.group)

    @property
    def halo(self) -> int:
        """Halo rows on each side of a shard; 0 if the frame is not sharded."""
        return int(self.spec is not None)

    def fill_halo(self, frames: Tensor) -> None:
        """Fill the first and last row of frames [..., H, W, C] from neighbours; zeros at image edges."""
        # (neighbour rank, halo row, own row that the neighbour needs)
        sides = ((self.rank - 1, 0, 1), (self.rank + 1, -1, -2))
        operations, arriving = [], []
        for rank, outer, own in sides:
            if not 0 <= rank < self.ranks:
                frames[..., outer, :, :] = 0
                continue
            leaving = frames[..., own, :, :].contiguous()
            arriving.append((outer, torch.empty_like(leaving)))
            for act, rows in ((dist.isend, leaving), (dist.irecv, arriving[-1][1])):
                operations.append(dist.P2POp(act, rows, group=self.group, group_peer=rank))
        for work in dist.batch_isend_irecv(operations):
            work.wait()
        for outer, rows in arriving:
            frames[..., outer, :, :] = rows

    def gather_all_rows(self, x: Tensor) -> Tensor:
        """Gather rows [B, C, h, w] of all ranks; returns ``x`` itself if the frame is not sharded."""
        if self.spec is None:
            return x
        rows = self._gather_rows(rearrange(x, "b c h w -> h b c w"), self.spec)
        return rearrange(rows, "h b c w -> b c h w")


def shard_decoder(vae: nn.Module, group: dist.ProcessGroup) -> None:
    """Shard a VAE's streaming decode over ranks, if its layers can be sharded.

    Frames with too few rows and tiled decodes are not sharded.
    """
    use_fused_layers(vae)
    sharding = SpatialSharding(group)
    layers = [layer for layer in vae.get_submodule("decoder").modules() if hasattr(layer, "spatial_sharding")]
    for module in (vae, *layers) if layers else ():
        module.spatial_sharding = sharding  # type: ignore[assignment]
