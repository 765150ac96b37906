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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from videogen import __version__, distributed
from videogen.cli.parser import help_text, parse
from videogen.cli.process_end import end
from videogen.cli.sources import from_config, from_metadata, read_jobs
from videogen.engine.prompt_writer import write_captions
from videogen.errors import InputError, VideoGenError, one_line
from videogen.files import work_folder
from videogen.media.download import Fetcher
from videogen.media.video_reader import read_video
from videogen.planning import plan_report
from videogen.planning.plan import Plan
from videogen.planning.request import Item, check_runtime, make_plans
from videogen.prompts.roles import find_writers
from videogen.results.output_locks import OutputLocks
from videogen.results.output_paths import OverwritePolicy
from videogen.results.sidecar import changed_inputs
from videogen.tasks.options import OPTIONS, Options, defaults, merge
from videogen.tasks.table import TASKS, find

logger = logging.getLogger("videogen")

INTERRUPTED = 130
# Signals that end a run as Ctrl-C does; Windows has no SIGHUP, which a closed terminal sends.
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
ANOTHER_RANK = (
    "another rank ended (killed, perhaps for want of memory), or all were told to; torchrun's report says "
    "more, and --resume goes on"
)
# Where torch reads how its allocator is set up; the first is the name that it has now.
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
# Flags whose answer is all there is to do.
ANSWERS = ("version", "list_tasks", "env", "dry_run", "caption_only")


class Ended(BaseException):
    """torchrun ends this rank."""


