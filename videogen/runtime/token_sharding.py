"""Token sharding: which tokens each rank holds, padding, and how shards are put together again."""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.distributed as dist
from torch import Tensor


def all_gather(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Return the tensors of all ranks, stacked [ranks, ...]; their shapes must be equal."""
    ranks = dist.get_world_size(group)
    gathered = x.new_empty(ranks * x.numel())
    dist.all_gather_into_tensor(gathered, x.flatten(), group=group)
    return gathered.view(ranks, *x.shape)


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """Split of ``length`` items over ranks, as even as possible.

    Shorter shards are padded with their last item.
    """

    length: int
    ranks: int

    @property
    def shard_length(self) -> int:
        """Items per shard, including padding."""
        return -(-self.length // self.ranks)

    def local_range(self, rank: int) -> range:
        """Return the indices of a rank's own items."""
        base, longer = divmod(self.length, self.ranks)
        first = rank * base + min(rank, longer)
        return range(first, first + base + (rank < longer))

    def shard(self, x: Tensor, dim: int, rank: int) -> Tensor:
        """Return a rank's shard of ``x`` along ``dim``."""
        if self.length % self.ranks == 0:
            return x.narrow(dim, rank * self.shard_length, self.shard_length)
        return x.index_select(dim, _shard_indices(self, rank, x.device))

    def unshard(self, x: Tensor, dim: int, group: dist.ProcessGroup) -> Tensor:
        """Gather the shards of all ranks along ``dim`` and drop the padding."""
        whole = torch.cat(list(all_gather(x, group)), dim=dim)
        if self.length % self.ranks == 0:
            return whole
        order = SequenceSharding(((1, self),)).sequence_order(0, self.ranks, x.device)
        return whole.index_select(dim, order)


@lru_cache
def _shard_indices(spec: ShardSpec, rank: int, device: torch.device) -> Tensor:
    local = spec.local_range(rank)
    return torch.arange(spec.shard_length, device=device).clamp(max=len(local) - 1) + local.start


@dataclass(frozen=True, slots=True)
class SequenceSharding:
    """Sharding of a sequence made of sections.

    A section is (number of groups, spec of one group): groups of equal length follow one another, and a rank
    holds its shard of every group.
    """

    sections: tuple[tuple[int, ShardSpec], ...]

    @lru_cache  # noqa: B019 - instances are small values, and few
    def token_ids(self, first: int, end: int) -> Tensor:
        """Return the id of every token held by ranks ``first`` to ``end``, rank by rank; -1 is padding."""
        numbers = []
        for rank in range(first, end):
            before = 0
            for groups, spec in self.sections:
                local = spec.local_range(rank)
                ids = torch.full((groups, spec.shard_length), -1)
                starts = before + torch.arange(groups)[:, None] * spec.length
                ids[:, : len(local)] = starts + torch.tensor(local)
                numbers.append(ids.flatten())
                before += groups * spec.length
        return torch.cat(numbers)

    @lru_cache  # noqa: B019
    def sequence_order(self, first: int, end: int, device: torch.device) -> Tensor:
        """Return the indices that sort those ranks' tokens by id, without padding.

        In this order attention sums in the same order as in one process.
        """
        ids = self.token_ids(first, end)
        return ids.argsort(stable=True)[int((ids < 0).sum()) :].to(device)

    @lru_cache  # noqa: B019
    def shard_order(self, size: int, device: torch.device) -> Tensor:
        """Return the indices from the sorted sequence back to the padded shards of ``size`` ranks."""
        return self.token_ids(0, size).clamp(min=0).to(device)
