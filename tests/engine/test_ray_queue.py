"""The driver of a Ray cluster, whose workers are threads of this process."""

import tempfile
from concurrent.futures import Future, wait
from contextlib import suppress
from queue import Empty
from threading import Thread
from types import SimpleNamespace

import pytest

from videogen.engine.ray_queue import TRIES, Driver, _beside_results
from videogen.results.output_locks import OutputLocks
from videogen.results.progress import Failed, Reporter
from videogen.tasks.options import RunSettings

pytestmark = pytest.mark.usefixtures("log_as_before")


class RayError(Exception):
    """A worker is gone."""


class RayTaskError(RayError):
    """A worker raised an error."""


class Actor:
    """An object whose methods run in threads, which nobody waits for."""

    def __init__(self, made):
        self.made = made
        self.threads: list[Thread] = []

    def __getattr__(self, name):
        method = getattr(self.made, name)

        def remote(*given, **named):
            answer = Future()
            thread = Thread(target=lambda: answer.set_result(method(*given, **named)), daemon=True)
            if name == "make":
                self.threads.append(thread)
            thread.start()
            return answer

        return SimpleNamespace(remote=remote)


class Threads:
    """What the driver uses of the module ray."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, losses):
        self.losses = losses  # times that a worker is gone when it has something to say

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 1.0}}]

    def remote(self, kind):
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: Actor(kind())))

    def wait(self, answers, timeout):
        return [list(wait(answers, timeout, "FIRST_COMPLETED").done), []]

    def get(self, answer):
        sent = answer.result()
        if self.losses and isinstance(sent, list):
            self.losses -= 1
            raise RayError
        return sent

    def kill(self, actor):
        actor.made.stop()
        while any(thread.is_alive() for thread in actor.threads):
            with suppress(Empty):
                actor.made.messages.get(timeout=0.1)


def made(plans, losses=0, **settings):
    """Return the outcomes, and what was counted and reported."""
    failures = []

    def hear(report):
        if isinstance(report.event, Failed):
            failures.append(report.event.message)

    reporter = Reporter(hear)
    reporter.start_run(len(plans))
    with OutputLocks() as locks:
        driver = Driver(Threads(losses), plans, RunSettings(ray="local", **settings), reporter, locks)
        return list(driver.run()), reporter, failures


def test_results_come_here(make_list, tmp_path):
    outcomes, reporter, failures = made(make_list("a.mp4", "b.mp4"), fetch=True)
    assert [outcome.status for outcome in outcomes] == ["made", "made"]
    assert (reporter.made, reporter.failed, failures) == (2, 0, [])
    assert {path.name for path in tmp_path.iterdir()} == {
        *("a.mp4", "a.json", "b.mp4", "b.json", "robot.png"),
    }


def test_what_a_worker_could_not_report_is_counted_too(make_list, tmp_path, monkeypatch):
    plans = make_list("a.mp4", "b.mp4")
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))  # where a worker puts what it sends
    outcomes, reporter, failures = made(plans, fetch=True)
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    assert (reporter.made, reporter.failed, len(failures)) == (2, 2, 2)
    assert "File exists" in failures[0]


@pytest.mark.parametrize(("losses", "statuses"), [(2, ["made", "made"]), (3, ["failed", "made"])])
def test_a_video_of_lost_workers_is_made_by_another_or_given_up(make_list, tmp_path, losses, statuses):
    outcomes, reporter, failures = made(make_list("a.mp4", "b.mp4"), losses, fetch=True)
    assert [outcome.plan.index for outcome in outcomes] == [1, 2], "each once"
    assert [outcome.status for outcome in outcomes] == statuses
    assert (reporter.made, reporter.failed) == (2, losses // TRIES)
    assert all("its worker was lost 3 times" in failure for failure in failures)
    assert (tmp_path / "b.mp4").is_file()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("fetch", [False, True])
def test_a_bundle_needs_a_folder_that_workers_see(make_list, tmp_path, fetch):
    settings = RunSettings(ray="local", bundle="all.zip", fetch=fetch)
    with _beside_results(make_list("a.mp4"), settings) as packed:
        assert (packed is None) == fetch
        assert fetch or (packed.is_file() and packed.parent == tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["robot.png"]
