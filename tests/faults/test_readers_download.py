"""Slow and lying servers: every download ends in the promised time, with one line, and leaves nothing."""

import gzip
import itertools
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from videogen.errors import InputError
from videogen.media.download import MAX_STALLS, Fetcher

TIMEOUT = 0.2
OK = b"HTTP/1.1 200 OK\r\n"
ZEROS = gzip.compress(bytes(10**7))
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LATE = f"did not arrive in {MAX_STALLS * TIMEOUT:g} s"
FAILED = "could not be downloaded"


def slowly(*parts: bytes):
    """Yield bytes with a pause after each that is shorter than the timeout."""
    for part in itertools.chain(*parts):
        yield bytes([part]) if isinstance(part, int) else part
        time.sleep(TIMEOUT / 4)


def again(part: bytes):
    return itertools.repeat(part)


# Name -> what the server sends, and what the user is told.
SERVERS = {
    "a status line that drips": (lambda: slowly(b"HTTP/1.1 " + b"2" * 1000), LATE),
    "headers that drip": (lambda: slowly([OK], b"X-A: " + b"b" * 1000), LATE),
    "headers without end": (lambda: itertools.chain([OK], again(b"X-A: b\r\n")), FAILED),
    "a body that drips": (lambda: slowly([OK + b"\r\n"], again(b"x")), LATE),
    "a body of known length that drips": (
        lambda: slowly([OK + b"Content-Length: 1000\r\n\r\n"], again(b"x")),
        LATE,
    ),
    "chunks that drip": (lambda: slowly([CHUNKED], again(b"1\r\nx\r\n")), LATE),
    "the size of a chunk that drips": (lambda: slowly([CHUNKED], b"0" * 1000), LATE),
    "one chunk that drips": (lambda: slowly([CHUNKED + b"fffff\r\n"], again(b"x")), LATE),
    "trailers that drip": (lambda: slowly([CHUNKED + b"1\r\nx\r\n0\r\n"], again(b"a: b\r\n")), LATE),
    "redirects that drip": (
        lambda: slowly(
            [b"HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\n"],
            b"X-A: bbb\r\n",
            [b"Location: /b\r\n\r\n"],
        ),
        LATE,
    ),
    "silence": (lambda: (time.sleep(2) or b"" for _ in range(1)), f"stalled for {TIMEOUT:g} s"),
    "nothing": (lambda: (), FAILED),
    "no HTTP": (lambda: [b"\x00\xff\xfe" * 100], FAILED),
    "a length that is no number": (lambda: [OK + b"Content-Length: many\r\n\r\nx"], FAILED),
    "a length that is too short": (lambda: [OK + b"Content-Length: 0\r\n\r\nxxx"], "is empty"),
    "a length that is too long": (lambda: [OK + b"Content-Length: 9\r\n\r\nx"], FAILED),
    "a chunk of negative size": (lambda: [CHUNKED + b"-5\r\nx\r\n"], FAILED),
    "a chunk without end": (
        lambda: itertools.chain([CHUNKED + b"f" * 15 + b"\r\n"], again(b"x" * 65536)),
        "MB",
    ),
    "compressed zeros": (
        lambda: [OK + b"Content-Encoding: gzip\r\n\r\n" + ZEROS],
        "is sent compressed (gzip)",
    ),
    "a redirect to a file": (
        lambda: [b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"],
        FAILED,
    ),
    "a redirect to nowhere": (
        lambda: [b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n"],
        FAILED,
    ),
}


@pytest.fixture
def serve():
    """Return a function that starts a server and returns its port."""
    listening = []

    def answer(listener, make):
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.recv(65536)
                    for part in make():
                        connection.sendall(part)

    def start(make):
        listener = socket.create_server(("127.0.0.1", 0))
        listening.append(listener)
        threading.Thread(target=answer, args=(listener, make), daemon=True).start()
        return listener.getsockname()[1]

    yield start
    for listener in listening:
        listener.close()


@pytest.mark.slow
def test_slow_and_lying_servers(serve, tmp_path):
    fetcher = Fetcher(folder=tmp_path, timeout=TIMEOUT, limit=2_000_000)
    ports = {name: serve(make) for name, (make, _) in SERVERS.items()}

    def fetch(name):
        started = time.monotonic()
        try:
            fetcher.local("--input_image", f"http://127.0.0.1:{ports[name]}/a.png")
        except InputError as error:
            return str(error), time.monotonic() - started
        return "it was accepted", time.monotonic() - started

    with ThreadPoolExecutor(len(SERVERS)) as pool:
        results = dict(zip(SERVERS, pool.map(fetch, SERVERS), strict=True))
    wrong = {name: said for name, (said, _) in results.items() if SERVERS[name][1] not in said}
    assert not wrong
    assert all(seconds < MAX_STALLS * TIMEOUT + 2 for _, seconds in results.values()), results
    assert not list(tmp_path.iterdir())
