"""An HTTP session that ends at a deadline. Imported with the first URL, because requests takes 0.1 s."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter


class Deadline:
    """Connections that are closed when the time is up, whatever they wait for.

    The timeout of requests counts from the last byte, so a server that sends a byte now and then has no end.
    """

    def __init__(self) -> None:
        self.passed = False
        self.connections: list[socket.socket] = []

    def watch(self, connection: socket.socket) -> None:
        """Add a connection; a duplicate is kept, since TLS takes the socket itself away."""
        self.connections.append(connection.dup())
        if self.passed:
            self.end()

    def end(self) -> None:
        """Shut all connections down; whoever reads from one sees its end at once."""
        self.passed = True
        for connection in self.connections:
            with suppress(OSError):  # it is closed already
                connection.shutdown(socket.SHUT_RDWR)


class _WatchedAdapter(HTTPAdapter):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self.deadline = deadline

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        kind, watch = pool.ConnectionCls, self.deadline.watch

        class Watched(kind):  # type: ignore[valid-type,misc]  # http or https
            def _new_conn(self) -> socket.socket:
                connection = super()._new_conn()
                watch(connection)
                return connection

        pool.ConnectionCls = Watched
        return pool


@contextmanager
def session_with_deadline(seconds: float) -> Iterator[tuple[requests.Session, Deadline]]:
    """Yield a session, and the deadline that closes its connections after some seconds."""
    deadline = Deadline()
    timer = threading.Timer(seconds, deadline.end)
    timer.daemon = True
    timer.start()
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, _WatchedAdapter(deadline))
            yield session, deadline
    finally:
        timer.cancel()
        for connection in deadline.connections:
            connection.close()
