"""What becomes of a plan: a result or a failure, and results that are there already. Needs no torch."""

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from videogen import files
from videogen.errors import one_line
from videogen.planning.plan import Outline, Plan
from videogen.results import publishing
from videogen.results.progress import Failed, Reporter, Saved, Skipped
from videogen.results.result import Result
from videogen.results.run_summary import seconds_per_step

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One video of several that could not be made; ``trace`` is where it happened, as text."""

    plan: Outline
    error: Exception
    trace: str


def earlier_result(plan: Plan) -> Result | None:
    """Return the complete result of an earlier run of this plan, if there is one."""
    record, outputs = plan.earlier_record(), plan.outputs
    if record is None:
        return None
    if not publishing.is_whole(record, outputs):
        logger.warning("%s is damaged, and made again", outputs.path)
        return None
    if not record.get("request", {}).get("keep_parts"):
        plan.resume_store.remove_rest()  # a killed run may have had no time for it
        files.remove(outputs.preview)
    return Result(outputs=outputs, record=record)


def finished_results(plans: Sequence[Outline]) -> dict[int, Result]:
    """Return the complete results of earlier runs by index, as far as they are known before a download."""
    found = {plan.index: earlier_result(plan) for plan in plans if isinstance(plan, Plan)}
    return {index: result for index, result in found.items() if result is not None}


def skipped(plan: Outline, result: Result, reporter: Reporter) -> Result:
    """Report a video that an earlier run has made, and return its result."""
    reporter.index = plan.index
    reporter.end_video(Skipped(path=str(result.outputs.path), sidecar=str(result.outputs.sidecar)))
    return result


def start_video(plan: Outline, reporter: Reporter) -> None:
    """Report that a plan's video is made next."""
    shape = plan.shape
    reporter.start_video(
        plan.index,
        seed=plan.seed,
        size=(shape.width, shape.height),
        num_frames=shape.num_frames,
        segments=len(shape.rolls),
        output=plan.outputs.path.name,
    )


def saved(result: Result, reporter: Reporter) -> Result:
    """Report a finished video, and return its result."""
    record = result.record
    event = Saved(
        path=str(result.outputs.path),
        sidecar=str(result.outputs.sidecar),
        seconds=record["seconds"],
        seconds_per_step=round(seconds_per_step(record["step_seconds"]), 4),
        peak_memory=record["peak_memory"],
    )
    reporter.end_video(event)
    return result


def failed(plan: Outline, error: Exception, reporter: Reporter) -> Failure:
    """Report a video that could not be made; the failure lets go of the tensors of its run."""
    failure = Failure(plan=plan, error=error, trace=traceback.format_exc())
    # Drop the frames that the exception holds on to, and with them the tensors of the failed run.
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = error.__cause__ = error.__context__ = None
    reporter.end_video(Failed(videos=reporter.videos, message=one_line(error)))
    return failure
