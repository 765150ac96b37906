"""How several processes share a video, and whether the command was started for that."""

import os
import sys

from videogen import distributed
from videogen.distributed import Degrees
from videogen.errors import InputError
from videogen.tasks.kernels import ATTENTION_KERNELS
from videogen.tasks.options import Options

RING_BACKENDS = [kernel.option for kernel in ATTENTION_KERNELS.values() if kernel.option and kernel.in_ring]


def check_launch(options: Options) -> None:
    """Refuse what does not fit the way the command was started.

    Raises:
        InputError: --use_usp without torchrun, torchrun without --use_usp, a device for all ranks.
    """
    ranks = distributed.planned_ranks()
    if not options.use_usp:
        if ranks.size > 1:
            started = "torchrun started" if distributed.planned is None else "--gpus_per_job asks for"
            fix = "start without torchrun" if distributed.planned is None else "give --gpus_per_job 1"
            what = f"{started} {ranks.size} processes, which would all do the same"
            raise InputError("--use_usp", None, what, f"add it, or {fix}")
        return
    if not ranks.launched:
        fix = f"torchrun --nproc_per_node=2 {os.path.basename(sys.argv[0]) or 'generate_video.py'} ..."  # noqa: PTH119
        raise InputError("--use_usp", None, "one process was started, and it needs one for every GPU", fix)
    if str(options.device).startswith(("cuda:", "mps")):
        raise InputError("--device", options.device, "every rank takes a GPU of its own", "try cuda")


def choose_degrees(options: Options, *, branches: int, heads: int, tokens: int) -> Degrees:
    """Return the parallel degrees for the ranks that were started.

    Args:
        branches: forwards per step.
        heads: of the network's attention; 0 where they are not known yet.
        tokens: of one latent frame.

    Raises:
        InputError: numbers that do not go together; says which do.
    """
    size = distributed.planned_ranks().size if options.use_usp else 1
    cfg = _branch_groups(options, size, branches)
    sequence = size // cfg
    ring, ulysses = _sequence_degrees(options, sequence)
    degrees = Degrees(cfg=cfg, ring=ring, ulysses=ulysses)
    if heads and heads % ulysses:
        work = [n for n in range(1, heads + 1) if heads % n == 0]
        what = f"the model has {heads} attention heads; {', '.join(map(str, work))} work"
        fits = max(n for n in work if sequence % n == 0)
        more = (f"--ulysses_degree {fits} " if fits > 1 else "") + f"--ring_degree {sequence // fits}"
        fix = f"start {max(n for n in work if n <= ulysses) * ring * cfg} ranks, or use {more}"
        given = options.ulysses_degree
        raise InputError("--ulysses_degree" if given else "--use_usp", given or f"on {size} ranks", what, fix)
    if degrees.sequence > tokens:
        what = f"a frame has {tokens} tokens for {degrees.sequence} ranks"
        raise InputError("--use_usp", None, what, f"start {tokens * cfg} ranks at most, or make it larger")
    _check_ring(options, degrees)
    return degrees


def _sequence_degrees(options: Options, sequence: int) -> tuple[int, int]:
    """Return (ring, ulysses) as given; what is not given makes up the number of ranks."""
    ring, ulysses = options.ring_degree, options.ulysses_degree
    if ring and ulysses:
        if ring * ulysses != sequence:
            what = f"times --ring_degree {ring} is not the number of ranks that share a sequence, {sequence}"
            raise InputError("--ulysses_degree", ulysses, what, f"nearest {max(1, sequence // ring)}")
        return ring, ulysses
    degree = ring or ulysses or sequence
    if sequence % degree:
        near = min((n for n in range(1, sequence + 1) if sequence % n == 0), key=lambda n: abs(n - degree))
        what = f"must divide the ranks that share a sequence, {sequence}"
        raise InputError("--ring_degree" if ring else "--ulysses_degree", degree, what, f"nearest {near}")
    return (degree, sequence // degree) if ring else (sequence // degree, degree)


def _branch_groups(options: Options, size: int, branches: int) -> int:
    """Return the number of rank groups that evaluate guidance branches in parallel."""
    if not options.cfg_parallel:
        return 1
    if branches == 1:
        what = "there is one forward per step, without guidance"
        raise InputError("--cfg_parallel", None, what, "leave it out, or give a guidance scale")
    if options.teacache and not options.teacache_fixed:
        what = "TeaCache as published counts the calls of all branches together"
        raise InputError("--cfg_parallel", None, what, "add --teacache_fixed, or leave one of the two out")
    fitting = [groups for groups in range(2, branches + 1) if size % groups == 0]
    if not fitting:
        ways = " or ".join(str(n) for n in range(2, branches + 1))
        what = f"{branches} branches need a multiple of {ways} ranks, and there are {size}"
        raise InputError("--cfg_parallel", None, what, f"start {size + 1} ranks, or leave it out")
    return max(fitting)


def _check_ring(options: Options, degrees: Degrees) -> None:
    if degrees.ring == 1:
        return
    backend = options.attention_backend
    on_cpu = backend == "native" and options.device in ("cpu", "auto")
    if backend not in ("auto", *RING_BACKENDS) and not on_cpu:
        what = f"--attention_backend {backend} cannot work in a ring"
        raise InputError("--ring_degree", degrees.ring, what, f"use {', '.join(RING_BACKENDS)} or auto")
    if options.causal_attention:
        what = "blocks that see only earlier ones cannot work in a ring"
        fix = f"--ulysses_degree {degrees.sequence}"
        raise InputError("--ring_degree", degrees.ring, what, fix)
