"""Ctrl-C: answered at once, obeyed after the step that is running; the second time at once."""

import _thread  # whose threads nobody waits for: ``threading`` hangs where there is no memory to start one
import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Self

from videogen.results.progress import Reporter, Stopping

ANSWER_AFTER = 0.5  # seconds; a run that ends sooner needs no answer


class Interrupts:
    """Ctrl-C while the block runs, if it is anything to this process.

    Python runs a handler between two instructions of its own, which a long call into torch keeps it from; so
    the answer comes from a thread that the system wakes.
    """

    def __init__(self, reporter: Reporter, *, enabled: bool) -> None:
        self.reporter = reporter
        self.enabled = enabled and os.name == "posix" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN
        self.ended, self.answered = threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        if self.enabled:
            self.inlet, self.outlet = os.pipe()
            os.set_blocking(self.outlet, False)
            self.handler = signal.signal(signal.SIGINT, self._interrupt)
            self.wakeup = signal.set_wakeup_fd(self.outlet, warn_on_full_buffer=False)
            with suppress(RuntimeError):  # no thread: Ctrl-C is obeyed, and not answered
                _thread.start_new_thread(self._answer, ())
        return self

    def __exit__(self, *_: object) -> None:
        if self.enabled:
            self.ended.set()
            signal.set_wakeup_fd(self.wakeup)
            signal.signal(signal.SIGINT, self.handler)
            os.close(self.outlet)
            if self.answered.wait(ANSWER_AFTER):
                os.close(self.inlet)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as signals call it
        if self.reporter.is_stepping and not self.reporter.wants_stop:
            self.reporter.wants_stop = True
        else:
            raise KeyboardInterrupt

    def _answer(self) -> None:
        """Say that Ctrl-C was heard, once."""
        try:
            self._wait_and_say()
        finally:
            self.answered.set()

    def _wait_and_say(self) -> None:
        while numbers := os.read(self.inlet, 1):
            if numbers[0] != signal.SIGINT:
                continue
            stepping = self.reporter.is_stepping or self.reporter.wants_stop  # the step may have ended by now
            if stepping or not self.ended.wait(ANSWER_AFTER):
                self.reporter.emit(Stopping(after="after this step" if stepping else ""))
            return
