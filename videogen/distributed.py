"""Ranks of one job: which one this process is, and how they share the work. Needs no torch.

torchrun starts N ranks of the same command and tells each its number. Rank 0 is the main process: it alone
reads the options, plans, writes and prints; the others are workers that follow it (see engine/session.py and
runtime/parallel.py).
"""

import os
import re
import sys
import time
from dataclasses import dataclass
from functools import cache
from typing import Protocol

# Environment variables that torchrun sets.
VARIABLES = {
    "rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_size": "LOCAL_WORLD_SIZE",
}  # fmt: skip
GRACE = 10.0  # seconds for rank 0 to report an invalid command


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """Position of this process among those that torchrun started, on all machines and on this one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launched: bool = False

    @property
    def is_main_process(self) -> bool:
        """Return whether this rank is rank 0."""
        return self.rank == 0


@cache
def get_ranks() -> Ranks:
    """Return the ranks from the environment; a single process without torchrun."""
    found = {field: os.environ.get(name, "") for field, name in VARIABLES.items()}
    if not all(word.isdigit() for word in found.values()):
        return Ranks()
    return Ranks(**{field: int(word) for field, word in found.items()}, launched=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Degrees:
    """Parallel degrees: guidance branches (cfg), and the tokens of a forward (ring and ulysses)."""

    cfg: int = 1
    ring: int = 1
    ulysses: int = 1

    @property
    def sequence(self) -> int:
        """Ranks that share the tokens of one forward."""
        return self.ring * self.ulysses

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.cfg * self.sequence


class FailureReporter(Protocol):
    """Communicator, as far as error reporting needs it (see runtime/parallel.py)."""

    def is_first_failure(self) -> bool:
        """Return True if no other rank has failed before."""


LOST = re.compile(r"gloo|NCCL|Connection (reset|closed|refused)|Broken pipe", re.IGNORECASE)


def is_peer_loss(error: BaseException) -> bool:
    """Return True if an error only says that another rank is gone."""
    return communicator is not None and isinstance(error, RuntimeError) and bool(LOST.search(str(error)))


communicator: FailureReporter | None = None  # set by runtime/parallel.py


def should_report_error() -> bool:
    """Return True if this rank should print the error; exactly one rank does."""
    if communicator is not None:
        return communicator.is_first_failure()
    if not get_ranks().is_main_process:
        time.sleep(GRACE)  # rank 0 fails in the same way, and torchrun then ends all ranks
    return True


def exit_after_failure(code: int) -> None:
    """Exit at once after a failure, since other ranks may hang; torchrun then ends them."""
    if communicator is not None and get_ranks().size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
