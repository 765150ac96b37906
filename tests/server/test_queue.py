"""The queue: what survives kill -9, cancelling, deleting, events, figures."""

import json
import shutil
import signal
import threading

import pytest

from tests.conftest import REFS
from tests.server.conftest import SHORT, live
from videogen.results.progress import Reporter
from videogen.server.requests import Planner
from videogen.server.store import Store
from videogen.server.worker import Worker

SLOW = {"num_inference_steps": 400, "task_type": "text_to_video"}
FAST = {"task_type": "text_to_video"}


def is_stepping(job):
    return job["status"] == "in_progress" and job["progress"] > 0


@pytest.mark.slow
def test_jobs_survive_kill_9(tmp_path):
    with live(tmp_path) as server:
        done = server.create(**FAST)
        server.wait(done["id"], "completed")
        begun = server.create(**{**SLOW, "num_inference_steps": 60})
        waiting = [server.create(**FAST, prompt=f"swan {number}") for number in range(3)]
        gone = server.create(**FAST)
        server.http.delete(f"/v1/videos/{gone['id']}")
        (tmp_path / "videos" / f"video_{'0' * 24}").mkdir()  # of a request that was never answered
        server.until(begun["id"], is_stepping)
        server.end(signal.SIGKILL)
    with live(tmp_path) as server:
        known = server.http.get("/v1/videos?order=asc").json()["data"]
        assert [job["id"] for job in known] == [job["id"] for job in (done, begun, *waiting)]
        assert known[0]["status"] == "completed"
        for job in (begun, *waiting):
            again = server.wait(job["id"], "completed")
            assert again["seed"] == job["seed"]
            assert server.http.get(f"/v1/videos/{job['id']}/content").headers["content-type"] == "video/mp4"
        assert {path.name for path in (tmp_path / "videos").iterdir()} == {job["id"] for job in known}
        begun = server.create(**SLOW)
        server.until(begun["id"], is_stepping)
        code, _, said = server.end(signal.SIGTERM)
    assert code == 0, said
    record = json.loads((tmp_path / "videos" / begun["id"] / "job.json").read_text())
    assert (record["status"], record["tries"]) == ("queued", 0), "an end in good order is no try"


@pytest.mark.slow
def test_segments_of_a_long_video_survive_kill_9(tmp_path):
    long = {**SHORT, "task_type": "diffusion_forcing", "num_frames": 97, "base_num_frames": 17}
    long |= {"overlap_history": 5, "num_inference_steps": 20, "addnoise_condition": 20}
    with live(tmp_path) as server:
        job = server.create(**long)
        kept = tmp_path / "videos" / job["id"] / "video.parts" / "state.json"
        server.running.wait_for(lambda: kept.exists() and json.loads(kept.read_text()))
        server.end(signal.SIGKILL)
    with live(tmp_path) as server:
        server.wait(job["id"], "completed")
        assert "continuing after 1 finished segments" in server.running.stderr


def test_cancel_waiting_and_running(server):
    running, waiting = server.create(**SLOW), server.create(**FAST)
    cancelled = server.http.post(f"/v1/videos/{waiting['id']}/cancel").json()
    assert (cancelled["status"], cancelled["error"]) == ("cancelled", None)
    server.until(running["id"], is_stepping)
    answer = server.http.delete(f"/v1/videos/{running['id']}")
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        409,
        f"{running['id']} is being made; cancel it first",
    )
    assert server.http.post(f"/v1/videos/{running['id']}/cancel").status_code == 200
    server.wait(running["id"], "cancelled", seconds=20)
    answer = server.http.get(f"/v1/videos/{running['id']}/content")
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        404,
        f"{running['id']} has no video: it is cancelled",
    )
    assert server.http.post(f"/v1/videos/{running['id']}/cancel").json()["status"] == "cancelled"
    after = server.create(**FAST)
    assert server.wait(after["id"], "completed")["error"] is None
    for job in (running, waiting, after):
        assert server.http.delete(f"/v1/videos/{job['id']}").json()["deleted"] is True
        assert not (server.folder / "videos" / job["id"]).exists()


