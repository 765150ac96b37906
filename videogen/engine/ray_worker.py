"""What runs on the machines of a Ray cluster: a queue in a process of its own, which a driver gives videos.

The driver (ray_queue.py) calls the methods of ``Worker`` from its own process; one call of ``take`` waits for
messages while ``make`` works.
"""

import logging
import os
import pickle
import platform
import queue
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from videogen import __version__, distributed, files
from videogen.engine import third_party
from videogen.engine.outcome import Outcome
from videogen.errors import InputError, exit_code_of, one_line
from videogen.files import Record
from videogen.planning.plan import Outline, Plan
from videogen.results import output_paths
from videogen.results.output_locks import OutputLocks
from videogen.results.output_paths import OutputPaths
from videogen.results.progress import PreviewWritten, Report, Reporter, ReporterHandler
from videogen.results.publishing import finish_interrupted
from videogen.results.result import Result
from videogen.results.transfer import Piece, in_folder, pieces
from videogen.tasks.options import OPTIONS

if TYPE_CHECKING:
    from videogen.engine.queue import Queue

logger = logging.getLogger("videogen")

WAITING = 64  # messages that the driver has not taken yet
GRACE = 5.0  # seconds for rank 0 to say why it failed, when another rank has ended
FOLLOW = "from videogen.engine.ray_worker import follow; follow()"  # what the other ranks run