def main(argv: Sequence[str] | None = None, *, command: Callable[[list[str]], int] | None = None) -> int:
    """Run the command line (or another ``command`` in its manner); returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    use_expandable_segments()
    verbose = any(word in ("-v", "--verbose") for word in arguments)
    in_main_thread = threading.current_thread() is threading.main_thread()
    is_main_process = distributed.get_ranks().is_main_process
    # The first rank cleans up; the others have nothing to clean up, and may be waiting for one that is gone.
    first: Any = signal.default_int_handler if distributed.get_ranks().size == 1 else _ended_by_torchrun
    ending = first if is_main_process else signal.SIG_DFL
    earlier = {number: signal.getsignal(number) for number in ENDING} if in_main_thread else {}
    for number, handler in earlier.items():
        if number == signal.SIGTERM or handler != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, ending)
    try:
        return (command or _main)(arguments) if is_main_process else _follow(arguments)
    except VideoGenError as error:
        return _failed(error.exit_code, f"error: {one_line(error)}", verbose)
    except (KeyboardInterrupt, Ended) as end:
        what = f": {ANOTHER_RANK}" if isinstance(end, Ended) else "; nothing half-written was kept"
        return _failed(INTERRUPTED, f"interrupted{what}")
    except BrokenPipeError:  # the reader of stdout went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _failed(1, "")
    except Exception as error:
        advice = "-v shows where; please report it with the output of --env"
        told = ANOTHER_RANK if distributed.is_peer_loss(error) else f"{one_line(error)} ({advice})"
        return _failed(1, f"error: {told}", verbose)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def program() -> NoReturn:
    """Run the command line as a process of its own."""
    end(main())


def _ended_by_torchrun(*_: object) -> None:
    raise Ended


def _failed(code: int, message: str, verbose: bool = False) -> int:
    """Say what went wrong; of several ranks, the first that fails does. Returns the exit code."""
    if message and distributed.should_report_error():
        if verbose:
            traceback.print_exc()
        rank = "" if distributed.get_ranks().is_main_process else f" (rank {distributed.get_ranks().rank})"
        print(f"{message}{rank}", file=sys.stderr)
    distributed.exit_after_failure(code)
    return code


def _follow(arguments: list[str]) -> int:
    """Follow rank 0 as every other rank does, without a word."""
    given, wants_help = parse(arguments)
    values, settings, _ = gather(given)
    if wants_help or any(settings.get(name) for name in ANSWERS):
        return 0
    logger.handlers = [logging.NullHandler()]
    quieten_libraries(settings)
    if values.get("use_usp") or settings.get("jobs"):  # else rank 0 says what is wrong
        from videogen.engine.session import worker_loop  # noqa: PLC0415 - torch, diffusers, transformers

        worker_loop()
    return 0


def _main(arguments: list[str]) -> int:
    given, wants_help = parse(arguments)
    if wants_help:
        print(help_text(given.get("task_type")), end="")
        return 0
    if given.get("version"):
        print(__version__)
        return 0
    if given.get("list_tasks"):
        for task in TASKS.values():
            print(f"{task.name:<24} {task.summary}; default {task.default_model}")
        return 0
    set_up_logging(given)
    if given.get("env"):
        from videogen.runtime.device import environment  # noqa: PLC0415 - needs torch

        print(*environment(), sep="\n")
        return 0
    with work_folder() as workdir, OutputLocks() as locks:
        return _generate(given, workdir, locks)


def _generate(given: dict[str, Any], workdir: Path, locks: OutputLocks) -> int:
    values, settings, recorded = gather(given)
    set_up_logging(settings)
    quieten_libraries(settings)  # before any of them is imported
    bars = wants_bars()
    if settings.get("caption_only"):
        return _caption(values, workdir, dry_run=settings.get("dry_run", False))
    items = [Item(values=values, recorded=recorded)]
    if "jobs" in settings:
        items = read_jobs(settings["jobs"], values, recorded)
    policy = OverwritePolicy(overwrite=settings.get("overwrite", False), resume=settings.get("resume", False))
    plans = make_plans(items, policy, workdir, None if settings.get("dry_run") else locks)
    warnings = [note for plan in plans for note in plan.warnings]
    if earlier := settings.get("from_metadata"):
        changed = {name for plan in plans for name in changed_inputs(earlier, plan.inputs)}
        warnings += [f"{name} is not the file that {earlier} was made from" for name in sorted(changed)]
    for note in dict.fromkeys(warnings):
        logger.warning(note)
    if not settings.get("dry_run"):
        return _run(plans, settings, bars=bars)
    if settings.get("json"):
        print(*(json.dumps(plan_report.to_json(plan)) for plan in plans), sep="\n")
    else:
        print(*(plan_report.describe(plan) for plan in plans), sep="\n\n")
    return 0


def _caption(values: dict[str, Any], workdir: Path, *, dry_run: bool) -> int:
    """Print what the models that write prompts say, and no more."""
    options = Options.of(merge(defaults(), values))
    check_runtime(options)
    given = options.input_video
    if given is None and not (options.prompt and options.prompt_enhancer):
        fix = "give one of the two"
        raise InputError(
            "--caption_only", None, "needs --input_video, or --prompt with --prompt_enhancer", fix
        )
    task = find(options.task_type) if options.task_type else None
    role = "describer" if task is not None and task.describes else "captioner"
    writers = find_writers(options, needed=() if given is None else (role,))
    fetcher = Fetcher(folder=workdir, timeout=options.download_timeout)
    video = None if given is None else read_video("--input_video", given, fetcher)
    for found in writers.values():
        if found.note:
            logger.warning(found.note)
    said = (
        {role: found.title for role, found in writers.items()}
        if dry_run
        else write_captions(options, video, role)
    )
    print(json.dumps(said, indent=2, ensure_ascii=False))
    return 0


def _run(plans: list[Plan], settings: dict[str, Any], *, bars: bool) -> int:
    """Make the videos; prints one path or JSON object per result."""
    for plan in plans:
        shape = plan.shape
        size = f"{shape.width}x{shape.height}, {shape.num_frames} frames"
        logger.info("video %d: seed %d, %s", plan.index, plan.seed, size)
    logger.info("loading libraries")
    from videogen.engine.session import Failure, run  # noqa: PLC0415 - torch, diffusers, transformers

    failed = 0
    for outcome in run(plans, resume=settings.get("resume", False), show_progress=bars):
        if isinstance(outcome, Failure):
            failed += 1
            plan, message = outcome.plan, one_line(outcome.error)
            logger.debug(outcome.trace)
            logger.error("video %d of %d failed: %s", plan.index, len(plans), message)
            line = None
            record = {"error": message, "index": plan.index, "seed": plan.seed, "request": plan.request}
        else:
            line = str(outcome.outputs.path)
            record = {"path": line, "sidecar": str(outcome.outputs.sidecar), **outcome.record}
        if settings.get("json"):
            line = json.dumps(record)
        if line is not None:
            print(line, flush=True)
    if failed:
        logger.error("%d of %d videos failed", failed, len(plans))
    return 1 if failed else 0


def gather(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    """Values of the videos, settings of the run, and which values are an earlier result's.

    Flags go before --config before --from_metadata.
    """
    config = from_config(given["config"]) if "config" in given else {}
    stronger = merge(config, given)
    earlier = from_metadata(given["from_metadata"], stronger) if "from_metadata" in given else {}
    values = merge(earlier, stronger)
    settings = {name: values.pop(name) for name in list(values) if OPTIONS[name].about_run}
    return values, settings, earlier.keys() - stronger.keys()


class _Lines(logging.Formatter):
    """'warning: text' for what needs attention, bare text for the rest."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


def set_up_logging(settings: dict[str, Any]) -> None:
    """Our messages on stderr; --quiet leaves errors, -v adds detail."""
    level = (
        logging.ERROR if settings.get("quiet") else logging.DEBUG if settings.get("verbose") else logging.INFO
    )
    handler = logging.StreamHandler()  # on what stderr is now
    handler.setFormatter(_Lines("%(message)s"))
    logger.handlers = [handler]
    logger.setLevel(level)


def say(text: str) -> None:
    """To stdout, at once."""
    print(text, flush=True)


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


def quieten_libraries(settings: dict[str, Any]) -> None:
    """Keep other libraries' start-up chatter out of our output, unless -v asks for it."""
    if not wants_bars():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    if settings.get("verbose"):
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
