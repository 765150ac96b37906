"""Starting the server: what may not be, the socket, and the end."""

import errno
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from videogen.checkpoints import resolve
from videogen.errors import InputError
from videogen.planning.origins import Origin
from videogen.results.output_locks import OutputLocks
from videogen.results.progress import Reporter
from videogen.server import page
from videogen.server.access import Guard, is_loopback
from videogen.server.api import make_app
from videogen.server.metrics import Metrics
from videogen.server.requests import Planner
from videogen.server.service import Service
from videogen.server.store import Store
from videogen.server.worker import Worker
from videogen.tasks.options import OPTIONS, RunSettings
from videogen.tasks.table import find

logger = logging.getLogger(__name__)

FOLDER = "result/server"
TOKEN = "VIDEOGEN_TOKEN"
SWITCH_AFTER = 0.0005  # seconds
OPEN_STREAMS = 3  # seconds that answers may still take when the server ends


def serve(
    values: Mapping[str, object],
    origins: Mapping[str, Origin],
    settings: RunSettings,
    *,
    uploads: Path,
    complete: Callable[[Mapping[str, object]], dict[str, object]],
    reporter: Reporter,
    say: Callable[[str], None],
) -> None:
    """Serve until a signal ends the process.

    Args:
        values: the defaults of all videos; ``origins`` says where they come from.
        uploads: a folder for files that the page uploads.
        complete: adds the task where model and inputs leave only one.
        say: is told the address once the server listens.

    Raises:
        InputError, CheckpointError: what it cannot be started with.
    """
    token = settings.token or os.environ.get(TOKEN) or None
    loopback = is_loopback(settings.host)
    if not loopback and token is None:
        what = "can be reached from other machines, so clients must send a token"
        raise InputError("--host", settings.host, what, f"add --token, or set {TOKEN}")
    if not (token or "").isascii():
        raise InputError("--token", None, "must be ASCII, as all that HTTP headers hold", "choose another")
    folder = Path(str(values.get("output_dir") or FOLDER)).expanduser().absolute()
    planner, model = _planner(values, origins, complete, folder)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if settings.dry_run:
        say(f"would serve {model} on http://{host}:{settings.port}, with its queue in {folder}")
        return
    with _listen(settings.host, settings.port) as listener, OutputLocks() as locks:
        if owner := locks.acquire(folder, "server"):
            what = f"is another server's ({owner})"
            raise InputError("--output_dir", folder, what, "give each server its own")
        store = Store(folder)
        store.load()
        figures = Metrics(store)
        worker = Worker(store, planner, reporter, when_done=figures.count, retry=settings.retry)
        service = Service(store=store, worker=worker, planner=planner, metrics=figures, model=model)
        pages = page.mount(make_app(service), service, uploads)
        app: ASGIApp = Guard(pages, loopback=loopback, token=token, count=figures.answered)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=OPEN_STREAMS, lifespan="on"
        )
        # Python lets a thread that computes go on for 5 ms while an answer waits, at every step of it.
        sys.setswitchinterval(SWITCH_AFTER)
        worker.start()
        say(f"http://{host}:{listener.getsockname()[1]}")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:  # the signal that ended it, once more
            pass
        finally:
            logger.info("stopping; what waits, or is being made, goes on at the next start")
            worker.stop()


def _planner(
    values: Mapping[str, object],
    origins: Mapping[str, Origin],
    complete: Callable[[Mapping[str, object]], dict[str, object]],
    folder: Path,
) -> tuple[Planner, str]:
    """Return what plans the requests, and the name of the model.

    Raises:
        InputError, CheckpointError: neither model nor task, a model that is not there, or flags that a server
            has no use for.
    """
    defaults = {name: value for name, value in values.items() if name != "output_dir"}
    for name in defaults:
        if OPTIONS[name].has_fields or name == "use_usp":
            raise InputError(OPTIONS[name].flag, None, "is for one video, not for a server", "leave it out")
    if "{" in str(folder):
        raise InputError("--output_dir", folder, "is one folder for all videos", "leave the braces out")
    given, model = defaults.get("task_type"), defaults.get("model_id")
    if given is None and model is None:
        what = "must know which model it is for"
        raise InputError("--serve", None, what, "add --model_id, --task_type or both")
    only, path = None, resolve.local_path(str(model)) if model else None
    if path is not None:
        resolve.require_folder(f"--model_id {model}", path, "give an existing folder, or a hub id")
    if given is not None:
        defaults = complete(defaults)
        only, revision = str(defaults["task_type"]), defaults.get("revision")
        task = find(only)
        model = defaults.get("model_id") or task.default_model()
        resolve.locate(str(model), None if revision is None else str(revision), task)
    name = str(model) if path is None else path.resolve().name
    return Planner(defaults=defaults, complete=complete, origins=origins, only_task=only), name


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InputError: the port is in use, or the address is not this machine's.
    """
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fix = f"end what uses it, or try {port + 1 if port < 65535 else 8000}"
            raise InputError("--port", port, "is in use", fix) from None
        if error.errno == errno.EACCES:
            raise InputError("--port", port, "is not for this user", "give one above 1023") from None
        fix = "give an address of this machine, such as 127.0.0.1 or 0.0.0.0"
        raise InputError("--host", host, f"cannot be used ({error.strerror})", fix) from None
