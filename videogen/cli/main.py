"""The command line: what runs, what is printed, exit codes; the only place that prints to stdout.

Imports nothing heavy: ``--help`` and every complaint about arguments and inputs come before torch is loaded.
"""

import json
import logging
import os
import platform
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from videogen import __version__, distributed
from videogen.cli import bundles, own_folders
from videogen.cli.captions import caption, caption_list
from videogen.cli.help import Program, help_text
from videogen.cli.interrupts import Interrupts
from videogen.cli.jobs import STDIN, read_jobs, stream
from videogen.cli.logs import log_to_stderr, renderer_of_arguments
from videogen.cli.parser import parse
from videogen.cli.process_end import discard_stdout, end, open_missing_streams
from videogen.cli.published import translate
from videogen.cli.renderers import INTERRUPTED
from videogen.cli.review import review_of
from videogen.cli.serving import serve
from videogen.cli.sources import Asked, gather, names_bundle
from videogen.cli.status import write_status
from videogen.cli.task_choice import published_task, with_task
from videogen.engine import ray_queue, third_party
from videogen.engine.api import make_videos
from videogen.engine.outcome import Outcome, log_outcome
from videogen.errors import (
    FolderError,
    InputError,
    OutOfMemoryError,
    VideoGenError,
    is_out_of_memory,
    one_line,
)
from videogen.planning import plan_report
from videogen.planning.local_devices import check_device_exists
from videogen.planning.plan import Outline
from videogen.planning.request import Item, make_plans
from videogen.results.output_locks import OutputLocks
from videogen.results.output_paths import OverwritePolicy
from videogen.results.progress import Message, Reporter, RunFailed
from videogen.results.sidecar import changed_inputs
from videogen.results.writable import check_file
from videogen.tasks.list_options import WHOLE
from videogen.tasks.options import RunSettings
from videogen.tasks.table import TASKS, summary

logger = logging.getLogger("videogen")

Work = Callable[[Asked, Path, Reporter], int]
"""What is done with all that was asked for, and a folder for temporary files; returns the exit code."""
# Signals that end a run as Ctrl-C does; Windows has no SIGHUP, which a closed terminal sends.
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
ANOTHER_RANK = (
    "another rank ended (killed, perhaps for want of memory), or all were told to; torchrun's report says "
    "more, and --resume goes on"
)
MEMORY = "out of memory; close other programs, or try --offload, --low_vram or a smaller --resolution"
# Where torch reads how its allocator is set up; the first is the name that it has now.
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


class Ended(BaseException):
    """torchrun ends this rank."""


def main(
    argv: Sequence[str] | None = None,
    *,
    work: Work | None = None,
    about: Program | None = None,
) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the arguments; those of the process unless given.
        work: generates unless given.
        about: what the help text says of it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    open_missing_streams()
    reporter = Reporter(render=renderer_of_arguments(arguments))
    set_up_torch()
    verbose = any(word in ("-v", "--verbose") for word in arguments)
    in_main_thread = threading.current_thread() is threading.main_thread()
    is_main_process = distributed.get_ranks().is_main_process
    # The first rank cleans up; the others have nothing to clean up, and may be waiting for one that is gone.
    alone = distributed.get_ranks().size == 1
    ending = (
        signal.default_int_handler if alone else _ended_by_torchrun if is_main_process else signal.SIG_DFL
    )
    earlier = {number: signal.getsignal(number) for number in ENDING} if in_main_thread else {}
    for number, handler in earlier.items():
        if number == signal.SIGTERM or handler != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, ending)
    if not alone and in_main_thread and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # no longer as while this was imported
    interrupts = Interrupts(reporter, enabled=alone and in_main_thread)
    try:
        if not is_main_process:
            return _follow(arguments)
        with interrupts:
            return _command(arguments, work or _generate, about, reporter)
    except (KeyboardInterrupt, Ended) as end:
        what = f": {ANOTHER_RANK}" if isinstance(end, Ended) else "; nothing half-written was kept"
        return _failed(reporter, INTERRUPTED, f"interrupted{what}")
    except BrokenPipeError:  # the reader of stdout went away
        discard_stdout()
        return _failed(reporter, 1, "")
    except Exception as error:
        return _failed(reporter, *verdict(error), verbose=verbose)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def verdict(error: Exception) -> tuple[int, str]:
    """Return the exit code for what ended the run, and the line that says what it was."""
    line = one_line(error)
    if is_out_of_memory(error):
        told = line if isinstance(error, OutOfMemoryError) else f"{MEMORY} ({line})"
        return OutOfMemoryError.exit_code, told
    if (trouble := own_folders.trouble(error)) is not None:
        return FolderError.exit_code, trouble
    if isinstance(error, VideoGenError):
        return error.exit_code, line
    if distributed.is_peer_loss(error):
        return 1, ANOTHER_RANK
    return 1, f"{line} (-v shows where; please report it with the output of --env)"


def program() -> NoReturn:
    """Run the command line as a process of its own."""
    end(main())


