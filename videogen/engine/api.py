"""Videos from Python with the engine of the command line: a dry run, a video, or the events of several.

Options are those of the command line, without dashes (docs/options.md); no torch is imported before a video
is made.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self, Unpack

from videogen import files
from videogen.engine.outcome import Outcome, finished_results, skipped
from videogen.engine.third_party import quiet_imports
from videogen.errors import InputError
from videogen.files import Record
from videogen.planning import plan_report
from videogen.planning.local_devices import check_device_exists
from videogen.planning.option_mapping import from_mapping
from videogen.planning.origins import Origin
from videogen.planning.plan import Outline
from videogen.planning.request import Item, make_plans
from videogen.planning.resources import check_disk
from videogen.results.output_locks import OutputLocks
from videogen.results.output_paths import OverwritePolicy
from videogen.results.progress import Report, Reporter, ignore
from videogen.results.result import Result
from videogen.tasks.options import OPTIONS
from videogen.tasks.table import INPUTS, TASKS

if TYPE_CHECKING:
    from videogen.engine.queue import Queue
    from videogen.engine.typed import TaskName, VideoOptions

logger = logging.getLogger(__name__)

VIDEO_INPUTS = {name for name, files in INPUTS.items() if files.kind == "video"}
CALL = "videogen"  # what messages name as the place of an option


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class DryRun:
    """What a call would make: ``videos`` as --dry_run --json has them, as text for people."""

    videos: tuple[Record, ...]
    text: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def plan(
    task: "TaskName | str",
    prompt: str | None = None,
    *,
    model: str | Path | None = None,
    **options: "Unpack[VideoOptions]",
) -> DryRun:
    """Check everything and decide everything, and make nothing.

    Args:
        task: 'text_to_video', ...
        prompt: what the video shows.
        model: a folder, a hub id, 'miniature' or 'tiny'; None is the published default.
        options: those of the command line (docs/options.md). Paths may be strings or Paths; images and videos
            may also be in memory: PIL images, or arrays uint8, [H, W, 3] and [F, H, W, 3].

    Raises:
        InputError, CheckpointError: the first thing that will not work.
    """
    with _planned(task, prompt, model, options, OverwritePolicy(), locked=False) as outlines:
        videos = tuple(plan_report.to_json(outline) for outline in outlines)
        return DryRun(videos=videos, text=plan_report.describe(*outlines))


def generate(
    task: "TaskName | str",
    prompt: str | None = None,
    *,
    model: str | Path | None = None,
    on_event: Callable[[Report], None] = ignore,
    overwrite: bool = False,
    resume: bool = False,
    queue: "Queue | None" = None,
    **options: "Unpack[VideoOptions]",
) -> Result:
    """Make one video and return it; without ``output=`` it goes where the command line puts it.

    Args:
        task, prompt, model, options: as for ``plan``.
        on_event: called with every report (docs/progress.md); an exception that it raises ends the run.
        overwrite: replace an earlier result.
        resume: go on behind the finished segments of an earlier run; return its result if it is complete.
        queue: a ``videogen.Queue``, which keeps the model loaded for the next call.

    Raises:
        InputError, CheckpointError: before anything is made.
        OutOfMemoryError, OutputError: nothing is left under the final names.
    """
    if not callable(on_event):
        raise InputError("on_event=", on_event, "must be a function of a report", "for example print")
    if queue is not None and not hasattr(queue, "reporter"):
        raise InputError("queue=", queue, "must be a videogen.Queue", "give videogen.Queue()")
    policy = OverwritePolicy(overwrite=overwrite, resume=resume)
    with _planned(task, prompt, model, options, policy) as outlines:
        if len(outlines) > 1:
            fix = "give one seed, or use videogen.stream(...)"
            raise InputError(CALL, "generate", f"makes one video, and this asks for {len(outlines)}", fix)
        reporter = Reporter(on_event)
        (outcome,) = make_videos(outlines, reporter, resume=resume, quiet=True, queue=queue)
        assert outcome.result is not None  # the failure of a single video is raised
        reporter.end_run()
    return outcome.result


def stream(
    task: "TaskName | str",
    prompt: str | None = None,
    *,
    model: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    **options: "Unpack[VideoOptions]",
) -> "Stream":
    """Make one video, or one per seed with the model loaded once, in a thread; returns its reports.

    Args:
        task, prompt, model, overwrite, resume, options: as for ``generate``.

    Raises:
        VideoGenError: as for ``generate``, by the iterator and at the end of its ``with``, not by this call.
    """
    policy = OverwritePolicy(overwrite=overwrite, resume=resume)

    def work(reporter: Reporter) -> Iterator[Result]:
        with _planned(task, prompt, model, options, policy) as outlines:
            outcomes = make_videos(outlines, reporter, resume=resume, quiet=True)
            yield from (outcome.result for outcome in outcomes if outcome.result is not None)

    return Stream(work)


class Stream:
    """Iterator over the reports of a run that goes on in a thread.

    ``results`` are the videos that are finished. What goes wrong in the run is raised by the iterator; a
    video of several that fails is a report of ``progress.Failed``.
    """

    def __init__(self, work: Callable[[Reporter], Iterator[Result]]) -> None:
        self.results: list[Result] = []
        self._reports: SimpleQueue[Report | None] = SimpleQueue()
        self._reporter = Reporter(self._reports.put)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), name="videogen", daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[Reporter], Iterator[Result]]) -> None:
        try:
            for result in work(self._reporter):
                self.results.append(result)
                self._reporter.check_stop()
            self._reporter.end_run()
        except BaseException as error:
            cancelled = self._reporter.wants_stop and isinstance(error, KeyboardInterrupt)
            self._error = None if cancelled else error
        finally:
            self._reports.put(None)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Report:
        report = self._reports.get()
        if report is not None:
            return report
        self._reports.put(None)  # for the next call
        self._thread.join()
        error, self._error = self._error, None
        raise StopIteration if error is None else error

    def cancel(self) -> None:
        """Stop after the step that is running; nothing half-written is kept, and the iterator ends."""
        self._reporter.wants_stop = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.cancel()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error


def make_videos(
    plans: Sequence[Outline],
    reporter: Reporter,
    *,
    resume: bool,
    retry: str | None = None,
    keep_order: bool = False,
    quiet: bool = False,
    queue: "Queue | None" = None,
) -> Iterator[Outcome]:
    """Make the videos of plans and yield their outcomes; if all are complete, no library is loaded.

    Args:
        resume: plans whose result is complete yield it at once.
        retry, keep_order, queue: as for ``queue.run``.
        quiet: import libraries without a word, and leave their logs and warnings as they were.

    Raises:
        CheckpointError: the downloads are too large for the disk.
        VideoGenError: as ``queue.run``.
    """
    reporter.start_run(max((plan.videos for plan in plans), default=0), mine=len(plans))
    finished = finished_results(plans) if resume else {}
    if len(finished) == len(plans):
        yield from (skipped(plan, finished[plan.index], reporter) for plan in plans)
        return
    check_disk(plans)
    with reporter.stage("libraries"), quiet_imports() if quiet else nullcontext():
        from videogen.engine.queue import run  # noqa: PLC0415 - torch, diffusers, transformers

    yield from run(
        plans,
        resume=resume,
        retry=retry,
        keep_order=keep_order,
        finished=finished,
        reporter=reporter,
        queue=queue,
    )


@contextmanager
def _planned(
    task: str,
    prompt: str | None,
    model: str | Path | None,
    options: Mapping[str, object],
    policy: OverwritePolicy,
    *,
    locked: bool = True,
) -> Iterator[list[Outline]]:
    """Yield the plans of a call; what they need is there as long as the block lasts."""
    given = {"task_type": task, "prompt": prompt, "model_id": model, **options}
    with files.work_folder() as folder, OutputLocks() as locks:
        for name, takes in (TASKS[task].inputs if task in TASKS else {}).items():
            if takes.kind != "video" and isinstance(value := given.get(name), list | tuple):
                takes.check(f"{name}=", task, len(value))
        plain = {name: _plain(name, value, folder) for name, value in given.items() if value is not None}
        for name in plain:
            if name in OPTIONS and OPTIONS[name].about_run:
                raise InputError(CALL, name, "is for the command line", "leave it out")
        values = from_mapping(plain, CALL, one_video=True)
        items = [Item(values=values, origins=dict.fromkeys(values, Origin.ARGUMENT))]
        outlines = make_plans(items, policy, folder, locks if locked else None)
        for outline in outlines:
            check_device_exists(outline.options)
        for note in dict.fromkeys(note for outline in outlines for note in outline.warnings):
            logger.warning(note)
        yield outlines


def _plain(name: str, value: object, folder: Path) -> object:
    """Return an option's value as a file of options has it; images and arrays are written to ``folder``."""
    if isinstance(value, bool | int | float | str):
        return value
    if getattr(value, "shape", None) == ():  # a number of numpy or torch
        return getattr(value, "item")()  # noqa: B009 - of what is only known by its shape
    if hasattr(value, "save") or (getattr(value, "ndim", 0) == 3 and name not in VIDEO_INPUTS):  # an image
        from videogen.media.frames import as_picture  # noqa: PLC0415 - this module is loaded at start-up

        path = folder / f"{name}.png"
        as_picture(name, value).save(path)
        return str(path)
    several = isinstance(value, list | tuple)
    if hasattr(value, "shape") or (several and name in VIDEO_INPUTS):
        return _as_video_file(name, value, folder)
    if isinstance(value, list | tuple):
        return [_plain(f"{name}_{index}", item, folder) for index, item in enumerate(value)]
    return str(value).removeprefix("torch.")  # paths, dtypes, devices


def _as_video_file(name: str, frames: object, folder: Path) -> str:
    """Write frames, uint8 [F, H, W, 3] or a sequence of images, to a file; returns its path."""
    import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

    from videogen.media.frames import as_video  # noqa: PLC0415

    path = folder / f"{name}.npy"
    np.save(path, np.stack(list(as_video(name, frames).frames())))
    return str(path)
