"""The one worker: takes jobs one after the other, and makes their videos with a model that stays loaded."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from videogen import files
from videogen.engine.outcome import Outcome, log_outcome
from videogen.errors import (
    CancelledError,
    CheckpointError,
    InputError,
    OutOfMemoryError,
    VideoGenError,
    one_line,
)
from videogen.planning.local_devices import check_device_exists
from videogen.planning.plan import Outline
from videogen.planning.resources import check_disk
from videogen.results.output_locks import OutputLocks
from videogen.results.progress import Progress, Report, Reporter, StageStarted
from videogen.results.time_left import TimeLeft
from videogen.server.requests import VIDEO, Planner, explained
from videogen.server.store import CANCELLED, COMPLETED, FAILED, IN_PROGRESS, QUEUED, Job, Stage, Store

logger = logging.getLogger(__name__)

# What the API calls the errors of a job, the most special first.
CODES: tuple[tuple[type[BaseException], str], ...] = (
    (InputError, "invalid_input"),
    (CheckpointError, "model_error"),
    (OutOfMemoryError, "out_of_memory"),
)
BEFORE_LAST = 99  # percent, until the video is there


def described(error: BaseException) -> dict[str, str]:
    """Return an error as a job has it; unexpected ones stay in the log."""
    code = next((code for kind, code in CODES if isinstance(error, kind)), "server_error")
    if isinstance(error, VideoGenError):
        message, _ = explained(error)
    else:
        message = "an unexpected error; the server's log says more"
    return {"code": code, "message": message}


class Worker:
    """Makes the videos of a store in a thread of its own.

    Args:
        reporter: is told what happens; what it shows goes on.
        when_done: is called with the status of every job that ended, and the outcome if it was begun.
        retry: as for ``Queue``.
    """

    def __init__(
        self,
        store: Store,
        planner: Planner,
        reporter: Reporter,
        *,
        when_done: Callable[[str, Outcome | None], None],
        retry: str | None = None,
    ) -> None:
        self.store, self.planner, self.reporter, self.when_done = store, planner, reporter, when_done
        self.retry = retry
        self.making: Job | None = None
        self.time_left = TimeLeft()
        self._cancel = ""  # id of the job that is to be stopped
        self._stop_making: Callable[[int], bool] = lambda _: False
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """Start to make videos."""
        show, self.reporter.render = self.reporter.render, self._heard
        self._show = show
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current step; what is being made is queued again at the next start."""
        self.store.close()
        self.reporter.wants_stop = True
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def cancel(self, job: Job) -> Job:
        """Cancel a job that has not ended: at once if it waits, else after the current step."""
        cancelled = {"status": CANCELLED, "completed_at": time.time()}
        if self.store.change(job.id, only_if=QUEUED, **cancelled) is not None:
            self.when_done(CANCELLED, None)
        elif self.store.change(job.id, only_if=IN_PROGRESS, is_unwanted=True) is not None:  # kept on disk
            self._cancel = job.id
            self._stop_if_wanted()
        return self.store.get(job.id) or job

    def _stop_if_wanted(self) -> None:
        job = self.making
        if job is not None and job.id == self._cancel:
            self._stop_making(job.number)  # False before it has begun: the next event tries again

    def _run(self) -> None:
        try:
            with self.reporter.stage("libraries"):
                from videogen.engine.queue import Queue  # noqa: PLC0415 - torch, diffusers, transformers
            queue = Queue(self.reporter, resume=True, retry=self.retry)
            self._stop_making = queue.cancel
            while (job := self.store.take()) is not None:
                self.making = job
                try:
                    self._make(job, queue.make)
                except KeyboardInterrupt:
                    self.store.change(job.id, status=QUEUED, tries=job.tries - 1)
                    raise
                finally:
                    self.making = None
        except KeyboardInterrupt:  # told to stop
            pass
        except BaseException:
            logger.exception("the worker ended")

    def _make(self, job: Job, make: Callable[[Outline], Outcome]) -> None:
        """Make the video of a job, and keep what became of it."""
        self.time_left.ends = None
        with OutputLocks() as locks:
            try:
                plan = self._plan(job, locks)
                check_device_exists(plan.options)
                check_disk([plan])
            except Exception as error:
                self._end(job, error)
                return
            outcome = make(plan)
        log_outcome(outcome)
        self._end(job, outcome.error, outcome)
        files.remove(plan.outputs.preview)

    def _plan(self, job: Job, locks: OutputLocks) -> Outline:
        """Return the plan of a job; segments that an earlier run with other defaults left are dropped."""
        folder = self.store.folder_of(job.id)
        arguments = (job.request, job.uploads, folder)
        try:
            return self.planner.plan(*arguments, number=job.number, locks=locks)
        except InputError:
            rest = folder / f"{Path(VIDEO).stem}.parts"
            if not rest.exists():
                raise
            files.remove(rest)
            return self.planner.plan(*arguments, number=job.number, locks=locks)

    def _end(self, job: Job, error: BaseException | None, outcome: Outcome | None = None) -> None:
        """Keep how a job ended."""
        changes: dict[str, Any] = {"completed_at": time.time(), "stage": None, "progress": 0}
        if outcome is not None and outcome.result is not None:
            changes |= {"status": COMPLETED, "result": outcome.result.outputs.path.name, "progress": 100}
        elif isinstance(error, CancelledError):
            changes |= {"status": CANCELLED}
        else:
            assert error is not None
            if outcome is None or not isinstance(error, VideoGenError):  # else an event has said it
                logger.error("%s: %s", job.id, one_line(error))
            if outcome is not None:
                logger.debug(outcome.trace)
            changes |= {"status": FAILED, "error": described(error)}
        self.store.change(job.id, **changes)
        self.when_done(str(changes["status"]), outcome)

    def _heard(self, report: Report) -> None:
        """Keep how far the job is, and pass the report on."""
        self._show(report)
        self.time_left.take(report)
        self._stop_if_wanted()
        job, event = self.making, report.event
        if job is None or not isinstance(event, StageStarted | Progress):
            return
        changes: dict[str, Any] = {"stage": _stage(event, self.time_left.seconds(report.time))}
        if event.stage == "denoise" and isinstance(event, Progress):
            segments = max(report.segments, 1)
            done = (max(report.segment, 1) - 1 + event.done / max(event.total, 1)) / segments
            changes["progress"] = int(BEFORE_LAST * done)
        self.store.change(job.id, only_if=IN_PROGRESS, **changes)


def _stage(event: StageStarted | Progress, seconds_left: float | None) -> Stage:
    return Stage(
        name=event.stage,
        about=event.about,
        total=event.total,
        unit=event.unit,
        done=event.done if isinstance(event, Progress) else 0,
        seconds_left=seconds_left,
    )
