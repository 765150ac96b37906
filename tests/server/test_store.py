"""The folder of the jobs."""

import shutil

import pytest

from videogen.server.store import COMPLETED, Store


def add(store):
    return store.add(id=store.new_id(), request={"prompt": "a swan"})


def test_files_that_are_not_the_servers_are_left_alone(tmp_path):
    """In --output_dir there may be other videos."""
    (tmp_path / "videos" / "video_of_the_holiday").mkdir(parents=True)
    (tmp_path / "videos" / "film.mp4").write_bytes(b"film")
    store = Store(tmp_path)
    store.load()
    job, unanswered = add(store), store.new_id()
    again = Store(tmp_path)
    again.load()
    assert again.all() == [job]
    names = {path.name for path in (tmp_path / "videos").iterdir()}
    assert names == {job.id, "video_of_the_holiday", "film.mp4"}
    assert unanswered not in names


def test_a_change_that_cannot_be_kept_is_a_warning(tmp_path, caplog):
    store = Store(tmp_path)
    store.load()
    job, other = add(store), add(store)
    shutil.rmtree(store.folder_of(job.id))
    assert store.take().id == job.id
    assert caplog.messages == [f"{job.id}: its state is lost at the next start (No such file or directory)"]
    assert store.change(job.id, status=COMPLETED).version == 2
    assert store.queued() == [other]


def test_a_new_job_that_cannot_be_kept_is_an_error(tmp_path):
    store = Store(tmp_path)
    store.load()
    job_id = store.new_id()
    store.folder_of(job_id).rmdir()
    with pytest.raises(FileNotFoundError):
        store.add(id=job_id, request={})
    assert store.all() == []
