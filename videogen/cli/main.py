"""The command line: what runs, what is printed, exit codes; the only place that prints to stdout.

Imports nothing heavy: ``--help`` and every complaint about arguments and inputs come before torch is loaded.
"""

import contextlib
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
from videogen.cli import own_folders
from videogen.cli.parser import Program, help_text, parse
from videogen.cli.process_end import discard_stdout, end, open_missing_streams
from videogen.cli.sources import Asked, gather, read_jobs
from videogen.engine.prompt_writer import write_captions
from videogen.errors import (
    FolderError,
    InputError,
    OutOfMemoryError,
    VideoGenError,
    is_out_of_memory,
    one_line,
)
from videogen.media.download import Fetcher
from videogen.media.video_reader import read_video
from videogen.planning import plan_report
from videogen.planning.plan import Outline
from videogen.planning.request import Item, check_runtime, make_plans
from videogen.prompts.roles import find_prompt_writers
from videogen.results.output_locks import OutputLocks
from videogen.results.output_paths import OverwritePolicy
from videogen.results.sidecar import changed_inputs
from videogen.tasks.options import Options, RunSettings, defaults, merge
from videogen.tasks.table import TASKS, find, summary

logger = logging.getLogger("videogen")

INTERRUPTED = 130
# Signals that end a run as Ctrl-C does; Windows has no SIGHUP, which a closed terminal sends.
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
ANOTHER_RANK = (
    "another rank ended (killed, perhaps for want of memory), or all were told to; torchrun's report says "
    "more, and --resume goes on"
)
MEMORY = "out of memory; close other programs, or try --offload, --low_vram or a smaller --resolution"
# Where torch reads how its allocator is set up; the first is the name that it has now.
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
# Flags whose answer is all there is to do.
ANSWERS = ("version", "list_tasks", "env", "dry_run", "caption_only")


class Ended(BaseException):
    """torchrun ends this rank."""


def main(
    argv: Sequence[str] | None = None,
    *,
    work: Callable[[Asked, Path], int] | None = None,
    about: Program | None = None,
) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the arguments; those of the process unless given.
        work: what is done with all that was asked for, and a folder for temporary files; generates unless
            given.
        about: what the help text says of it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    open_missing_streams()
    use_expandable_segments()
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
    try:
        return _command(arguments, work or _generate, about) if is_main_process else _follow(arguments)
    except (KeyboardInterrupt, Ended) as end:
        what = f": {ANOTHER_RANK}" if isinstance(end, Ended) else "; nothing half-written was kept"
        return _failed(INTERRUPTED, f"interrupted{what}")
    except BrokenPipeError:  # the reader of stdout went away
        discard_stdout()
        return _failed(1, "")
    except Exception as error:
        code, told = verdict(error)
        return _failed(code, f"error: {told}", verbose)
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


def _failed(code: int, message: str, verbose: bool = False) -> int:
    """Say what went wrong; of several ranks, the first that fails does. Returns the exit code."""
    if message and distributed.should_report_error():
        if verbose:
            traceback.print_exc()
        rank = "" if distributed.get_ranks().is_main_process else f" (rank {distributed.get_ranks().rank})"
        with contextlib.suppress(OSError):  # nobody can be told
            print(f"{message}{rank}", file=sys.stderr, flush=True)
    distributed.exit_after_failure(code)
    return code


def _follow(arguments: list[str]) -> int:
    """Follow rank 0 as every other rank does, without a word."""
    given, wants_help = parse(arguments)
    asked = gather(given)
    if wants_help or any(getattr(asked.settings, name) for name in ANSWERS):
        return 0
    logger.handlers = [logging.NullHandler()]
    quieten_libraries(verbose=asked.settings.verbose)
    if asked.values.get("use_usp") or asked.settings.jobs:  # else rank 0 says what is wrong
        from videogen.engine.session import worker_loop  # noqa: PLC0415 - torch, diffusers, transformers

        worker_loop()
    return 0


def _command(arguments: list[str], work: Callable[[Asked, Path], int], about: Program | None) -> int:
    """Answer what needs no work, else do the work."""
    given, wants_help = parse(arguments)
    if wants_help:
        say([help_text(given.get("task_type"), about).rstrip()])
    elif given.get("version"):
        say([__version__])
    elif given.get("list_tasks"):
        say(f"{name:<24} {summary(name)}; default {task.default_model()}" for name, task in TASKS.items())
    elif given.get("env"):
        from videogen.runtime.device import environment  # noqa: PLC0415 - needs torch

        say(environment())
    else:
        asked = gather(given)
        set_up_logging(asked.settings)
        quieten_libraries(verbose=asked.settings.verbose)  # before any of them is imported
        for note in asked.notes:
            logger.info(note)
        for warning in asked.warnings:
            logger.warning(warning)
        own_folders.check_cache()
        with own_folders.temporary_folder() as workdir:
            return work(asked, workdir)
    return 0


