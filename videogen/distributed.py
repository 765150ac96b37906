"""Ranks of one job: which one this process is, and how they share the work. Needs no torch.

torchrun starts N ranks of the same command and tells each its number. Rank 0 is the main process: it alone
reads the options, plans, writes and prints; the others are workers that follow it (see engine/session.py and
runtime/parallel.py).
"""

import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from videogen.errors import InputError

# Kernels that return the log-sum-exp, with which a ring merges partial results; "native" does so only on the
# CPU.
RING_BACKENDS = ("auto", "cudnn", "flash", "sage")
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
        """Whether this rank is rank 0."""
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


def check_launch(values: Mapping[str, Any]) -> None:
    """Refuse options that do not fit the way the command was started.

    Raises:
        InputError: --use_usp without torchrun, torchrun without --use_usp, a device for all ranks.
    """
    ranks = get_ranks()
    if not values["use_usp"]:
        if ranks.size > 1:
            what = f"torchrun started {ranks.size} processes, which would all do the same"
            raise InputError("--use_usp", None, what, "add it, or start without torchrun")
        for name in ("ulysses_degree", "ring_degree", "cfg_parallel"):
            if values.get(name):
                raise InputError(f"--{name}", None, "is for several GPUs", "add --use_usp, or leave it out")
        return
    if not ranks.launched:
        fix = f"torchrun --nproc_per_node=2 {os.path.basename(sys.argv[0]) or 'generate_video.py'} ..."  # noqa: PTH119
        raise InputError("--use_usp", None, "one process was started, and it needs one for every GPU", fix)
    if str(values["device"]).startswith(("cuda:", "mps")):
        raise InputError("--device", values["device"], "every rank takes a GPU of its own", "try cuda")


def choose_degrees(values: Mapping[str, Any], *, branches: int, heads: int, tokens: int) -> Degrees:
    """Return the parallel degrees for the ranks that were started.

    Args:
        values: option values.
        branches: forwards per step.
        heads: attention heads of the network; 0 if not known yet.
        tokens: tokens of one latent frame.

    Raises:
        InputError: degrees that do not fit; the message says which do.
    """
    size = get_ranks().size if values["use_usp"] else 1
    cfg = _branch_groups(values, size, branches)
    sequence = size // cfg
    ring, ulysses = _sequence_degrees(values, sequence)
    degrees = Degrees(cfg=cfg, ring=ring, ulysses=ulysses)
    if heads and heads % ulysses:
        work = [n for n in range(1, heads + 1) if heads % n == 0]
        what = f"the model has {heads} attention heads; {', '.join(map(str, work))} work"
        fits = max(n for n in work if sequence % n == 0)
        more = (f"--ulysses_degree {fits} " if fits > 1 else "") + f"--ring_degree {sequence // fits}"
        fix = f"start {max(n for n in work if n <= ulysses) * ring * cfg} ranks, or use {more}"
        given = values.get("ulysses_degree")
        raise InputError("--ulysses_degree" if given else "--use_usp", given or f"on {size} ranks", what, fix)
    if degrees.sequence > tokens:
        what = f"a frame has {tokens} tokens for {degrees.sequence} ranks"
        raise InputError("--use_usp", None, what, f"start {tokens * cfg} ranks at most, or make it larger")
    _check_ring(values, degrees)
    return degrees


def _sequence_degrees(values: Mapping[str, Any], sequence: int) -> tuple[int, int]:
    """Return (ring, ulysses); a degree that is not given follows from the number of ranks."""
    given = {name: values[name] for name in ("ring_degree", "ulysses_degree") if values.get(name)}
    if len(given) < 2:
        for name, degree in given.items():
            if sequence % degree:
                work = sorted(range(1, sequence + 1), key=lambda n: abs(n - degree))
                near = next(n for n in work if sequence % n == 0)
                what = f"must divide the ranks that share a sequence, {sequence}"
                raise InputError(f"--{name}", degree, what, f"nearest {near}")
        ring = given.get("ring_degree") or sequence // given.get("ulysses_degree", sequence)
        return ring, sequence // ring
    ring, ulysses = given["ring_degree"], given["ulysses_degree"]
    if ring * ulysses != sequence:
        what = f"times --ring_degree {ring} is not the number of ranks that share a sequence, {sequence}"
        raise InputError("--ulysses_degree", ulysses, what, f"nearest {max(1, sequence // ring)}")
    return ring, ulysses


def _branch_groups(values: Mapping[str, Any], size: int, branches: int) -> int:
    """Return the number of rank groups that evaluate guidance branches in parallel."""
    if not values.get("cfg_parallel"):
        return 1
    if branches == 1:
        what = "there is one forward per step, without guidance"
        raise InputError("--cfg_parallel", None, what, "leave it out, or give a guidance scale")
    if values.get("teacache") and not values.get("teacache_fixed"):
        what = "TeaCache as published counts the calls of all branches together"
        raise InputError("--cfg_parallel", None, what, "add --teacache_fixed, or leave one of the two out")
    fitting = [groups for groups in range(2, branches + 1) if size % groups == 0]
    if not fitting:
        ways = " or ".join(str(n) for n in range(2, branches + 1))
        what = f"{branches} branches need a multiple of {ways} ranks, and there are {size}"
        raise InputError("--cfg_parallel", None, what, f"start {size + 1} ranks, or leave it out")
    return max(fitting)


def _check_ring(values: Mapping[str, Any], degrees: Degrees) -> None:
    if degrees.ring == 1:
        return
    backend = values["attention_backend"]
    on_cpu = backend == "native" and values["device"] in ("cpu", "auto")
    if backend not in RING_BACKENDS and not on_cpu:
        what = f"--attention_backend {backend} cannot work in a ring"
        raise InputError("--ring_degree", degrees.ring, what, f"use {', '.join(RING_BACKENDS[1:])} or auto")
    if values.get("causal_attention"):
        what = "blocks that see only earlier ones cannot work in a ring"
        fix = f"--ulysses_degree {degrees.sequence}"
        raise InputError("--ring_degree", degrees.ring, what, fix)


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