def test_a_cancel_outlives_the_server(tmp_path):
    """A step may last long: what is stopped meanwhile is not begun again."""
    store = Store(tmp_path)
    store.load()
    wanted, unwanted = (store.add(id=store.new_id(), request={}) for _ in range(2))
    assert [store.take().id, store.take().id] == [wanted.id, unwanted.id]
    planner = Planner(defaults={}, complete=dict)
    worker = Worker(store, planner, Reporter(), when_done=lambda *_: None)
    assert worker.cancel(unwanted).status == "in_progress"
    later = Store(tmp_path)
    later.load()
    assert [job.status for job in later.all()] == ["queued", "cancelled"]
    assert later.all()[1].completed_at is not None


def test_a_cancel_is_heard_whenever_it_comes(server):
    """From the very moment that the worker takes the job."""
    for _ in range(5):
        job = server.create(**SLOW)
        server.http.post(f"/v1/videos/{job['id']}/cancel")
        server.wait(job["id"], "cancelled", seconds=20)


def test_a_failing_job_says_why(server):
    first = server.create(**SLOW)
    files = {"input_image": ("a.png", (REFS / "robot.png").read_bytes())}
    fields = {"prompt": "it waves", "task_type": "image_to_video"}
    waiting = server.http.post("/v1/videos", data=fields, files=files).json()
    (server.folder / "videos" / waiting["id"] / "input_image_0.png").write_bytes(b"damaged")
    server.http.post(f"/v1/videos/{first['id']}/cancel")
    failed = server.wait(waiting["id"], "failed")
    assert failed["error"]["code"] == "invalid_input"
    assert failed["error"]["message"].startswith("input_image: is not an image; give one of PNG")


def test_a_job_whose_folder_is_gone_does_not_end_the_worker(server):
    """Its state cannot be kept; the others are made."""
    first, gone = server.create(**SLOW), server.create(**FAST)
    shutil.rmtree(server.folder / "videos" / gone["id"])
    server.http.post(f"/v1/videos/{first['id']}/cancel")
    after = server.create(**FAST)
    server.wait(after["id"], "completed")
    assert server.get(gone["id"])["status"] in ("completed", "failed")
    (server.folder / "videos" / after["id"] / "video.mp4").unlink()
    answer = server.http.get(f"/v1/videos/{after['id']}/content")
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        404,
        f"{after['id']} has no video: its file is gone",
    )


def test_events_and_figures(server):
    server.wait(server.create(**FAST)["id"], "completed")  # so that it is known what decoding takes
    job = server.create(**{**FAST, "num_inference_steps": 100})
    seen = []
    with server.http.stream("GET", f"/v1/videos/{job['id']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line[6:]))
    assert [event["id"] for event in seen] == [job["id"]] * len(seen)
    assert seen[-1]["status"] == "completed"
    assert [event["progress"] for event in seen] == sorted(event["progress"] for event in seen)
    stages = [event["stage"] for event in seen if event["stage"] is not None]
    steps = [stage["seconds_left"] for stage in stages if stage["name"] == "denoise" and stage["done"]]
    assert steps
    assert all(left >= 0 for left in steps), "rounded to tenths: the last may be 0"
    figures = server.http.get("/metrics").text
    assert 'videogen_videos_total{status="completed"}' in figures
    assert "videogen_queued 0.0" in figures
    assert "videogen_in_progress 0.0" in figures
    assert server.http.get("/healthz").json() == {"status": "ok"}


def test_a_remix_has_another_prompt_and_the_same_seed(server):
    job = server.create(**FAST)
    remix = server.http.post(f"/v1/videos/{job['id']}/remix", json={"prompt": "a goose"}).json()
    assert (remix["prompt"], remix["seed"], remix["remixed_from_video_id"]) == ("a goose", 7, job["id"])
    assert server.wait(remix["id"], "completed")["size"] == job["size"]
    answer = server.http.post(f"/v1/videos/{job['id']}/remix", json={"prompt": "x", "seed": 1})
    assert answer.status_code == 400


def test_several_clients_at_once_get_jobs_of_their_own(server):
    made, errors = [], []

    def ask(number):
        try:
            made.append(server.create(**FAST, prompt=f"swan {number}"))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len({job["id"] for job in made}) == 8
    for job in made:
        assert server.wait(job["id"], "completed")["prompt"] == job["prompt"]
