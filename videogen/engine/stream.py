"""Videos asked for one after the other, as they come: the model stays loaded between them."""

from collections.abc import Iterator

from videogen.engine.load import check_device
from videogen.engine.outcome import Failure, Result, earlier_result, failed, saved, skipped, start_video
from videogen.engine.session import Session, generate
from videogen.errors import OutOfMemoryError
from videogen.planning.plan import Outline
from videogen.results.progress import Reporter
from videogen.runtime import parallel


def run_stream(
    outlines: Iterator[Outline],
    *,
    several_gpus: bool,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Iterator[Result | Failure]:
    """Make every video when it comes and yield its outcome; one that fails does not stop the rest.

    Args:
        several_gpus: torchrun started this process.
        resume: videos whose result is complete are yielded at once.

    Raises:
        Exception: a video failed on several ranks, which cannot be brought back into step.
    """
    communicator = parallel.init_communicator(wanted=several_gpus)
    session = Session(keep_prompt_writers=True, communicator=communicator, reporter=reporter or Reporter())
    for outline in outlines:
        try:
            outcome: Result | Failure = _make(outline, session, resume=resume)
        except Exception as error:
            if not session.communicator.is_single:
                raise
            outcome = failed(outline, error, session.reporter)
            if isinstance(error, OutOfMemoryError):
                session.release()
        yield outcome
    session.stop_workers()


def _make(outline: Outline, session: Session, *, resume: bool) -> Result:
    start_video(outline, session.reporter)
    check_device(outline)
    plan = session.fetch(outline)
    if resume:
        if (earlier := earlier_result(plan)) is not None:
            return skipped(plan, earlier, session.reporter)
        plan.resume_store.check(resume=True, overwrite=False)
        if request := plan.resume_store.stored_request():
            plan = plan.with_prompt_of(request)
    plan = session.with_prompt(plan)
    return saved(generate(plan, session, resume=resume), session.reporter)
