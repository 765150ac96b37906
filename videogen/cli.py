"""The command line: parser, help and exit codes; the only place that prints to stdout.

Imports nothing heavy: ``--help`` and every complaint about arguments and inputs come before torch is loaded.
"""

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from videogen import __version__
from videogen.errors import InputError, VideoGenError, nearest
from videogen.options import FLAG_NAMES, GROUPS, OPTIONS, Option
from videogen.tasks import TASKS, TaskSpec, find

logger = logging.getLogger("videogen")

DESCRIPTION = "Generate video with the Wan-family models."
EPILOG = """examples:
  generate_video.py --task_type reference_to_video --model_id tiny --prompt "a robot waves" \\
      --ref_imgs ref_imgs/robot.png --output first.mp4
  generate_video.py --task_type reference_to_video --help        the flags and defaults of one task

exit codes: 0 done, 1 unexpected or some video failed, 2 invalid input, 3 missing or invalid checkpoint,
            4 out of memory, 130 interrupted
"""
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Complaints in one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError("command line", None, message, "see --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbose = any(word in ("-v", "--verbose") for word in arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _main(arguments)
    except VideoGenError as error:
        _complain(str(error), verbose)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; nothing unfinished was kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of stdout went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        _complain(
            f"{type(error).__name__}: {error} (-v shows where; please report it with the output of --env)",
            verbose,
        )
        return 1


def _complain(message: str, verbose: bool) -> None:
    if verbose:
        traceback.print_exc()
    print(f"error: {' '.join(message.split())}", file=sys.stderr)


def _main(arguments: list[str]) -> int:
    given, wants_help = parse(arguments)
    if wants_help:
        print(help_text(given.get("task_type")), end="")
        return 0
    if given.get("version"):
        print(__version__)
        return 0
    if given.get("list_tasks"):
        print(
            "\n".join(f"{task.name:<24} {task.summary}; default {task.models[0]}" for task in TASKS.values())
        )
        return 0
    set_up_logging(given)
    if given.get("env"):
        from videogen.runtime.device import environment  # noqa: PLC0415 - needs torch

        print("\n".join(environment()))
        return 0
    with tempfile.TemporaryDirectory(prefix="videogen-") as workdir:
        return _generate(given, Path(workdir))


def _generate(given: dict[str, Any], workdir: Path) -> int:
    from videogen.request import make_plans  # noqa: PLC0415 - not for --help
    from videogen.targets import Existing  # noqa: PLC0415

    values, settings = gather(given)
    set_up_logging(settings)
    existing = Existing(overwrite=settings.get("overwrite", False), resume=settings.get("resume", False))
    plans = make_plans(_items(values, settings), existing, workdir)
    for note in dict.fromkeys(note for plan in plans for note in plan.notes):
        logger.warning(note)
    if settings.get("dry_run"):
        as_json = settings.get("json")
        print(
            "\n".join(json.dumps(plan.as_json()) for plan in plans)
            if as_json
            else "\n\n".join(p.describe() for p in plans)
        )
        return 0
    for plan in plans:
        logger.info(
            "video %d: seed %d, %dx%d, %d frames",
            plan.index,
            plan.seed,
            plan.shape.width,
            plan.shape.height,
            plan.shape.num_frames,
        )
    return _run(plans, settings)


def _run(plans: list, settings: dict[str, Any]) -> int:
    """Make the videos; prints one path or JSON object per result."""
    bars = sys.stderr.isatty() and not settings.get("quiet")
    _quieten_libraries(settings, bars=bars)
    logger.info("loading libraries")
    from videogen.run import Failure, run  # noqa: PLC0415 - torch, diffusers, transformers

    failed = 0
    for outcome in run(plans, resume=settings.get("resume", False), show_progress=bars):
        if isinstance(outcome, Failure):
            failed += 1
            plan, error = outcome.plan, outcome.error
            wants_trace = logger.isEnabledFor(logging.DEBUG)
            logger.error("video %d of %d failed: %s", plan.index, len(plans), error, exc_info=wants_trace)
            record = {"error": str(error), "index": plan.index, "seed": plan.seed, "request": plan.request}
            line = json.dumps(record) if settings.get("json") else None
        else:
            target = outcome.target
            record = {"path": str(target.path), "sidecar": str(target.sidecar), **outcome.record}
            line = json.dumps(record) if settings.get("json") else str(target.path)
        if line is not None:
            print(line, flush=True)
    if failed:
        logger.error("%d of %d videos failed", failed, len(plans))
    return 1 if failed else 0


def _items(values: dict[str, Any], settings: dict[str, Any]) -> list:
    from videogen.request import Item  # noqa: PLC0415
    from videogen.sources import read_jobs  # noqa: PLC0415

    return read_jobs(settings["jobs"], values) if settings.get("jobs") else [Item(values=values)]


def gather(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(values of the videos, settings of the run) from flags, --config and --from_metadata, in that
    precedence.
    """
    from videogen.request import merge  # noqa: PLC0415
    from videogen.sources import from_config, from_metadata  # noqa: PLC0415

    config = from_config(given["config"]) if "config" in given else {}
    stronger = merge(config, given)
    earlier = from_metadata(given["from_metadata"], stronger) if "from_metadata" in given else {}
    values = merge(earlier, stronger)
    settings = {name: values.pop(name) for name in list(values) if OPTIONS[name].about_run}
    return values, settings


# -- parsing
# -----------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """(explicit option values, whether help was asked for).

    Raises:
        InputError: an unknown flag, a missing or a bad value.
    """
    parser = _Parser(add_help=False, allow_abbrev=False, prog="generate_video.py")
    parser.add_argument("-h", "--help", action="store_true")
    for option in OPTIONS.values():
        names = [f"--{name}" for name in (option.name, *option.aliases)]
        if option.name == "verbose":
            names.append("-v")
        if option.parse is None:
            parser.add_argument(*names, dest=option.name, action="store_true", default=None)
        else:
            parser.add_argument(*names, dest=option.name, action="append")
    namespace, unknown = parser.parse_known_args(normalized(arguments))
    if unknown:
        word = unknown[0].partition("=")[0]
        close = nearest(word, [f"--{name}" for name in FLAG_NAMES])
        raise InputError(
            word,
            None,
            "unknown flag" if word.startswith("-") else "not a flag",
            f"nearest {close}" if close else "see --help",
        )
    raw = {name: value for name, value in vars(namespace).items() if name != "help" and value is not None}
    return {name: _checked(OPTIONS[name], value) for name, value in raw.items()}, namespace.help


def _checked(option: Option, given: Any) -> Any:
    return option.value(given if option.parse is None or option.repeat else given[-1])  # the last one counts


def normalized(arguments: Sequence[str]) -> list[str]:
    """Flags in snake_case, joined to their values, so that a value may begin with a dash."""
    joined: list[str] = []
    rest = iter(arguments)
    for word in rest:
        flag, equals, value = word.partition("=")
        spelling = flag[2:].replace("-", "_")
        option = OPTIONS.get(FLAG_NAMES.get(spelling, "")) if flag.startswith("--") else None
        if option is None:
            joined.append(word)
        elif option.parse is None:
            joined.append(f"--{spelling}{equals}{value}")
        else:
            following = value if equals else next(rest, None)
            if following is None or (not equals and _is_flag(following)):
                raise InputError(
                    f"--{spelling}", None, "needs a value", f"--{spelling} {option.metavar or 'VALUE'}"
                )
            drawn = (
                spelling == "base_seed" and following.strip() == "-1"
            )  # upstream's way of asking for any seed
            joined.append(f"--{spelling}={'random' if drawn else following}")
    return joined


def _is_flag(word: str) -> bool:
    return word in ("-h", "-v") or (
        word.startswith("--") and word[2:].partition("=")[0].replace("-", "_") in {*FLAG_NAMES, "help"}
    )


# -- help
# --------------------------------------------------------------------------------------------------------


def help_text(task_name: str | None) -> str:
    """Help for all tasks, or for one with its own defaults."""
    task = find(task_name) if task_name is not None else None
    parser = argparse.ArgumentParser(
        prog="generate_video.py",
        description=f"{task.name}: {task.summary}." if task else DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="generate_video.py --task_type TASK --prompt TEXT [flags]",
        add_help=False,
    )
    for title, options in GROUPS.items():
        shown = [
            option
            for option in options
            if any(option.used_by(name) for name in ([task.name] if task else TASKS))
        ]
        if not shown:
            continue
        group = parser.add_argument_group(title)
        for option in shown:
            names = [f"--{name}" for name in (option.name, *option.aliases)] + (
                ["-v"] if option.name == "verbose" else []
            )
            text = _described(option, task).replace("%", "%%")
            if option.parse is None:
                group.add_argument(*names, action="store_true", help=text)
            else:
                group.add_argument(*names, metavar=option.metavar or "VALUE", help=text)
    parser.add_argument(
        "-h", "--help", action="store_true", help="this text; with --task_type, that task's flags"
    )
    return parser.format_help()


def _described(option: Option, task: TaskSpec | None) -> str:
    text = option.help
    if option.name == "task_type":
        text += f": {', '.join(TASKS)}"
    if choices := getattr(option.parse, "choices", None):
        text += f" ({', '.join(choices)})"
    if task is None:
        users = [name for name in TASKS if option.used_by(name)]
        return text if option.tasks is None else f"{text} [{', '.join(users)}]"
    if option.name == "resolution":
        text += f" ({', '.join(task.size_tables())})"
    default = {
        **_runtime_defaults(),
        **task.defaults(),
        "model_id": task.models[0],
        "revision": task.revision,
    }.get(option.name)
    return text if default in (None, (), False) else f"{text} (default {default!r})"


def _runtime_defaults() -> dict[str, Any]:
    from videogen.request import RUNTIME_DEFAULTS  # noqa: PLC0415

    return RUNTIME_DEFAULTS


# -- messages
# ----------------------------------------------------------------------------------------------------


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


def _quieten_libraries(settings: dict[str, Any], *, bars: bool) -> None:
    """Keep other libraries' start-up chatter out of our output, unless -v asks for it."""
    if not bars:
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
    sys.exit(main())
