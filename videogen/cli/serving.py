"""--serve: hand what was asked for to the server, whose libraries are an extra."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from videogen.cli.sources import Asked
from videogen.cli.task_choice import with_task
from videogen.errors import InputError
from videogen.results.progress import Reporter

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "gradio")


def serve(asked: Asked, workdir: Path, reporter: Reporter, say: Callable[[str], None]) -> int:
    """Serve until a signal ends the process, and return the exit code; see ``videogen.server.start``.

    Raises:
        InputError: a package that is not installed, or what the server cannot be started with.
    """
    for package in PACKAGES:
        if find_spec(package) is None:
            fix = "pip install 'videogen[serve]'"
            raise InputError("--serve", None, f"needs the package {package}, not installed", fix)
    from videogen.server import start  # noqa: PLC0415 - an extra

    start.serve(
        asked.values,
        asked.origins,
        asked.settings,
        uploads=workdir / "uploads",
        complete=with_task,
        reporter=reporter,
        say=say,
    )
    return 0
