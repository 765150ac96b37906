"""200 requests at once: the server keeps answering, and no job is lost."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.server.conftest import SHORT, httpx, live

CLIENTS = 200


@pytest.mark.slow
def test_200_requests_at_once(tmp_path, capsys):
    request = {"prompt": "a swan", "task_type": "text_to_video", **SHORT, "num_inference_steps": 1}
    with live(tmp_path) as server:
        first = server.create(**request)
        server.wait(first["id"], "completed")

        def ask(number: int) -> tuple[float, str]:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                started = time.perf_counter()
                answer = client.post("/v1/videos", json={**request, "prompt": f"swan {number}"})
                assert answer.status_code == 200, answer.text
                return time.perf_counter() - started, answer.json()["id"]

        def look(_: int) -> float:
            started = time.perf_counter()
            assert server.http.get("/healthz").status_code == 200
            return time.perf_counter() - started

        with ThreadPoolExecutor(CLIENTS) as clients, ThreadPoolExecutor(1) as other:
            looks = other.map(look, range(20))
            answers = list(clients.map(ask, range(CLIENTS)))
        looked = list(looks)
        seconds = sorted(time for time, _ in answers)
        with capsys.disabled():
            print(  # noqa: T201 - figures for whoever runs it
                f"\n{CLIENTS} requests: median {statistics.median(seconds):.3f} s, "
                f"last {seconds[-1]:.3f} s; healthz meanwhile at most {max(looked):.3f} s"
            )
        ids = {video_id for _, video_id in answers}
        assert len(ids) == CLIENTS
        assert max(looked) < 1
        for video_id in ids:
            assert server.wait(video_id, "completed", seconds=300)["error"] is None