def _generate(asked: Asked, workdir: Path) -> int:
    """Make the videos, or say what would be made."""
    settings = asked.settings
    if settings.caption_only:
        say([_caption(Options.of(merge(defaults(), asked.values)), workdir, dry_run=settings.dry_run)])
        return 0
    items = [Item(values=asked.values, recorded=asked.recorded)]
    if settings.jobs is not None:
        items = read_jobs(settings.jobs, asked.values, asked.recorded)
    policy = OverwritePolicy(overwrite=settings.overwrite, resume=settings.resume)
    with OutputLocks() as locks:
        plans = make_plans(items, policy, workdir, None if settings.dry_run else locks)
        return _carry_out(plans, settings)


def _carry_out(plans: list[Outline], settings: RunSettings) -> int:
    """Make the videos of plans, or say what would be made."""
    warnings = [note for plan in plans for note in plan.warnings]
    if earlier := settings.from_metadata:
        changed = {name for plan in plans for name in changed_inputs(earlier, plan.inputs)}
        warnings += [f"{name} is not the file that {earlier} was made from" for name in sorted(changed)]
    for note in dict.fromkeys(warnings):
        logger.warning(note)
    if not settings.dry_run:
        return _run(plans, settings)
    if settings.json:
        say(json.dumps(plan_report.to_json(plan)) for plan in plans)
    else:
        say(["\n\n".join(plan_report.describe(plan) for plan in plans)])
    return 0


def _caption(options: Options, workdir: Path, *, dry_run: bool) -> str:
    """Return what the models that write prompts say, as JSON."""
    check_runtime(options)
    given = options.input_video
    if given is None and not (options.prompt and options.prompt_enhancer):
        what = "needs --input_video, or --prompt with --prompt_enhancer"
        raise InputError("--caption_only", None, what, "give one of the two")
    task = find(options.task_type) if options.task_type else None
    role = "describer" if task is not None and task.describes else "captioner"
    prompt_writers = find_prompt_writers(options, needed=() if given is None else (role,))
    fetcher = Fetcher(folder=workdir, timeout=options.download_timeout)
    video = None if given is None else read_video("--input_video", given, fetcher)
    for note in video.notes if video is not None else ():
        logger.warning(note)
    for found in prompt_writers.values():
        if found.note:
            logger.warning(found.note)
    titles = {role: found.title for role, found in prompt_writers.items()}
    said = titles if dry_run else write_captions(options, video, role)
    return json.dumps(said, indent=2, ensure_ascii=False)


def _run(plans: list[Outline], settings: RunSettings) -> int:
    """Make the videos; says one path or JSON object per result."""
    for plan in plans:
        shape = plan.shape
        size = f"{shape.width}x{shape.height}, {shape.num_frames} frames"
        logger.info("video %d: seed %d, %s", plan.index, plan.seed, size)
    logger.info("loading libraries")
    from videogen.engine.session import Failure, run  # noqa: PLC0415 - torch, diffusers, transformers

    failed = 0

    def outcomes() -> Iterator[str]:
        nonlocal failed
        for outcome in run(plans, resume=settings.resume, show_progress=wants_bars()):
            if not isinstance(outcome, Failure):
                path = str(outcome.outputs.path)
                record = {"path": path, "sidecar": str(outcome.outputs.sidecar), **outcome.record}
                yield json.dumps(record) if settings.json else path
                continue
            failed += 1
            plan, message = outcome.plan, one_line(outcome.error)
            logger.debug(outcome.trace)
            logger.error("video %d of %d failed: %s", plan.index, len(plans), message)
            if settings.json:
                about = {"index": plan.index, "seed": plan.seed, "request": plan.request}
                yield json.dumps({"error": message, **about})

    say(outcomes())
    if failed:
        logger.error("%d of %d videos failed", failed, len(plans))
    return 1 if failed else 0


class _Lines(logging.Formatter):
    """'warning: text' for what needs attention, bare text for the rest."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


def set_up_logging(settings: RunSettings) -> None:
    """Our messages on stderr; --quiet leaves errors, -v adds detail."""
    handler = logging.StreamHandler()  # on what stderr is now
    handler.setFormatter(_Lines("%(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.ERROR if settings.quiet else logging.DEBUG if settings.verbose else logging.INFO)


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


def wants_bars() -> bool:
    """Progress bars are for terminals."""
    return sys.stderr.isatty() and logger.level < logging.ERROR


def use_expandable_segments() -> None:
    """Let torch's allocator grow its segments on a GPU, unless the user has set it up.

    Segments of fixed size leave gaps between tensors of many sizes. torch reads it when it is imported. Under
    WSL the driver fails with it (pytorch issue 192330).
    """
    on_linux = sys.platform == "linux" and "microsoft" not in platform.release().lower()
    if on_linux and not any(name in os.environ for name in ALLOCATOR):
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"


def quieten_libraries(*, verbose: bool) -> None:
    """Keep other libraries' start-up chatter out of our output, unless -v asks for it."""
    if not wants_bars():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    if verbose:
        return
    import warnings  # noqa: PLC0415

    warnings.filterwarnings("ignore")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TORCH_LOGS", "-all")
    for name in ("torchao", "torch.utils._pytree", "transformers", "diffusers", "peft"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    program()
