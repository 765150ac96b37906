"""The folder of the jobs."""

import io
import shutil

import pytest

pytest.importorskip("fastapi")
from videogen.errors import InputError
from videogen.server import service
from videogen.server.requests import Planner, Upload
from videogen.server.store import COMPLETED, FAILED, TRIES, Store


def restarted(folder):
    store = Store(folder)
    store.load()
    return store


def add(store):
    return store.add(id=store.new_id(), request={"prompt": "a swan"})


def test_files_that_are_not_the_servers_are_left_alone(tmp_path):
    """In --output_dir there may be other videos."""
    (tmp_path / "videos" / "video_of_the_holiday").mkdir(parents=True)
    (tmp_path / "videos" / "film.mp4").write_bytes(b"film")
    store = restarted(tmp_path)
    job, unanswered = add(store), store.new_id()
    assert restarted(tmp_path).all() == [job]
    names = {path.name for path in (tmp_path / "videos").iterdir()}
    assert names == {job.id, "video_of_the_holiday", "film.mp4"}
    assert unanswered not in names


def test_a_job_that_kills_the_server_does_not_do_so_for_ever(tmp_path):
    store = restarted(tmp_path)
    deadly, other = add(store), add(store)
    for _ in range(TRIES):
        assert store.take().id == deadly.id
        store = restarted(tmp_path)
    assert store.get(deadly.id).status == FAILED
    assert store.get(deadly.id).error["message"].startswith("the server was killed 3 times while it made it")
    assert store.take().id == other.id
    assert restarted(tmp_path).get(deadly.id).status == FAILED


def test_a_change_that_cannot_be_kept_is_a_warning(tmp_path, caplog):
    store = restarted(tmp_path)
    job, other = add(store), add(store)
    shutil.rmtree(store.folder_of(job.id))
    assert store.take().id == job.id
    assert caplog.messages == [f"{job.id}: its state is lost at the next start (No such file or directory)"]
    assert store.change(job.id, status=COMPLETED).version == 2
    assert store.queued() == [other]


def test_a_new_job_that_cannot_be_kept_is_an_error(tmp_path):
    store = restarted(tmp_path)
    job_id = store.new_id()
    store.folder_of(job_id).rmdir()
    with pytest.raises(FileNotFoundError):
        store.add(id=job_id, request={})
    assert store.all() == []


def test_deleting_twice_is_no_error(tmp_path):
    store = restarted(tmp_path)
    job = add(store)
    assert store.remove(job.id)
    assert store.remove(job.id)
    assert not list(store.folder.iterdir())


def test_a_full_queue_takes_no_remix_either(tmp_path, monkeypatch):
    monkeypatch.setattr(service, "MOST_QUEUED", 1)
    store = restarted(tmp_path)
    job = add(store)
    with pytest.raises(service.FullError, match="1 videos wait already; try again later"):
        service.Service(store=store, worker=None, planner=None, metrics=None, model="tiny").remix(job, "x")
    assert [path.name for path in store.folder.iterdir()] == [job.id]


@pytest.mark.parametrize(
    ("limit", "value", "why"),
    [
        ("MOST_BYTES", 2999, "the files of all videos that wait would take over 0.0 MB; try again later, or"),
        ("LEAST_FREE", 10**18, "the server's disk has no room for these files; try again later"),
    ],
)
def test_files_that_are_too_many_together_are_refused(tmp_path, monkeypatch, limit, value, why):
    store = restarted(tmp_path)
    job_id = store.new_id()
    (store.folder_of(job_id) / "input_image_0.png").write_bytes(bytes(2000))
    job = store.add(id=job_id, request={}, uploads={"input_image": ["input_image_0.png"]})
    assert store.size_of_uploads(job) == 2000
    running = service.Service(
        store=store,
        worker=None,
        planner=Planner(defaults={}, complete=dict),
        metrics=None,
        model="tiny",
    )
    monkeypatch.setattr(service, limit, value)
    picture = Upload("input_image", "a.png", io.BytesIO(bytes(1000)))
    with pytest.raises(service.FullError, match=why):
        running.create({"prompt": "x"}, [picture])
    with pytest.raises(service.FullError, match=why):
        running.remix(job, "x")
    with pytest.raises(InputError, match="task"):  # all else was checked: it has no files
        running.create({"prompt": "x"})
    assert [path.name for path in store.folder.iterdir()] == [job_id]
