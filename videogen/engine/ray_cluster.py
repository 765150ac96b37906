"""The Ray cluster that makes videos: connecting to it, and how many videos it has places for at once."""

import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from videogen.errors import InputError, brief, first_line
from videogen.results.progress import Reporter
from videogen.tasks.list_options import LOCAL

ANSWERS_WITHIN = 10  # seconds
STORE = 200_000_000  # bytes of a local Ray for what is on its way


@contextmanager
def connected(address: str, reporter: Reporter) -> Iterator[ModuleType]:
    """Yield the module ray, connected to a cluster.

    Raises:
        InputError: the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray, handler = importlib.import_module("ray"), signal.getsignal(signal.SIGTERM)
    # It prints to stdout, where results are named, that a worker was lost.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE}
    about = local if address == LOCAL else {}
    with reporter.stage("ray", address):
        if address != LOCAL:
            _check_answers(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **about)
        except Exception as error:
            fix = "use the Ray of the cluster, on one of its machines"
            raise InputError("--ray", address, first_line(error), fix) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has its own
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Ask a cluster for a sign of life, in a process that can be ended: Ray itself waits for minutes.

    Raises:
        InputError: there is none.
    """
    named = [] if address == "auto" else ["--address", address]
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", *named]
    fix = "start one with 'ray start --head --port 6379', or give --ray local"
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=ANSWERS_WITHIN, text=True)
    except subprocess.TimeoutExpired:
        raise InputError("--ray", address, "no Ray cluster answers there", fix) from None
    if done.returncode:
        *_, why = done.stderr.strip().splitlines() or [""]
        if "InvalidAuthToken" in why:
            why, fix = (
                "it asks for a token",
                "set RAY_AUTH_MODE=token, with the token of its first machine here",
            )
        raise InputError("--ray", address, f"no Ray cluster answers there ({brief(why, 160)})", fix)


def places(ray: ModuleType, wanted: int | None) -> tuple[int, int, int | None]:
    """Return the GPUs of a video, how many videos are made at once, and the CPU threads of each.

    Without GPUs a video has one CPU, whose threads Ray decides.

    Args:
        wanted: the GPUs of a video; None is one, if there are any.

    Raises:
        InputError: there is no place for a video.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus, cpus = ([int(machine.get(kind, 0)) for machine in machines] for kind in ("GPU", "CPU"))
    largest = max(gpus, default=0)
    each = min(1, largest) if wanted is None else wanted
    if each > largest:
        what = "no machine of the cluster has as many GPUs"
        raise InputError("--gpus_per_job", each, what, f"nearest {largest}")
    if not each:
        return 0, max(1, sum(cpus)), None
    shares = [cpu * each // gpu for cpu, gpu in zip(cpus, gpus, strict=True) if gpu]
    return each, sum(gpu // each for gpu in gpus), max(1, min(shares))
