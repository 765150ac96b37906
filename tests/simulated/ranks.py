"""One rank of several that share a video, without the others: PyTorch's fake process group answers for them.

It gives results of the right shape and no content. What ranks agree on beforehand (plans, decisions) is
taken from this rank.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from tests.simulated.patches import Patches
from videogen import distributed
from videogen.distributed import Ranks
from videogen.runtime.parallel import Team


class LonelyTeam(Team):
    """A team whose other members say what this one does; it leads, whatever its number."""

    @property
    def leads(self) -> bool:
        return True

    def share(self, content: Any) -> Any:
        return content

    def once_per_machine(self, make: Callable[[], Any]) -> Any:
        return make()


@contextmanager
def one_rank_of(size: int, rank: int = 0) -> Iterator[Team]:
    """Be one rank of several, as torchrun says it in the environment."""
    told = {
        name: str({"rank": rank, "local_rank": rank}.get(field, size))
        for field, name in distributed.VARIABLES.items()
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    with Patches() as patches:  # it also clears what ranks.here() remembers
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
        team = LonelyTeam(Ranks(rank=rank, size=size, local_rank=rank, local_size=size, launched=True))
        patches.set(distributed, "joined", team)
        try:
            yield team
        finally:
            dist.destroy_process_group()
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
