"""The command line in processes that can be interrupted and killed.

They are forked from one that has the libraries loaded, so that not each takes seconds to import them.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp


@cache
def _fork_server() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["videogen.cli.main", "videogen.engine.session", "videogen.runtime.apply"])
    return context


def _run(
    program: str,
    words: list[str],
    said: Path,
    environment: dict[str, str],
    before: Callable[[], object] | None,
) -> None:
    """Be the command line of a module."""
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    for stream in (sys.stdout, sys.stderr):
        with (said / str(stream.fileno())).open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = [program, *words]
    if before:
        before()
    importlib.import_module(program).program()


class Running:
    """A process of the command line; ``before`` is called in it first."""

    def __init__(
        self, *words: object, program: str = "videogen.cli.main", before: Callable[[], object] | None = None
    ):
        self.said = Path(mkdtemp(dir=os.environ["VIDEOGEN_CACHE"]))
        arguments = (program, [str(word) for word in words], self.said, dict(os.environ), before)
        self.process = _fork_server().Process(target=_run, args=arguments)
        self.process.start()

    def wait_for(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Poll until something is there; fail if the process ends first."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.is_alive(), self.end()
            assert time.monotonic() < end
            time.sleep(0.005)

    @property
    def stderr(self) -> str:
        """What was said on stderr so far."""
        file = self.said / "2"
        return file.read_text() if file.exists() else ""

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self, seconds: float = 240) -> tuple[int, str, str]:
        """Wait for the end; return the exit code, and what was said on stdout and stderr."""
        self.process.join(seconds)
        assert self.process.exitcode is not None
        out, err = ((self.said / name).read_text() for name in "12")
        return self.process.exitcode, out, err


def kill_when(condition: Callable[[], object], *words: object, program: str = "videogen.cli.main") -> None:
    """Run the command line, and kill it as soon as something is there."""
    running = Running(*words, program=program)
    running.wait_for(condition)
    running.send(signal.SIGKILL)
    running.end()
