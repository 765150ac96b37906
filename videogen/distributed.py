"""Ranks of one job: which one this process is, and how they share the work. Needs no torch.

torchrun, or SLURM's srun, starts N ranks of the same command and tells each its number. Rank 0 is the main
process: it alone reads the options, plans, writes and prints; the others are workers that follow it (see
engine/session.py and runtime/parallel.py).
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
# What srun sets; used where the place to meet is set as well, as otherwise its processes are independent.
SLURM_VARIABLES = {
    "rank": "SLURM_PROCID", "size": "SLURM_STEP_NUM_TASKS", "local_rank": "SLURM_LOCALID",
}  # fmt: skip
MEETING_PLACE = ("MASTER_ADDR", "MASTER_PORT")
GRACE = 10.0  # seconds for rank 0 to report an invalid command


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """Position of this process among those that were started together, on all machines and on this one."""

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
    """Return the ranks from the environment; a single process without torchrun and srun."""
    found = {field: os.environ.get(name, "") for field, name in VARIABLES.items()}
    if not all(word.isdigit() for word in found.values()):
        found = _from_slurm()
    if not all(word.isdigit() for word in found.values()):
        return Ranks()
    return Ranks(**{field: int(word) for field, word in found.items()}, launched=True)


planned: Ranks | None = None  # ranks that videos are planned for, where those of others make them (--ray)


def planned_ranks() -> Ranks:
    """Return the ranks that make a video: those of this process, unless others make it."""
    return planned or get_ranks()


def _from_slurm() -> dict[str, str]:
    """Return the ranks that srun tells, as words; not numbers where it does not."""
    found = {field: os.environ.get(name, "") for field, name in SLURM_VARIABLES.items()}
    if not all(os.environ.get(name) for name in MEETING_PLACE):
        return {**found, "local_size": ""}
    sizes: list[str] = []  # of every machine; SLURM writes "8(x2),4" for 8, 8 and 4
    for size, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")):
        sizes += [size] * int(times or 1)
    machine = int(os.environ.get("SLURM_NODEID", "0"))
    return {**found, "local_size": sizes[machine] if machine < len(sizes) else ""}


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
