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
from videogen.runtime.parallel import Communicator


class LonelyCommunicator(Communicator):
    """A communicator whose other ranks do as this one; it counts as the main process, whatever its number."""

    @property
    def is_main_process(self) -> bool:
        return True

    def broadcast(self, content: Any) -> Any:
        return content

    def local_rank_first(self, make: Callable[[], Any]) -> Any:
        return make()


@contextmanager
def one_rank_of(size: int, rank: int = 0) -> Iterator[Communicator]:
    """Be one rank of several, as torchrun says it in the environment."""
    told = {
        name: str({"rank": rank, "local_rank": rank}.get(field, size))
        for field, name in distributed.VARIABLES.items()
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    with Patches() as patches:  # it also clears what get_ranks() caches
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
        communicator = LonelyCommunicator(
            Ranks(rank=rank, size=size, local_rank=rank, local_size=size, launched=True)
        )
        patches.set(distributed, "communicator", communicator)
        try:
            yield communicator
        finally:
            dist.destroy_process_group()
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
