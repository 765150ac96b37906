"""Several processes at one video: which of them this is, and how they share the work. Without torch.

torchrun starts N ranks of the same command and tells each its number. Rank 0 leads: it alone reads the
options, plans, writes and prints; the others follow it (see run.py and runtime/parallel.py).
"""

import os
import re
import sys
import time
from dataclasses import dataclass
from functools import cache
from typing import Protocol

# What torchrun tells each process.
VARIABLES = {
    "rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_size": "LOCAL_WORLD_SIZE",
}  # fmt: skip
GRACE = 10.0  # seconds in which rank 0 has said what is wrong with a command


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process among those that torchrun started, on all machines and on this one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launched: bool = False

    @property
    def leads(self) -> bool:
        return self.rank == 0


@cache
def here() -> Ranks:
    """As the environment says; one process without torchrun."""
    found = {field: os.environ.get(name, "") for field, name in VARIABLES.items()}
    if not all(word.isdigit() for word in found.values()):
        return Ranks()
    return Ranks(**{field: int(word) for field, word in found.items()}, launched=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Degrees:
    """Ranks along each way of sharing: branches of the guidance, and the tokens of a forward, twice."""

    cfg: int = 1
    ring: int = 1
    ulysses: int = 1

    @property
    def sequence(self) -> int:
        """Ranks that share the tokens of one forward."""
        return self.ring * self.ulysses

    @property
    def size(self) -> int:
        return self.cfg * self.sequence


class Joined(Protocol):
    """The process group, once there is one (see runtime/parallel.py)."""

    def first_to_fail(self) -> bool: ...


LOST = re.compile(r"gloo|NCCL|Connection (reset|closed|refused)|Broken pipe", re.IGNORECASE)


def lost_another(error: BaseException) -> bool:
    """Whether an error says no more than that another rank is gone."""
    return joined is not None and isinstance(error, RuntimeError) and bool(LOST.search(str(error)))


joined: Joined | None = None  # set by runtime/parallel.py


def may_complain() -> bool:
    """Whether it is up to this rank to say what went wrong: one of them does."""
    if joined is not None:
        return joined.first_to_fail()
    if not here().leads:
        time.sleep(GRACE)  # rank 0 finds the same, and its end ends all of them
    return True


def leave(code: int) -> None:
    """After a failure: go at once, for the others may never answer again; torchrun then ends them."""
    if joined is not None and here().size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
