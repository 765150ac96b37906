"""A worker of a Ray cluster, in this process."""

import json
import logging
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from videogen import __version__
from videogen.engine.ray_worker import Done, Orders, Worker
from videogen.results.output_locks import OutputLocks
from videogen.results.progress import Progress, Report, Saved, VideoStarted

ORDERS = Orders(
    version=__version__,
    folder=Path(),
    environment={},
    level=logging.INFO,
    ranks=1,
    threads=None,
    fetch=False,
    resume=False,
    retry=None,
    ends_run=(),
)


pytestmark = pytest.mark.usefixtures("log_as_before")


@pytest.fixture
def plan(make_list):
    (made,) = make_list("a.mp4")
    return made


def started(**orders):
    worker = Worker()
    assert worker.start(replace(ORDERS, folder=Path.cwd(), **orders)) == ""
    return worker


def all_of(worker):
    """Return what a worker has to say of a video."""
    messages = []
    while not messages or not isinstance(messages[-1], Done):
        messages += worker.take()
    return messages


def test_a_worker_reports_and_writes(plan, tmp_path):
    worker = started()
    worker.make(pickle.dumps(plan), again=False)
    *reports, done = all_of(worker)
    assert (done.error, done.skipped, done.stopped, done.is_reported) == ("", False, False, True)
    assert done.outputs == plan.outputs
    assert json.loads(plan.outputs.sidecar.read_text())["plan_hash"] == done.record["plan_hash"]
    events = [report.event for report in reports if isinstance(report, Report)]
    assert isinstance(events[0], VideoStarted)
    assert isinstance(events[-1], Saved)
    assert [event.done for event in events if isinstance(event, Progress) and event.stage == "denoise"] == [
        1,
        2,
    ]

    worker.make(
        pickle.dumps(plan), again=True
    )  # as if it had been killed before it could say that it was done
    assert all_of(worker)[-1].skipped
    assert not list(tmp_path.glob(".*"))


def test_a_worker_stops_after_its_step(plan, tmp_path):
    worker = started()
    worker.stop()
    worker.make(pickle.dumps(plan), again=False)
    assert [message.stopped for message in all_of(worker)] == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["robot.png"]


def test_what_a_worker_cannot_do_is_a_line(plan, tmp_path):
    worker = started()
    with OutputLocks() as locks:
        locks.acquire(tmp_path, "a")
        worker.make(pickle.dumps(plan), again=False)
        assert "another run is writing it" in all_of(worker)[-1].error
    (tmp_path / "robot.png").unlink()
    worker.make(pickle.dumps(plan), again=False)
    done = all_of(worker)[-1]
    assert done.exit_code == 2
    assert done.error.startswith(
        f"--ref_imgs robot.png: is not on {os.uname().nodename}; put it into a folder"
    )
    assert not plan.outputs.path.exists()
    worker.make(b"of another version", again=False)
    (done,) = all_of(worker)
    assert done.error.startswith("UnpicklingError: ")
    assert not done.is_reported


def test_a_worker_of_another_version_or_without_the_folder_is_not_used(tmp_path):
    orders = replace(ORDERS, version="0.0.1")
    assert f"videogen {__version__}: the other machine has 0.0.1" in Worker().start(orders)
    orders = replace(ORDERS, folder=tmp_path / "missing")
    assert "share" in Worker().start(orders)
    assert Worker().start(replace(orders, fetch=True)) == ""


def test_results_that_a_bundle_would_lack_are_said_before_the_first(tmp_path):
    orders = replace(ORDERS, folder=Path.cwd(), packed=tmp_path / "films" / "mark")
    said = Worker().start(orders)
    assert said.endswith(
        "films: this folder of results is not shared; share it with all machines, or add --fetch"
    )
    orders.packed.parent.mkdir()
    orders.packed.touch()
    assert Worker().start(orders) == ""
