"""Videos asked for one after the other, as they come: the model stays loaded between them."""

import logging
import traceback
from collections.abc import Iterator

from videogen.engine.generate import Result
from videogen.engine.load import check_device
from videogen.engine.session import Failure, Session, earlier_result, generate
from videogen.errors import OutOfMemoryError
from videogen.planning.plan import Outline
from videogen.runtime import parallel

logger = logging.getLogger(__name__)


def run_stream(
    outlines: Iterator[Outline], *, several_gpus: bool, resume: bool = False, show_progress: bool = True
) -> Iterator[Result | Failure]:
    """Make every video when it comes and yield its outcome; one that fails does not stop the rest.

    Args:
        several_gpus: torchrun started this process.
        resume: videos whose result is complete are yielded at once.

    Raises:
        Exception: a video failed on several ranks, which cannot be brought back into step.
    """
    session = Session(keep_prompt_writers=True, communicator=parallel.init_communicator(wanted=several_gpus))
    for outline in outlines:
        try:
            outcome: Result | Failure = _make(outline, session, resume=resume, show_progress=show_progress)
        except Exception as error:
            if not session.communicator.is_single:
                raise
            outcome = Failure(plan=outline, error=error, trace=traceback.format_exc())
            traceback.clear_frames(error.__traceback__)
            error.__traceback__ = error.__cause__ = error.__context__ = None
            if isinstance(error, OutOfMemoryError):
                session.release()
        yield outcome
    session.stop_workers()


def _make(outline: Outline, session: Session, *, resume: bool, show_progress: bool) -> Result:
    check_device(outline)
    plan = session.fetch(outline)
    if resume:
        if (earlier := earlier_result(plan)) is not None:
            logger.info("%s is complete, skipped", earlier.outputs.path)
            return earlier
        plan.resume_store.check(resume=True, overwrite=False)
        if request := plan.resume_store.stored_request():
            plan = plan.with_prompt_of(request)
    plan = session.with_prompt(plan)
    return generate(plan, session, resume=resume, show_progress=show_progress)
