"""The driver of a Ray cluster, whose workers are threads of this process."""

import tempfile
from concurrent.futures import Future, wait
from threading import Thread
from types import SimpleNamespace

import pytest

from videogen.engine.ray_queue import Driver
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

    def __getattr__(self, name):
        method = getattr(self.made, name)

        def remote(*given, **named):
            answer = Future()
            Thread(target=lambda: answer.set_result(method(*given, **named)), daemon=True).start()
            return answer

        return SimpleNamespace(remote=remote)


class Threads:
    """What the driver uses of the module ray."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 1.0}}]

    def remote(self, kind):
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: Actor(kind())))

    def wait(self, answers, timeout):
        return [list(wait(answers, timeout, "FIRST_COMPLETED").done), []]

    def get(self, answer):
        return answer.result()

    def kill(self, actor):
        pass


def made(plans, **settings):
    """Return the outcomes, and what was counted and reported."""
    failures = []

    def hear(report):
        if isinstance(report.event, Failed):
            failures.append(report.event.message)

    reporter = Reporter(hear)
    reporter.start_run(len(plans))
    with OutputLocks() as locks:
        driver = Driver(Threads(), plans, RunSettings(ray="local", **settings), reporter, locks)
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
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))  # where a worker puts what it sends
    outcomes, reporter, failures = made(plans, fetch=True)
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    assert (reporter.made, reporter.failed, len(failures)) == (2, 2, 2)
    assert "No such file or directory" in failures[0]