def _ended_by_torchrun(*_: object) -> NoReturn:
    raise Ended


def _failed(reporter: Reporter, code: int, message: str, *, verbose: bool = False) -> int:
    """Say what went wrong; of several ranks, the first that fails does. Returns the exit code."""
    if message and distributed.should_report_error():
        if verbose:
            reporter.emit(Message(level="debug", message=traceback.format_exc().rstrip()))
        rank = "" if distributed.get_ranks().is_main_process else f" (rank {distributed.get_ranks().rank})"
        reporter.emit(RunFailed(exit_code=code, message=f"{message}{rank}"))
    distributed.exit_after_failure(code)
    return code


def _follow(arguments: list[str]) -> int:
    """Follow rank 0 as every other rank does, without a word."""
    given, topic = parse(translate(arguments)[0])
    asked = gather(given)
    if topic is not None or asked.settings.answers:
        return 0
    logger.handlers = [logging.NullHandler()]
    third_party.quieten(verbose=asked.settings.verbose)
    if asked.values.get("use_usp") or asked.settings.jobs:  # else rank 0 says what is wrong
        from videogen.engine.session import worker_loop  # noqa: PLC0415 - torch, diffusers, transformers

        worker_loop()
    return 0


def _command(arguments: list[str], work: Work, about: Program | None, reporter: Reporter) -> int:
    """Answer what needs no work, else do the work."""
    words, notes = translate(arguments)
    given, topic = parse(words)
    if topic is not None:
        topic = topic or given.get("task_type")
        topic = topic and published_task(topic, has_image="input_image" in given)[0]
        say([help_text(topic or None, about, given.get("model_id")).rstrip()])
    elif given.get("version"):
        say([__version__])
    elif given.get("list_tasks"):
        say(f"{name:<24} {summary(name)}; default {task.default_model()}" for name, task in TASKS.items())
    elif shell := given.get("completion"):
        from videogen.cli.completion import script  # noqa: PLC0415

        say([script(shell, about)])
    elif given.get("env"):
        from videogen.cli.environment import environment  # noqa: PLC0415 - only for this

        found = environment(imports=bool(given.get("verbose")))
        say([json.dumps(found.to_json())] if given.get("json") else found.lines())
    else:
        asked = gather(given)
        third_party.quieten(verbose=asked.settings.verbose)  # before any of them is imported
        with log_to_stderr(asked.settings, reporter), write_status(asked, reporter):
            for note in [*notes, *asked.notes]:
                logger.info(note)
            for warning in asked.warnings:
                logger.warning(warning)
            own_folders.check_cache()
            with own_folders.temporary_folder() as workdir:
                return work(asked, workdir, reporter)
    return 0


def _generate(asked: Asked, workdir: Path, reporter: Reporter) -> int:
    """Make the videos, or say what would be made."""
    settings = asked.settings
    if settings.serve:
        return serve(asked, workdir, reporter, lambda line: say([line]))
    if (said := review_of(asked)) is not None:
        say(said)
        return 0
    if settings.caption_only and settings.jobs is not None:
        say(caption_list(asked, workdir, reporter))
        return 0 if settings.dry_run else _end_run(reporter)
    if settings.caption_only:
        say([caption(asked, workdir, dry_run=settings.dry_run)])
        return 0
    policy = OverwritePolicy(overwrite=settings.overwrite, resume=settings.resume)
    ray_queue.check(settings)
    if settings.bundle is not None:
        may_replace = settings.overwrite or settings.resume
        check_file("--bundle", Path(settings.bundle).expanduser(), [".zip"], may_replace=may_replace)
    if settings.jobs == STDIN:
        if settings.shard is not None:
            raise InputError("--shard", settings.shard, "lines have no shares", "write them to a file first")
        return _stream(asked, policy, workdir, reporter)
    if names_bundle(settings):
        items = bundles.read_bundle(asked, workdir)
    elif settings.jobs is not None:
        items = read_jobs(settings.jobs, asked.values, asked.origins)
    else:
        items = [Item(values=with_task(asked.values), origins=asked.origins)]
    with OutputLocks() as locks:
        used, shard = None if settings.dry_run else locks, settings.shard or WHOLE
        plans = make_plans(items, policy, workdir, used, shard=shard)
        if not plans:
            logger.warning("--shard %s: the list has no video for it", shard)
        return _carry_out(plans, settings, reporter, locks)


def _carry_out(plans: list[Outline], settings: RunSettings, reporter: Reporter, locks: OutputLocks) -> int:
    """Make the videos of plans, or say what would be made."""
    _warn(plans, settings)
    for plan in () if settings.ray else plans:
        check_device_exists(plan.options)
    if settings.dry_run:
        say(_described(plans, as_json=settings.json))
        return 0
    if settings.ray:
        return _say_outcomes(ray_queue.run(plans, settings, reporter, locks), settings, reporter)
    resume, retry, in_order = settings.resume, settings.retry, settings.keep_order
    outcomes = make_videos(plans, reporter, resume=resume, retry=retry, keep_order=in_order)
    return _say_outcomes(outcomes, settings, reporter)


