"""Who holds what of a sequence that is spread over ranks: shares, padding, and the way back."""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.distributed as dist
from torch import Tensor


def all_gather(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """What every rank has, one after the other [ranks, ...]; shapes are alike."""
    ranks = dist.get_world_size(group)
    gathered = x.new_empty(ranks * x.numel())
    dist.all_gather_into_tensor(gathered, x.flatten(), group=group)
    return gathered.view(ranks, *x.shape)


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """``length`` items in shares as equal as can be; a share that is one shorter is padded with its last."""

    length: int
    ranks: int

    @property
    def shard_length(self) -> int:
        """Items of a share, padding included."""
        return -(-self.length // self.ranks)

    def local_range(self, rank: int) -> range:
        """The items of a rank's own."""
        base, longer = divmod(self.length, self.ranks)
        first = rank * base + min(rank, longer)
        return range(first, first + base + (rank < longer))

    def shard(self, x: Tensor, dim: int, rank: int) -> Tensor:
        """A rank's share of ``x``."""
        if self.length % self.ranks == 0:
            return x.narrow(dim, rank * self.shard_length, self.shard_length)
        return x.index_select(dim, _shard_indices(self, rank, x.device))

    def unshard(self, x: Tensor, dim: int, group: dist.ProcessGroup) -> Tensor:
        """The whole, on every rank, of shares."""
        whole = torch.cat(list(all_gather(x, group)), dim=dim)
        if self.length % self.ranks == 0:
            return whole
        return whole.index_select(dim, _unshard_indices(self, x.device))


@lru_cache
def _shard_indices(spec: ShardSpec, rank: int, device: torch.device) -> Tensor:
    local = spec.local_range(rank)
    return torch.arange(spec.shard_length, device=device).clamp(max=len(local) - 1) + local.start


@lru_cache
def _unshard_indices(spec: ShardSpec, device: torch.device) -> Tensor:
    """Where every item is in padded shares, one after the other."""
    places = [
        rank * spec.shard_length + index
        for rank in range(spec.ranks)
        for index in range(len(spec.local_range(rank)))
    ]
    return torch.tensor(places, device=device)


@dataclass(frozen=True, slots=True)
class SequenceSharding:
    """Which tokens a rank holds: of each section (groups of equal length, one after the other) its share of
    every group."""

    sections: tuple[tuple[int, ShardSpec], ...]

    @lru_cache  # noqa: B019 - layouts are values, and few
    def token_ids(self, first: int, end: int) -> Tensor:
        """Number of every token that ranks ``first`` to ``end`` hold, rank by rank; -1 is padding."""
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
        """Places of the tokens of those ranks in the order of their numbers, without padding.

        In that order attention adds up as it does in one process.
        """
        ids = self.token_ids(first, end)
        return ids.argsort(stable=True)[int((ids < 0).sum()) :].to(device)

    @lru_cache  # noqa: B019
    def shard_order(self, size: int, device: torch.device) -> Tensor:
        """From the order of all tokens to the shares of ``size`` ranks, padded with anything."""
        return self.token_ids(0, size).clamp(min=0).to(device)
