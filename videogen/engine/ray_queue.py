"""A list of videos on a Ray cluster: this process plans and hands out, workers (ray_worker.py) make.

There is one worker for each GPU, or each ``gpus_per_job`` of a machine, and it takes videos of the model that
it has loaded first. Each holds the locks of the result that it writes. What it reports is relayed to the
run's own reporter. A video whose worker is lost goes to another one.
"""

import logging
import os
import pickle
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from videogen import __version__, distributed, files
from videogen.distributed import Ranks
from videogen.engine.model_key import model_key
from videogen.engine.outcome import Outcome, errors_that_end, failed, finished_results, skipped
from videogen.engine.ray_cluster import connected, places
from videogen.engine.ray_worker import Done, Message, Orders, Worker
from videogen.errors import InputError, VideoGenError
from videogen.planning.plan import Outline, Plan
from videogen.results.output_locks import OutputLocks
from videogen.results.progress import Report, Reporter, Saved
from videogen.results.result import Result
from videogen.results.transfer import ArrivingFiles, Piece
from videogen.tasks.options import RunSettings

logger = logging.getLogger(__name__)

TRIES = 3  # workers that may be lost over one video
POLL = 0.5  # seconds between looks at whether the run is to stop
PATIENCE = 60.0  # seconds in which a worker starts, if there is a place for it
GRACE = 10.0  # seconds for workers to stop after their step, where the run cannot wait


def check(settings: RunSettings) -> None:
    """Refuse what a run on a cluster cannot be, and plan its videos for as many ranks as one has GPUs.

    Raises:
        InputError: Ray is not installed, or this process is one of several.
    """
    ranks, distributed.planned = settings.gpus_per_job or 1, None
    if settings.ray is None:
        return
    if find_spec("ray") is None:
        raise InputError("--ray", None, "needs the package ray, not installed", "pip install 'videogen[ray]'")
    if distributed.get_ranks().size > 1:
        what = "starts processes on all GPUs itself"
        raise InputError("--ray", None, what, "start it without torchrun and srun")
    if settings.jobs == "-":
        raise InputError("--ray", None, "lines that come one by one stay here", "write them to a file first")
    if ranks > 1:
        distributed.planned = Ranks(size=ranks, local_size=ranks, launched=True)


def run(
    plans: Sequence[Outline], settings: RunSettings, reporter: Reporter, locks: OutputLocks
) -> Iterator[Outcome]:
    """Make the videos of plans on the cluster, and yield their outcomes as they come.

    Args:
        locks: hold the results' locks, which go to the workers that write them.

    Raises:
        VideoGenError: the only video failed; the cluster does not answer, or has no place for a video.
    """
    reporter.start_run(max((plan.videos for plan in plans), default=0), mine=len(plans))
    if settings.resume and settings.fetch and not all(isinstance(plan, Plan) for plan in plans):
        from videogen.engine.session import Session  # noqa: PLC0415 - what is finished here needs hashes

        session = Session(reporter=reporter)
        plans = [session.fetch(plan) for plan in plans]
    finished = finished_results(plans) if settings.resume else {}
    yield from (skipped(plan, finished[plan.index], reporter) for plan in plans if plan.index in finished)
    if wanted := [plan for plan in plans if plan.index not in finished]:
        with connected(str(settings.ray), reporter) as ray, _beside_results(wanted, settings) as packed:
            yield from Driver(ray, wanted, settings, reporter, locks, packed=packed).run()


@contextmanager
def _beside_results(plans: Sequence[Outline], settings: RunSettings) -> Iterator[Path | None]:
    """Yield a file that every worker must see, if results that it writes are packed here at the end."""
    if settings.bundle is None or settings.fetch:
        yield None
        return
    target = plans[0].outputs.path.with_name("videogen-ray")
    with ExitStack() as stack:
        with files.writing(target):
            file = stack.enter_context(files.temporary_sibling(target))
        yield file


@dataclass(eq=False)
class Member:
    """A worker as the driver sees it.

    Args:
        answer: what it is asked for now: to be ready at first, then messages.
        plan: the video that it makes; ``key`` says which model it has loaded.
        arriving: the result's files, with --fetch; ``saved`` is told when they are here.
    """

    actor: Any
    answer: Any
    is_ready: bool = False
    plan: Outline | None = None
    key: tuple | None = None
    arriving: ArrivingFiles | None = None
    saved: Report | None = None
    trouble: VideoGenError | None = None