def _stream(asked: Asked, policy: OverwritePolicy, workdir: Path, reporter: Reporter) -> int:
    """Make the videos that lines on stdin ask for, each when it comes; a bad line does not stop the rest."""
    settings, taken, count = asked.settings, dict[Path, str](), 0

    def planned() -> Iterator[list[Outline]]:
        nonlocal count
        for items in stream(iter(sys.stdin.readline, ""), asked.values, asked.origins):
            with OutputLocks() as locks:
                try:
                    if isinstance(items, VideoGenError):
                        raise items
                    used = None if settings.dry_run else locks
                    plans = make_plans(items, policy, workdir, used, first=count + 1, taken=taken)
                    for plan in plans:
                        check_device_exists(plan.options)
                except VideoGenError as error:
                    reporter.count(failed=True)
                    logger.error("%s", one_line(error))
                    if settings.json:
                        say([json.dumps({"error": one_line(error)})])
                    continue
                _warn(plans, settings)
                count += len(plans)
                yield plans

    if settings.dry_run:
        say(text for plans in planned() for text in _described(plans, as_json=settings.json))
        return 1 if reporter.failed else 0
    reporter.start_run(None)
    with reporter.stage("libraries"):
        from videogen.engine.queue import run_stream  # noqa: PLC0415 - torch, diffusers, transformers

    outcomes = run_stream(
        (plan for plans in planned() for plan in plans),
        several_gpus=bool(asked.values.get("use_usp")),
        resume=settings.resume,
        retry=settings.retry,
        reporter=reporter,
    )
    return _say_outcomes(outcomes, settings, reporter)


def _warn(plans: Sequence[Outline], settings: RunSettings) -> None:
    """Say what is to be known about the plans, each thing once; on a terminal a dry run's report says it."""
    on_terminal = sys.stdout.isatty() and sys.stderr.isatty()
    reported = settings.dry_run and not settings.json and on_terminal
    warnings = [note for plan in plans for note in plan.warnings if not reported]
    if (earlier := settings.from_metadata) and not names_bundle(settings):
        changed = {name for plan in plans for name in changed_inputs(earlier, plan.inputs)}
        warnings += [f"{name} is not the file that {earlier} was made from" for name in sorted(changed)]
    for note in dict.fromkeys(warnings):
        logger.warning(note)


def _described(plans: Sequence[Outline], *, as_json: bool) -> Iterator[str]:
    """Yield the plans as --dry_run prints them."""
    if as_json:
        yield from (json.dumps(plan_report.to_json(plan)) for plan in plans)
    else:
        yield plan_report.describe(*plans)


def _say_outcomes(outcomes: Iterator[Outcome], settings: RunSettings, reporter: Reporter) -> int:
    """Say one path or JSON object per result, and what failed; returns the exit code."""
    done: list[Outcome] = []
    is_list = settings.jobs is not None or names_bundle(settings)

    def lines() -> Iterator[str]:
        for outcome in outcomes:
            if is_list:
                log_outcome(outcome)
            if settings.bundle is not None:
                done.append(outcome)
            if (result := outcome.result) is not None:
                path = str(result.outputs.path)
                record = {"path": path, "sidecar": str(result.outputs.sidecar), **result.record}
                yield json.dumps(record) if settings.json else path
                continue
            plan, error = outcome.plan, outcome.error
            assert error is not None
            logger.debug(outcome.trace)
            if settings.json:
                about = {"index": plan.index, "seed": plan.seed, "request": plan.request}
                yield json.dumps({"error": one_line(error), **about})

    say(lines())
    if settings.bundle is not None:
        bundles.write(settings, done)
    return _end_run(reporter)


def _end_run(reporter: Reporter) -> int:
    """Say what became of a run; returns its exit code."""
    reporter.end_run()
    if not reporter.failed:
        return 0
    message = f"{reporter.failed} of {reporter.made} videos failed"
    reporter.emit(RunFailed(exit_code=1, message=message))
    return 1


def say(lines: Iterable[str]) -> None:
    """Print lines to stdout, each at once.

    Where stdout fails, all lines are taken all the same, so that the work behind them is done.

    Raises:
        VideoGenError: stdout failed.
    """
    failure: OSError | None = None
    for line in lines:
        try:
            print(line, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            failure = failure or error
            discard_stdout()
    if failure is not None:
        why = failure.strerror or failure
        raise VideoGenError(f"stdout cannot be written ({why}); what was made is kept") from None


def set_up_torch() -> None:
    """Set what torch reads when it is imported, unless the user has.

    Segments of fixed size leave gaps between tensors on a GPU; under WSL the driver fails with growing ones
    (pytorch issue 192330). CPU threads that spin while they wait are slow beside other work: they sleep.
    """
    on_linux = sys.platform == "linux" and "microsoft" not in platform.release().lower()
    if on_linux and not any(name in os.environ for name in ALLOCATOR):
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


if __name__ == "__main__":
    program()
