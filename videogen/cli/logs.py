"""What is said on stderr, and how much of it: the log, warnings of libraries, and the renderer of events."""

import io
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from videogen.cli.renderers import RENDERERS, Renderer
from videogen.results.progress import Message, Reporter, ReporterHandler
from videogen.tasks.options import RunSettings

logger = logging.getLogger("videogen")


class StderrLines(io.TextIOBase):
    """What anything else writes to ``sys.stderr``, as events line by line."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter, self.rest = reporter, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if line.strip():
                self.reporter.emit(Message(level="info", message=line.rstrip()))
        return len(text)


def progress_name(settings: RunSettings) -> str:
    """Return the name of the renderer that the settings ask for."""
    if settings.progress != "auto":
        return settings.progress
    return "none" if settings.quiet else "bars" if sys.stderr.isatty() else "lines"


def renderer_of_arguments(arguments: Sequence[str]) -> Renderer:
    """Return the renderer of what is wrong with the arguments, from the arguments as they are."""
    words = [word.replace("-", "_") for word in arguments]
    all_json = "__progress=json" in words or ("__progress", "json") in pairwise(words)
    return RENDERERS["json" if all_json else "none"]("__json" in words)


@contextmanager
def log_to_stderr(settings: RunSettings, reporter: Reporter) -> Iterator[None]:
    """Render events as the settings ask for, and the log and what libraries say through them as well."""
    name = progress_name(settings)
    reporter.render = RENDERERS[name](settings.json)
    logger.handlers = [ReporterHandler(reporter)]
    logger.setLevel(logging.ERROR if settings.quiet else logging.DEBUG if settings.verbose else logging.INFO)
    stderr, show = sys.stderr, warnings.showwarning
    if name == "json":
        sys.stderr = StderrLines(reporter)
    if not settings.verbose:  # else with the place that they come from
        warnings.showwarning = lambda message, *_, **__: logger.warning("%s", message)
    try:
        yield
    finally:
        sys.stderr, warnings.showwarning = stderr, show
