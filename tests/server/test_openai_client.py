"""The /v1/videos contract, with OpenAI's own client against a live server."""

import json
import re

import pytest

from tests.conftest import REFS, ROOT
from tests.server.conftest import SHORT

openai = pytest.importorskip("openai")
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API")  # what it is about is not called


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as found:
        yield found


def extra(**more):
    given = {key: value for key, value in SHORT.items() if key not in ("height", "width")}
    return {**given, "task_type": "text_to_video", **more}


def test_create_poll_download_list_and_delete(client, tmp_path):
    video = client.videos.create(prompt="a swan", size="48x32", extra_body=extra())
    assert (video.object, video.status, video.prompt, video.size) == ("video", "queued", "a swan", "48x32")
    assert (video.model, video.seconds, video.error) == ("tiny", "0.2", None)
    done = client.videos.poll(video.id, poll_interval_ms=50)
    assert (done.id, done.status, done.progress) == (video.id, "completed", 100)
    assert done.created_at <= done.completed_at
    client.videos.download_content(video.id).write_to_file(tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").stat().st_size > 0
    assert client.videos.download_content(video.id, variant="thumbnail").read()[8:12] == b"WEBP"
    assert client.videos.download_content(video.id, variant="spritesheet").read()[:3] == b"\xff\xd8\xff"
    other = client.videos.create_and_poll(prompt="a cat", poll_interval_ms=50, extra_body=extra())
    assert [item.id for item in client.videos.list(limit=1)][:2] == [other.id, video.id]
    assert client.videos.list(order="asc").data[0].id == video.id
    assert client.videos.delete(video.id).deleted is True
    with pytest.raises(openai.NotFoundError) as caught:
        client.videos.retrieve(video.id)
    assert caught.value.body == {
        "message": f"there is no video '{video.id}'",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


def test_a_picture_is_uploaded(client, server):
    with (REFS / "robot.png").open("rb") as file:
        video = client.videos.create(
            prompt="it waves", input_reference=file, extra_body=extra(task_type="reference_to_video")
        )
    done = client.videos.poll(video.id, poll_interval_ms=50)
    assert done.status == "completed"
    record = json.loads((server.folder / "videos" / video.id / "video.json").read_text())
    assert [item["name"] for item in record["inputs"]["ref_imgs"]] == ["input_reference_0.png"]


@pytest.mark.slow
def test_the_example_of_the_manual(server, tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/server.md").read_text(), flags=re.DOTALL)
    example = example.replace("http://127.0.0.1:8000", server.url)
    example = example.replace('{"num_frames"', '{"task_type": "text_to_video", "num_frames"')
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/server.md", "exec"), {})
    assert (tmp_path / "ball.mp4").stat().st_size > 0
