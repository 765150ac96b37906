"""The command line in a forked child that is killed, or gets an error, at a chosen step."""

import gc
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DIED = 77
CHANGES = ("os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir")


@dataclass
class Steps:
    """Changes of files below ``folder``, counted just before they happen; ``act`` is called at number ``at``.

    ``kinds``: events that count. ``log``: gets a line for every one.
    """

    folder: Path
    act: Callable[[], None] = lambda: os._exit(DIED)
    at: int | None = None
    kinds: Sequence[str] = ("open", *CHANGES)
    log: Path | None = None
    seen: int = field(default=0, init=False)

    def watch(self) -> None:
        """Count from now on, for the rest of this process."""
        self.descriptor = (
            None if self.log is None else os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        )
        sys.addaudithook(self._notice)

    def _notice(self, event: str, args: tuple) -> None:
        if event not in self.kinds or not self._counts(event, args):
            return
        if self.descriptor is not None:
            os.write(self.descriptor, f"{event} {Path(os.fsdecode(args[0])).name}\n".encode())
        self.seen += 1
        if self.seen - 1 == self.at:
            self.act()

    def _counts(self, event: str, args: tuple) -> bool:
        path = args[0]
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        if event == "open" and not args[2] & os.O_CREAT:
            return False
        path = Path(os.fsdecode(path))
        return not path.is_absolute() or path.is_relative_to(self.folder)  # relative: within ``rmtree``


@dataclass
class Ended:
    """How a child ended: its exit code (DIED if killed at its step), and what it said."""

    code: int
    err: str


def start(command: Callable[[], int], said: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Run ``command`` in a forked child, after ``prepare``; returns its process id."""
    # Objects of the parent may wait for its threads when they are freed, and the child has none: it frees
    # nothing that is here. What is frozen is also not looked at again before the next fork.
    gc.collect()
    gc.freeze()
    if child := os.fork():
        return child
    code = 70
    try:
        both = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)  # once, or they write over each other
        for number in (1, 2):
            os.dup2(both, number)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        prepare()
        code = command()
        sys.stderr.flush()
    finally:
        os._exit(code)


def finish(child: int, said: Path) -> Ended:
    """Wait for a child."""
    _, status = os.waitpid(child, 0)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return Ended(code, said.read_text())


def run(command: Callable[[], int], said: Path, steps: Steps | None = None) -> Ended:
    """Run ``command`` in a child whose steps are counted."""
    return finish(start(command, said, steps.watch if steps is not None else lambda: None), said)


def kill_sometime(command: Callable[[], int], said: Path, seconds: float, chance: random.Random) -> Ended:
    """Run ``command`` in a child, and kill it after a random time of at most ``seconds``."""
    child = start(command, said)
    time.sleep(chance.uniform(0, seconds))
    os.kill(child, signal.SIGKILL)
    return finish(child, said)
