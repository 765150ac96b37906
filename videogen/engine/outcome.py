"""What becomes of a plan: made, skipped because it is there already, or failed. Needs no torch."""

import json
import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from videogen import files
from videogen.errors import CheckpointError, chain_of, exit_code_of, one_line
from videogen.files import OutputError, Record
from videogen.planning.plan import Outline, Plan
from videogen.results import publishing
from videogen.results.appending import append
from videogen.results.progress import Failed, Reporter, Saved, Skipped
from videogen.results.result import Result
from videogen.results.run_summary import seconds_per_step

logger = logging.getLogger(__name__)

LOG = "results.jsonl"  # in the folder of each result


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a plan.

    Args:
        result: its files; None if it failed.
        skipped: an earlier run has made it.
        error: why it failed; ``trace`` is where, as text.
        seconds: that it took in this run.
        retried: the option that was added after a first attempt ran out of memory.
    """

    plan: Outline
    result: Result | None = None
    skipped: bool = False
    error: BaseException | None = None
    trace: str = ""
    seconds: float = 0.0
    retried: str = ""

    @property
    def status(self) -> str:
        """Return 'made', 'skipped' or 'failed'."""
        return "failed" if self.result is None else "skipped" if self.skipped else "made"

    def record(self) -> Record:
        """Return it as plain JSON: a line of results.jsonl."""
        plan, result = self.plan, self.result
        known = plan.plan_hash if isinstance(plan, Plan) else None
        ended = {"error": one_line(self.error)} if self.error is not None else {}
        return {
            "index": plan.index,
            "line": plan.label,
            "status": self.status,
            "path": str((result or plan).outputs.path),
            "seed": plan.seed,
            "plan_hash": known if result is None else result.record.get("plan_hash"),
            "seconds": round(self.seconds, 3),
            **({"retried": self.retried} if self.retried else {}),
            **ended,
            "exit_code": 0 if self.error is None else exit_code_of(self.error),
        }


def errors_that_end(models: Sequence[tuple]) -> tuple[type[BaseException], ...]:
    """Return the errors of a video that end its run: any if it is the only one, those of a shared model.

    Args:
        models: what each video of the run has loaded.
    """
    if len(models) == 1:
        return (BaseException,)
    return (CheckpointError,) if len(set(models)) == 1 else ()


def log_outcome(outcome: Outcome) -> None:
    """Append a line to results.jsonl in the folder of the result; where that fails, a warning is all."""
    folder = outcome.plan.outputs.path.parent
    try:
        append(folder / LOG, json.dumps(outcome.record(), ensure_ascii=False) + "\n")
    except (OSError, OutputError) as error:
        logger.warning("%s: cannot be written (%s)", folder / LOG, one_line(error))


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


def skipped(plan: Outline, result: Result, reporter: Reporter) -> Outcome:
    """Report a video that an earlier run has made."""
    reporter.index = plan.index
    reporter.end_video(Skipped(path=str(result.outputs.path), sidecar=str(result.outputs.sidecar)))
    return Outcome(plan=plan, result=result, skipped=True)


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


def failed(plan: Outline, error: BaseException, reporter: Reporter, *, seconds: float) -> Outcome:
    """Report a video that could not be made; the outcome lets go of the tensors of its run."""
    trace = "".join(traceback.format_exception(error))
    drop_tensors(error)
    reporter.end_video(Failed(videos=reporter.videos, message=one_line(error)))
    return Outcome(plan=plan, error=error, trace=trace, seconds=seconds)


def drop_tensors(error: BaseException) -> None:
    """Drop the frames that an exception holds on to, and with them the tensors of the failed run."""
    for one in chain_of(error):
        traceback.clear_frames(one.__traceback__)
    error.__traceback__ = error.__cause__ = error.__context__ = None
