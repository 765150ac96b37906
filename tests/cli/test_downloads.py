"""Inputs from URLs: servers that stall, drip, never end, or answer something else, and one that works."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.commands import command, everything_below
from tests.conftest import REFS


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class _Server(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/stall":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(4)
            return
        if self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(500):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.02)
            return
        if self.path == "/ftp":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/a.png")
            self.end_headers()
            return
        answers = {"/text": b"hello", "/robot.png": (REFS / "robot.png").read_bytes(), "/empty": b""}
        self.send_response(200 if self.path in (*answers, "/large", "/endless") else 404)
        if self.path == "/large":
            self.send_header("Content-Length", str(10**12))
        self.end_headers()
        self.wfile.write(answers.get(self.path, b""))
        if self.path == "/endless":
            for _ in range(200):
                self.wfile.write(b"x" * 1_000_000)

    def log_message(self, *args):
        pass


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that hangs up is what the tests are about."""


@pytest.fixture(scope="module")
def server():
    httpd = _QuietServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


@pytest.mark.parametrize(
    ("path", "timeout", "message"),
    [
        ("stall", 0.5, "stalled for 0.5 s; raise --download_timeout"),
        ("drip", 0.2, "did not arrive in 2 s"),
        ("large", 5, "larger than 100 MB"),
        ("endless", 5, "larger than 100 MB"),
        ("text", 5, "is not an image"),
        ("empty", 5, "is empty"),
        ("missing", 5, "the server answered 404"),
        ("ftp", 5, "could not be downloaded"),
    ],
)
def test_downloads_that_do_not_work_out(cli, tmp_path, server, path, timeout, message):
    before = everything_below(tmp_path)
    finished = cli(*command({"ref_imgs": f"{server}/{path}", "download_timeout": timeout}))
    assert finished.code == 2
    assert message in finished.complaint
    assert everything_below(tmp_path) == before


def test_a_download_that_works_out(cli, tmp_path, server):
    finished = cli(*command({"ref_imgs": f"{server}/robot.png", "dry_run": True, "json": True}))
    assert finished.code == 0, finished.err
    assert json.loads(finished.out)["request"]["ref_imgs"] == [f"{server.rpartition(':')[0]}/robot.png"]
