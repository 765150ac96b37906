"""A live server on loopback, with tiny models."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import Running

pytest.importorskip("fastapi")
pytest.importorskip("gradio")
httpx = pytest.importorskip("httpx")

# The shortest video, in a request; tests add to it.
SHORT = {"num_frames": 5, "num_inference_steps": 2, "height": 32, "width": 48, "seed": 7}


class Live:
    """A server in a process of its own."""

    def __init__(self, folder: Path, *words: object, tasks=("--model_id", "tiny")):
        flags = ("--serve", "--port", 0, "--device", "cpu", "--output_dir", folder)
        self.folder = folder
        self.running = Running(*flags, *tasks, *words)
        self.running.wait_for(lambda: self.out.endswith("\n"))
        self.url = self.out.strip()
        self.http = httpx.Client(base_url=self.url, timeout=60)

    @property
    def out(self) -> str:
        file = self.running.said / "1"
        return file.read_text() if file.exists() else ""

    def create(self, **fields: object) -> dict:
        answer = self.http.post("/v1/videos", json={"prompt": "a swan", **SHORT, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, video_id: str) -> dict:
        return self.http.get(f"/v1/videos/{video_id}").json()

    def wait(self, video_id: str, *statuses: str, seconds: float = 120) -> dict:
        return self.until(video_id, lambda job: job["status"] in statuses, seconds)

    def until(self, video_id: str, condition: Callable[[dict], object], seconds: float = 120) -> dict:
        end = time.monotonic() + seconds
        while not condition(job := self.get(video_id)):
            assert time.monotonic() < end, job
            time.sleep(0.02)
        return job

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        self.http.close()
        self.running.send(number)
        return self.running.end()


@contextmanager
def live(folder: Path, *words: object, **more: object) -> Iterator[Live]:
    server = Live(folder, *words, **more)
    try:
        yield server
    finally:
        if server.running.process.is_alive():
            os.kill(server.running.process.pid, signal.SIGKILL)
            server.running.end()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Live]:
    """One server for the tests of a module."""
    with live(tmp_path_factory.mktemp("server")) as running:
        yield running