class Driver:
    """Hands videos out to workers, and turns what they send into events and outcomes."""

    def __init__(
        self,
        ray: ModuleType,
        plans: Sequence[Outline],
        settings: RunSettings,
        reporter: Reporter,
        locks: OutputLocks,
        *,
        packed: Path | None = None,
    ) -> None:
        self.ray, self.settings, self.reporter, self.locks = ray, settings, reporter, locks
        self.pending, self.members = list(plans), list[Member]()
        self.keys = {plan.index: model_key(plan) for plan in plans}
        self.lost, self.lost_idle, self.has_warned = Counter[int](), 0, False
        self.patience = time.monotonic() + PATIENCE
        gpus, self.most, threads = places(ray, settings.gpus_per_job)
        reporter.at_once = min(self.most, len(plans))
        self.orders = Orders(
            version=__version__,
            folder=Path.cwd(),
            environment={name: value for name, value in os.environ.items() if name.startswith("PYTORCH_")},
            level=logging.getLogger("videogen").getEffectiveLevel(),
            ranks=max(1, gpus),
            threads=threads,
            fetch=settings.fetch,
            resume=settings.resume and not settings.fetch,
            retry=settings.retry,
            ends_run=errors_that_end([*self.keys.values()]),
            packed=packed,
        )
        resources: dict[str, Any] = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "max_concurrency": 3}
        self.workers = ray.remote(Worker).options(**resources)

    def run(self) -> Iterator[Outcome]:
        """Yield outcomes until every video has one."""
        self.reporter.is_stepping = True  # Ctrl-C: workers end their step first
        try:
            while self.pending or self.busy:
                self._hand_out()
                yield from self._listen(self.members)
                if self.reporter.wants_stop:
                    yield from self._stop()
                    raise KeyboardInterrupt
                self._say_if_waiting()
        finally:
            self.reporter.is_stepping = False
            try:
                for _ in self._stop(0 if self.reporter.wants_stop else GRACE):
                    pass
            finally:
                for member in list(self.members):
                    self._dismiss(member)

    def _say_if_waiting(self) -> None:
        """Say once that no worker has begun for a while: others may have the places of the cluster."""
        if self.patience and not any(member.is_ready for member in self.members):
            if time.monotonic() > self.patience:
                self.patience = 0.0
                logger.info("no worker is ready yet; 'ray status' shows who has the places of the cluster")
        else:
            self.patience = 0.0

    @property
    def busy(self) -> list[Member]:
        """Return the workers that make a video."""
        return [member for member in self.members if member.plan is not None]

    def _hand_out(self) -> None:
        """Start as many workers as there is work for, and give each that waits a video."""
        while len(self.members) < min(self.most, len(self.pending) + len(self.busy)):
            actor = self.workers.remote()
            self.members.append(Member(actor=actor, answer=actor.start.remote(self.orders)))
        for member in self.members:
            if member.is_ready and member.plan is None and self.pending:
                plan = member.plan = self.pending.pop(self._next(member))
                member.key, member.saved, member.trouble = self.keys[plan.index], None, None
                if self.settings.fetch:
                    member.arriving = ArrivingFiles(plan.outputs)
                else:
                    for path, name in plan.outputs.locked:
                        self.locks.release(path.parent, name)
                again = self.lost[plan.index] > 0 and not self.settings.overwrite
                member.actor.make.remote(pickle.dumps(plan), again=again)

    def _next(self, member: Member) -> int:
        """Return where a video of the model that a worker has is, else one of a model that no other has."""
        if self.settings.keep_order:
            return 0
        taken, keys = {other.key for other in self.members}, [self.keys[plan.index] for plan in self.pending]
        return min(range(len(keys)), key=lambda place: (keys[place] != member.key, keys[place] in taken))

    def _listen(self, members: Sequence[Member]) -> Iterator[Outcome]:
        """Wait a moment for what any of some workers sends."""
        answers = {member.answer: member for member in members}
        for answer in self.ray.wait(list(answers), timeout=POLL)[0]:
            yield from self._hear(answers[answer])

    def _hear(self, member: Member) -> Iterator[Outcome]:
        """Take in what a worker has sent, and ask for more."""
        try:
            sent = self.ray.get(member.answer)
        except self.ray.exceptions.RayTaskError as error:
            *_, last = str(error).strip().splitlines()
            raise VideoGenError(f"a Ray worker failed: {last}") from error
        except self.ray.exceptions.RayError:
            if (outcome := self._lose(member)) is not None:
                yield outcome
            return
        if not member.is_ready and sent:
            raise VideoGenError(f"--ray: a worker cannot start: {sent}")
        messages: list[Message] = sent if member.is_ready else []
        member.is_ready, self.lost_idle = True, 0
        for message in messages:
            match message:
                case Report():
                    self._relay(member, message)
                case Piece():
                    self._store(member, message)
                case Done():
                    outcome = self._outcome(member, message)
                    if member.arriving is not None:
                        member.arriving.close()  # of what was not published
                    if outcome is not None:
                        yield outcome
        if member in self.members:
            member.answer = member.actor.take.remote()

    def _relay(self, member: Member, report: Report) -> None:
        if self.settings.fetch and isinstance(report.event, Saved):
            member.saved = report  # it is elsewhere still
        else:
            self.reporter.relay(report)

    @staticmethod
    def _store(member: Member, piece: Piece) -> None:
        assert member.arriving is not None
        try:
            if member.trouble is None:
                member.arriving.add(piece)
        except VideoGenError as error:
            member.trouble = error

    def _outcome(self, member: Member, done: Done) -> Outcome | None:
        """Return what became of a worker's video, which then has none; None if it was stopped."""
        plan, member.plan = member.plan, None
        assert plan is not None
        if done.stopped:
            return None
        if done.broken:
            self._dismiss(member)
        if done.error:
            error = VideoGenError(done.error)
            error.exit_code = done.exit_code
            if done.ends_run:
                raise error
            if done.is_reported:
                return Outcome(plan=plan, error=error, trace=done.trace, seconds=done.seconds)
        else:
            how: dict[str, Any] = {"seconds": done.seconds, "retried": done.retried, "skipped": done.skipped}
            try:
                return Outcome(plan=plan, result=self._result(member, done), **how)
            except VideoGenError as caught:
                error = caught
        return self._failed(plan, error, done.seconds)

    def _failed(self, plan: Outline, error: VideoGenError, seconds: float = 0.0) -> Outcome:
        self.reporter.index = plan.index
        return failed(plan, error, self.reporter, seconds=seconds)

    def _result(self, member: Member, done: Done) -> Result:
        """Return a finished result; with --fetch its files get their names here."""
        outputs = done.outputs
        assert outputs is not None
        if member.trouble is not None:
            raise member.trouble
        if member.arriving is not None:
            outputs = member.arriving.publish(done.record)
            if (saved := member.saved) is not None:
                assert isinstance(saved.event, Saved)
                event = replace(saved.event, path=str(outputs.path), sidecar=str(outputs.sidecar))
                self.reporter.relay(replace(saved, event=event))
        elif not self.has_warned and not outputs.path.exists():
            self.has_warned = True
            logger.warning("%s is not seen on this machine: share its folder, or add --fetch", outputs.path)
        return Result(outputs=outputs, record=done.record)

    def _lose(self, member: Member) -> Outcome | None:
        """Let another worker make the video of one that has ended; return an outcome if that is too often.

        Raises:
            VideoGenError: workers end before they are given anything.
        """
        plan = member.plan
        self._dismiss(member)
        if plan is None:
            self.lost_idle += 1
            if self.lost_idle < TRIES:
                return None
            what = "workers end before they make anything; 'ray logs' may say why"
            raise VideoGenError(f"--ray {self.settings.ray}: {what}")
        self.lost[plan.index] += 1
        if self.lost[plan.index] == TRIES:
            what = f"its worker was lost {TRIES} times (killed, perhaps for want of memory)"
            return self._failed(plan, VideoGenError(f"{what}; 'ray logs' may say why"))
        why = "killed, perhaps for want of memory, or its machine is gone"
        logger.warning("video %d: its worker was lost (%s); another one makes it", plan.index, why)
        self.pending.insert(0, plan)
        return None

    def _dismiss(self, member: Member) -> None:
        """End a worker, and remove what it has sent of an unfinished result."""
        self.members.remove(member)
        self.ray.kill(member.actor)
        if member.arriving is not None:
            member.arriving.close()

    def _stop(self, seconds: float | None = None) -> Iterator[Outcome]:
        """Stop the workers after their step, and yield what is finished; wait no longer than ``seconds``."""
        ends = None if seconds is None else time.monotonic() + seconds
        for member in self.busy:
            member.actor.stop.remote()
        while (busy := self.busy) and (ends is None or time.monotonic() < ends):
            yield from self._listen(busy)
