"""What a run reports: places, amounts, estimates, and the wish to stop."""

import json
from dataclasses import fields

import pytest

from videogen.results import progress
from videogen.results.progress import Failed, Reporter, Saved, Skipped

SAVED = Saved(
    path="a.mp4",
    sidecar="a.json",
    seconds={"total": 1.0},
    seconds_per_step=0.5,
    peak_memory={"ram": 2_000_000_000},
)


def event_types():
    """Return the classes of all events."""
    kinds = [value for value in vars(progress).values() if isinstance(value, type)]
    return [kind for kind in kinds if issubclass(kind, progress.Event) and kind is not progress.Event]


@pytest.fixture
def reported():
    """A reporter, and the list of its reports."""
    reports = []
    return Reporter(render=reports.append), reports


@pytest.fixture
def clock(monkeypatch):
    """A clock that only goes when it is told to."""

    class Clock:
        now = 100.0

        def go(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return clock


def start(reporter, index, segments=1):
    reporter.start_video(index, seed=7, size=(48, 32), num_frames=5, segments=segments, output="a.mp4")


def test_a_list_says_how_many_failed_and_how_long_the_rest_takes(reported, clock):
    reporter, reports = reported
    reporter.start_run(5)
    for index, (seconds, event) in enumerate(
        [(10, SAVED), (2, Failed(videos=5, message="x")), (0, Skipped(path="b", sidecar="b")), (20, SAVED)], 1
    ):
        start(reporter, index)
        clock.go(seconds)
        reporter.end_video(event)
    start(reporter, 5)
    videos = [report.event for report in reports if isinstance(report.event, progress.VideoStarted)]
    assert [video.seconds_left for video in videos] == [None, 40, 30, 20, 15]  # mean of those that were made
    assert [video.failed for video in videos] == [0, 0, 1, 1, 1]
    reporter.end_video(SAVED)
    reporter.end_run()
    assert reports[-1].event == progress.RunFinished(videos=5, failed=1, skipped=1, seconds=32.0)
    assert [report.index for report in reports if report.event is SAVED] == [1, 4, 5]


def test_a_stage_says_how_far_it_is_and_how_long_it_takes(reported, clock):
    reporter, reports = reported
    with reporter.stage("load", "transformer", total=100, unit="byte", every=1.0) as advance:
        for seconds in (0.5, 0.5, 0.5, 0.5):
            clock.go(seconds)
            advance(25)
    far = [report.event for report in reports if isinstance(report.event, progress.Progress)]
    assert [(event.done, event.seconds_left) for event in far] == [(50, 1.0), (100, 0.0)]
    assert reports[-1].event == progress.StageFinished(stage="load", seconds=2.0)


def test_a_stage_that_fails_ends(reported):
    reporter, reports = reported
    with pytest.raises(ValueError, match="x"), reporter.stage("text"):
        raise ValueError("x")
    assert isinstance(reports[-1].event, progress.StageFinished)


def test_events_say_where_they_happen(reported):
    reporter, reports = reported
    with reporter.stage("libraries"):
        pass
    start(reporter, 2, segments=3)
    reporter.segment = 2
    reporter.emit(progress.SegmentFinished())
    start(reporter, 3)
    reporter.segment = 1
    with reporter.stage("text"):
        pass
    records = [report.record() for report in reports]
    assert "index" not in records[0]
    assert records[3].items() >= {"event": "segment", "index": 2, "segment": 2, "segments": 3}.items()
    assert records[5]["index"] == 3
    assert "segment" not in records[5]  # there is one
    assert json.loads(json.dumps(records)) == records


@pytest.mark.parametrize("last", [False, True])
def test_a_wish_to_stop_is_fulfilled_between_steps(reported, last):
    reporter, _ = reported
    done = []
    with pytest.raises(KeyboardInterrupt), reporter.steps(3) as advance:
        for step in range(3):
            reporter.wants_stop |= step == (2 if last else 1)
            advance(1)
            done.append(step)
            if not last:
                reporter.check_stop()
    assert done == ([0, 1, 2] if last else [0, 1])
    assert not reporter.is_stepping


def test_events_have_names_of_their_own():
    kinds = event_types()
    assert len({kind.name for kind in kinds}) == len(kinds)
    taken = {"event", "time", "index", "segment", "segments"}
    assert not [kind for kind in kinds if taken & {each.name for each in fields(kind)}]


def test_what_others_report_counts_for_the_whole_run(reported, clock):
    reporter, reports = reported
    reporter.start_run(4)
    reporter.at_once = 2
    workers = [Reporter(render=reporter.relay), Reporter(render=reporter.relay)]
    about = {"seed": 1, "size": (64, 32), "num_frames": 5, "segments": 1, "output": "a.mp4"}
    for index, worker in enumerate(workers, start=1):
        worker.start_video(index, **about)
    clock.go(10)
    workers[0].end_video(SAVED)
    workers[0].start_video(3, **about)
    assert (reports[-1].event.videos, reports[-1].event.seconds_left) == (4, 15.0)  # three more, two at once
    workers[1].end_video(Failed(videos=None, message="no"))
    assert (reports[-1].index, reports[-1].event.videos) == (2, 4)
    assert (reporter.made, reporter.failed, reporter.skipped) == (2, 1, 0)