@dataclass(frozen=True, kw_only=True, slots=True)
class Orders:
    """What the driver tells every worker once.

    Args:
        version: of videogen; plans of one are no plans of another.
        folder: that relative paths start from.
        environment: variables that must be set before torch is imported.
        level: of the log.
        ranks: processes that make a video together.
        threads: of torch on the CPU; None leaves that to Ray.
        fetch: results go to the driver.
        resume, retry: as for ``Queue``.
        ends_run: errors of a video that end the run.
        packed: a file beside the results, which --bundle reads on the driver; None without.
    """

    version: str
    folder: Path
    environment: Mapping[str, str]
    level: int
    ranks: int
    threads: int | None
    fetch: bool
    resume: bool
    retry: str | None
    ends_run: tuple[type[BaseException], ...]
    packed: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What became of a video, as plain data: an outcome without its plan, which the driver has.

    Args:
        error: why it failed, in a line; ``trace`` is where.
        is_reported: an event has said what became of it.
        ends_run: it is one for which all others are not even tried.
        broken: this worker cannot make another video.
        stopped: the driver wanted it to stop.
    """

    outputs: OutputPaths | None = None
    record: Record = field(default_factory=dict)
    skipped: bool = False
    seconds: float = 0.0
    retried: str = ""
    error: str = ""
    exit_code: int = 0
    trace: str = ""
    is_reported: bool = False
    ends_run: bool = False
    broken: bool = False
    stopped: bool = False


Message = Report | Piece | Done


class Worker:
    """Maker of videos for a driver; the model stays loaded from one to the next."""

    def __init__(self) -> None:
        self.messages: queue.Queue[Message] = queue.Queue(maxsize=WAITING)
        self.reporter = Reporter(self._report)
        self.was_stopped = False

    def start(self, orders: Orders) -> str:
        """Load the libraries; return what is wrong here in a line, or nothing."""
        self.orders = orders
        try:
            self.queue = self._start(orders)
        except Exception as error:
            return f"{platform.node()}: {one_line(error)}"
        return ""

    def make(self, pickled: bytes, *, again: bool) -> None:
        """Make a video; messages say how far it is, the last one what became of it.

        Args:
            pickled: its plan; where that cannot be read, a message says so too.
            again: another worker was lost while it made it; what that has finished is used.
        """
        started = time.perf_counter()
        try:
            done = self._make(pickle.loads(pickled), again=again)
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            done = Done(
                error=one_line(error),
                exit_code=exit_code_of(error),
                trace=traceback.format_exc(),
                seconds=time.perf_counter() - started,
                ends_run=not stopped and isinstance(error, self.orders.ends_run),
                broken=not self.queue.session.communicator.is_single,
                stopped=stopped,
            )
        self.messages.put(done)

    def take(self) -> list[Message]:
        """Return the messages that are there; wait for the first."""
        taken = [self.messages.get()]
        while len(taken) < WAITING and not self.messages.empty():
            taken.append(self.messages.get())
        return taken

    def stop(self) -> None:
        """Stop the video that is being made after its step, or at the next thing that it reports."""
        self.reporter.wants_stop = True

    def _report(self, report: Report) -> None:
        if self.reporter.wants_stop and not self.was_stopped:
            self.was_stopped = True
            raise KeyboardInterrupt
        if not (self.orders.fetch and isinstance(report.event, PreviewWritten)):  # else nobody sees it
            self.messages.put(report)

    def _start(self, orders: Orders) -> "Queue":
        if orders.version != __version__:
            what, fix = f"the other machine has {orders.version}", "install the same version everywhere"
            raise InputError("videogen", __version__, what, fix)
        if orders.folder.is_dir():
            os.chdir(orders.folder)
        elif not orders.fetch:
            fix = "start in a folder that all machines share, or add --fetch"
            raise InputError("--ray", orders.folder, "this folder is not there", fix)
        if orders.packed is not None and not orders.packed.exists():
            what, fix = "this folder of results is not shared", "share it with all machines, or add --fetch"
            raise InputError("--bundle", orders.packed.parent, what, fix)
        for name, value in orders.environment.items():
            os.environ.setdefault(name, value)
        logger.handlers = [ReporterHandler(self.reporter)]
        logger.setLevel(orders.level)
        third_party.quieten(verbose=orders.level <= logging.DEBUG)
        if orders.ranks > 1:
            start_ranks(orders.ranks)
        import torch  # noqa: PLC0415 - only here, not where the driver is

        from videogen.engine.queue import Queue  # noqa: PLC0415 - diffusers, transformers

        if orders.threads is not None:
            torch.set_num_threads(orders.threads)
        return Queue(self.reporter, several_gpus=orders.ranks > 1, resume=orders.resume, retry=orders.retry)

    def _make(self, plan: Outline, *, again: bool) -> Done:
        with ExitStack() as stack:
            self.queue.resume = self.orders.resume or again
            if self.orders.fetch:
                folder, self.queue.resume = stack.enter_context(files.work_folder()), False
                plan = replace(plan, outputs=in_folder(plan.outputs, folder))
            locks = stack.enter_context(OutputLocks())

            def prepare() -> Plan | Result:
                output_paths.lock(plan.outputs, plan.options, locks)
                _check_inputs(plan)
                if again:
                    finish_interrupted(plan.outputs)
                return self.queue.prepare(plan)

            outcome = self.queue.make(plan, prepare=prepare, ends_run=self.orders.ends_run)
            if self.orders.fetch and outcome.result is not None:
                for piece in pieces(outcome.result.outputs):
                    self.messages.put(piece)
            return _as_data(outcome)


def _as_data(outcome: Outcome) -> Done:
    result, error = outcome.result, outcome.error
    return Done(
        outputs=None if result is None else result.outputs,
        record={} if result is None else result.record,
        skipped=outcome.skipped,
        seconds=outcome.seconds,
        retried=outcome.retried,
        error="" if error is None else one_line(error),
        exit_code=0 if error is None else exit_code_of(error),
        trace=outcome.trace,
        is_reported=True,
    )


def _check_inputs(plan: Outline) -> None:
    """Refuse local files that are not on this machine.

    Raises:
        InputError: the first one.
    """
    model = plan.checkpoint
    needed = [(name, file.name, file.path) for name, files in plan.inputs.items() for file in files]
    needed += [("lora", lora.name, lora.path) for lora in plan.options.lora if lora.source is None]
    if model.folder is not None and not (model.revision or model.tiny):
        needed.append(("model_id", model.name, model.folder))
    for name, given, path in needed:
        if not path.exists():
            fix = "put it into a folder that all machines of the cluster share"
            raise InputError(OPTIONS[name].flag, given, f"is not on {platform.node()}", fix)


def start_ranks(size: int) -> None:
    """Start the other ranks as processes of this one, and become rank 0 of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    shared = {**place, "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    for rank in range(1, size):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, "-c", FOLLOW], stdin=subprocess.PIPE, env={**os.environ, **shared, **own}
        )
        threading.Thread(target=_end_with, args=(process,), daemon=True).start()
    os.environ.update({**shared, "RANK": "0", "LOCAL_RANK": "0"})
    distributed.get_ranks.cache_clear()


def _end_with(process: subprocess.Popen) -> None:
    """End this process when another rank has ended, for which the others would wait."""
    process.wait()
    time.sleep(GRACE)
    os._exit(1)


def follow() -> None:
    """Follow rank 0 until it ends."""

    def end_with_parent() -> None:
        sys.stdin.buffer.read()  # until the other end is closed
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()
    from videogen.engine.session import worker_loop  # noqa: PLC0415 - torch, diffusers, transformers

    worker_loop()
