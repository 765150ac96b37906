"""A queue of videos: plans in, outcomes out, made one after the other by a session whose model stays loaded.

``run`` makes a whole list and ``run_stream`` plans as they come. Whoever has a ``Queue`` of its own gives it
one plan at a time, and may cancel the video that is being made from another thread.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from videogen.engine.load import check_device
from videogen.engine.model_key import model_key
from videogen.engine.out_of_memory import smaller_plan
from videogen.engine.outcome import (
    Outcome,
    Result,
    drop_tensors,
    earlier_result,
    errors_that_end,
    failed,
    finished_results,
    saved,
    skipped,
    start_video,
)
from videogen.engine.prompt_writer import write_prompts
from videogen.engine.session import Session, generate
from videogen.errors import CancelledError, OutOfMemoryError, VideoGenError, one_line
from videogen.planning.plan import Outline, Plan
from videogen.results.progress import Reporter
from videogen.runtime import parallel

logger = logging.getLogger(__name__)


class Queue:
    """Makes videos one at a time; what a video leaves behind for the next is the loaded model.

    After ``close`` it can be used again, and loads the model again.

    Args:
        reporter: what is told of all that happens.
        several_gpus: torchrun started this process.
        resume: videos whose result is complete are skipped, and begun ones continued.
        retry: an option that is added once to a plan that ran out of memory.
    """

    def __init__(
        self,
        reporter: Reporter | None = None,
        *,
        several_gpus: bool = False,
        resume: bool = False,
        retry: str | None = None,
    ) -> None:
        communicator = parallel.init_communicator(wanted=several_gpus)
        self.session = Session(keep_prompt_writers=True, communicator=communicator)
        self.reporter, self.resume, self.retry = reporter or Reporter(), resume, retry
        self._too_large: dict[tuple, int] = {}  # model -> bytes of the smallest video that did not fit
        self._lock = threading.Lock()
        self._making: int | None = None
        self._cancelled = False

    @property
    def reporter(self) -> Reporter:
        """Return what is told of all that happens."""
        return self.session.reporter

    @reporter.setter
    def reporter(self, reporter: Reporter) -> None:
        self.session.reporter = reporter

    def make(
        self,
        outline: Outline,
        *,
        prepare: Callable[[], Plan | Result] | None = None,
        ends_run: tuple[type[BaseException], ...] = (),
    ) -> Outcome:
        """Make a video, and return what became of it.

        Args:
            prepare: returns the plan with its model and its prompt there, or its complete result.
            ends_run: errors that end the run, and not only this video.

        Raises:
            Exception: one of those; of several ranks any, because they cannot be brought back into step.
        """
        started = time.perf_counter()
        start_video(outline, self.reporter)
        with self._lock:
            self._making = outline.index
        try:
            plan = self.prepare(outline) if prepare is None else prepare()
            if isinstance(plan, Result):
                return skipped(outline, plan, self.reporter)
            result, retried = self._generate(plan)
            seconds = time.perf_counter() - started
            return Outcome(plan=plan, result=saved(result, self.reporter), seconds=seconds, retried=retried)
        except (Exception, KeyboardInterrupt) as caught:
            error: BaseException = CancelledError("cancelled") if self._cancelled else caught
            ends_all = isinstance(error, (KeyboardInterrupt, *ends_run))
            if ends_all or not self.session.communicator.is_single:
                raise
            outcome = failed(outline, error, self.reporter, seconds=time.perf_counter() - started)
            drop_tensors(caught)
        finally:
            with self._lock:
                self._making = None
                if self._cancelled:
                    self._cancelled = self.reporter.wants_stop = False
        if isinstance(outcome.error, OutOfMemoryError):
            self.session.release()
        return outcome

    def prepare(self, outline: Outline) -> Plan | Result:
        """Return a plan with its model and its prompt there, or its complete result."""
        check_device(outline)
        plan = self.session.fetch(outline)
        if self.resume:
            if (earlier := earlier_result(plan)) is not None:
                return earlier
            plan.resume_store.check(resume=True, overwrite=False)
            if request := plan.resume_store.stored_request():
                plan = plan.with_prompt_of(request)
        return self.session.with_prompt(plan)

    def cancel(self, index: int) -> bool:
        """Stop a video after its current step; False if it is not the one that is being made."""
        with self._lock:
            if self._making != index:
                return False
            self._cancelled = self.reporter.wants_stop = True
            return True

    def close(self) -> None:
        """Let go of the model, and of the other ranks."""
        self.session.stop_workers()
        self.session.close()

    def _generate(self, plan: Plan) -> tuple[Result, str]:
        """Generate a video, if need be once more with ``retry``; returns what was added, too."""
        key, size = model_key(plan), plan.memory_bytes["plain"]
        if self.retry is None or not self.session.communicator.is_single:
            return generate(plan, self.session, resume=self.resume), ""
        if size < self._too_large.get(key, size + 1):
            try:
                return generate(plan, self.session, resume=self.resume), ""
            except OutOfMemoryError as error:
                smaller = smaller_plan(plan, self.retry, why=one_line(error))
                drop_tensors(error)
            self._too_large[key] = size
            self.session.release()
        else:  # so the model is not loaded in vain
            smaller = smaller_plan(plan, self.retry, why="a video like it did not fit")
        return generate(smaller, self.session, resume=self.resume), self.retry


def run(
    outlines: Sequence[Outline],
    *,
    resume: bool = False,
    retry: str | None = None,
    keep_order: bool = False,
    finished: Mapping[int, Result] | None = None,
    reporter: Reporter | None = None,
    queue: Queue | None = None,
) -> Iterator[Outcome]:
    """Make every plan's video and yield its outcome; of several, a failing one does not stop the rest.

    Args:
        resume, retry: as for ``Queue``.
        keep_order: make them in the order given; else those that share a model one after the other.
        finished: results that are known to be complete, by index.
        queue: makes them, and keeps its model.

    Raises:
        VideoGenError: the only plan failed; or, for all, a model or device that is not to be had.
    """
    for outline in outlines:
        check_device(outline)
    several_gpus = any(outline.options.use_usp for outline in outlines)
    reporter = reporter or Reporter(videos=len(outlines))
    kept, queue = queue, queue or Queue(several_gpus=several_gpus)
    queue.reporter, queue.resume, queue.retry = reporter, resume, retry
    plans = [queue.session.fetch(outline) for outline in outlines]
    # Those that were not here yet had no hash before.
    late = [plan for outline, plan in zip(outlines, plans, strict=True) if not isinstance(outline, Plan)]
    known = {**(finished or {}), **finished_results(late)} if resume else {}
    for plan in plans:
        if resume and plan.index not in known:
            plan.resume_store.check(resume=True, overwrite=False)
    plans, unwritten = _with_prompts(plans, known, resume=resume)
    keys = [model_key(plan) for plan in plans]
    models, ends_run = list(dict.fromkeys(keys)), errors_that_end(keys)  # models in order of first need

    def prepare(plan: Plan) -> Plan:
        if plan.index in unwritten:
            raise unwritten[plan.index]
        return plan

    for plan in plans if keep_order else sorted(plans, key=lambda plan: models.index(model_key(plan))):
        if plan.index in known:
            yield skipped(plan, known[plan.index], reporter)
        else:
            yield queue.make(plan, prepare=partial(prepare, plan), ends_run=ends_run)
    if kept is None:
        queue.close()


def run_stream(
    outlines: Iterator[Outline],
    *,
    several_gpus: bool,
    resume: bool = False,
    retry: str | None = None,
    reporter: Reporter | None = None,
) -> Iterator[Outcome]:
    """Make every video when it comes and yield its outcome; one that fails does not stop the rest.

    Args:
        several_gpus, resume, retry: as for ``Queue``.

    Raises:
        Exception: a video failed on several ranks, which cannot be brought back into step.
    """
    queue = Queue(reporter, several_gpus=several_gpus, resume=resume, retry=retry)
    for outline in outlines:
        yield queue.make(outline)
    queue.close()


def _with_prompts(
    plans: Sequence[Plan], finished: Mapping[int, Result], *, resume: bool
) -> tuple[list[Plan], dict[int, VideoGenError]]:
    """Return plans with the prompts that models write, and the errors of those that got none, by index.

    A video that goes on keeps its prompt.
    """
    asked = [plan for plan in plans if plan.prompt_writers]
    kept = {plan.index: plan.resume_store.stored_request() for plan in asked if resume}
    known = [plan.with_prompt_of(earlier) if (earlier := kept.get(plan.index)) else plan for plan in plans]
    written, errors = write_prompts([plan for plan in known if plan.index not in finished])
    by_index = {plan.index: plan for plan in written}
    return [by_index.get(plan.index, plan) for plan in known], errors
