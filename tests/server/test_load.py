"""200 requests at once: the server keeps answering, and no job is lost."""

import asyncio
import json
import statistics
import time

import pytest

from tests.server.conftest import SHORT, live

CLIENTS = 200


async def _answer(url: str, path: str, body: bytes = b"") -> tuple[float, bytes]:
    """Send a request with as little work here as can be; returns seconds and the body of the answer."""
    host, _, port = url.removeprefix("http://").partition(":")
    verb, kind = ("POST", "Content-Type: application/json\r\n") if body else ("GET", "")
    head = f"{verb} {path} HTTP/1.1\r\nHost: {host}\r\n{kind}Content-Length: {len(body)}\r\n"
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer
    return time.perf_counter() - started, answer.partition(b"\r\n\r\n")[2]


async def _ask_all(url: str, request: dict) -> tuple[list[tuple[float, bytes]], list[float]]:
    """Send all requests at once; returns their answers, and the seconds of other requests meanwhile."""

    async def look() -> list[float]:
        seconds = []
        while not waiting.done():
            await asyncio.sleep(0.05)
            seconds.append((await _answer(url, "/v1/videos?limit=5"))[0])
        return seconds

    bodies = [json.dumps({**request, "prompt": f"swan {number}"}).encode() for number in range(CLIENTS)]
    waiting = asyncio.gather(*(_answer(url, "/v1/videos", body) for body in bodies))
    looking = asyncio.create_task(look())
    return await waiting, await looking


@pytest.mark.slow
def test_200_requests_at_once(tmp_path, capsys):
    request = {"prompt": "a swan", "task_type": "text_to_video", **SHORT, "num_inference_steps": 1}
    with live(tmp_path) as server:
        first = server.create(**request)
        server.wait(first["id"], "completed")

        answers, looked = asyncio.run(_ask_all(server.url, request))
        seconds = sorted(second for second, _ in answers)
        with capsys.disabled():
            print(  # noqa: T201 - figures for whoever runs it
                f"\n{CLIENTS} requests: median {statistics.median(seconds):.3f} s, "
                f"last {seconds[-1]:.3f} s; others meanwhile at most {max(looked):.3f} s"
            )
        ids = {json.loads(body)["id"] for _, body in answers}
        assert len(ids) == CLIENTS
        assert max(looked) < 1
        for video_id in ids:
            assert server.wait(video_id, "completed", seconds=300)["error"] is None
