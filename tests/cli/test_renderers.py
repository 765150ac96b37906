"""Events as stamped lines, JSON, and errors only; bars are in test_terminal.py."""

import json
import re
import time
from dataclasses import fields

import pytest

from tests.conftest import ROOT
from tests.results.test_progress import SAVED, event_types
from videogen.cli import renderers
from videogen.results import progress
from videogen.results.progress import Failed, Message, Reporter, RunFailed


@pytest.fixture
def said(capsys):
    """Return the lines that a renderer makes of what is reported."""

    def render(name, report, *, as_json=False):
        report(Reporter(render=renderers.RENDERERS[name](as_json), videos=200, mine=200))
        return capsys.readouterr().err.splitlines()

    return render


def start(reporter, index=1, segments=1):
    reporter.start_video(
        index, seed=7, size=(832, 480), num_frames=81, segments=segments, output="a swan on a lake_7.mp4"
    )


def test_a_list_in_lines(said):
    def report(reporter):
        reporter.made, reporter.failed, reporter._durations = 16, 2, [59.0]
        start(reporter, 17)

    (line,) = said("lines", report)
    expected = r"\d\d:\d\d:\d\d video 17 of 200, 2 failed, about 3.0 h left: seed 7, 832x480, 81 frames"
    assert re.fullmatch(expected, line)


def test_stages_that_are_soon_over_are_not_announced(said, monkeypatch):
    monkeypatch.setattr(renderers, "ANNOUNCE_AFTER", 0.1)

    def report(reporter):
        start(reporter, segments=3)
        reporter.segment = 2
        with reporter.stage("text"):
            pass
        with reporter.stage("denoise", total=8, unit="step"):
            time.sleep(0.4)

    _, line = said("lines", report)
    assert line[9:] == "denoising segment 2 of 3: 8 steps"


def test_a_line_every_while(said, monkeypatch):
    monkeypatch.setattr(renderers, "LINE_EVERY", 0.2)

    def report(reporter):
        with reporter.stage("load", "transformer", total=28_000_000_000, unit="byte") as advance:
            advance(1e9)
            time.sleep(0.3)
            advance(11e9)
            advance(16e9)

    (line,) = said("lines", report)
    assert re.fullmatch(r"loading transformer: 12\.0 GB of 28\.0 GB, about [\d.]+ s left", line[9:])


def events():
    """Return one event of each kind."""
    values = {
        "int": 2, "str": "word", "float | None": 1.5, "int | None": 3, "float": 2.5,
        "Mapping": {"total": 1.0},
    }  # fmt: skip
    return [
        kind(**{each.name: values[str(getattr(each.type, "__name__", each.type))] for each in fields(kind)})
        for kind in event_types()
    ]


def test_every_event_is_a_line_of_json(said):
    def report(reporter):
        for event in events():
            reporter.emit(event)

    records = [json.loads(line) for line in said("json", report)]
    assert [record["event"] for record in records] == [kind.name for kind in event_types()]


def test_the_manual_has_the_schema():
    page = (ROOT / "docs/progress.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page.partition("## JSON")[2], flags=re.MULTILINE))
    expected = {kind.name: {each.name for each in fields(kind)} for kind in event_types()}
    assert {name: set(re.findall(r"`(\w+)`", names)) for name, names in rows.items()} == expected


def test_every_event_can_be_shown_by_every_renderer(said):
    def report(reporter):
        start(reporter)
        with reporter.stage("decode", total=2, unit="frame") as advance:
            advance(2)
        for event in events():
            if not isinstance(event, progress.StageStarted | progress.Progress | progress.StageFinished):
                reporter.emit(event)

    for name in renderers.RENDERERS:
        assert said(name, report)


@pytest.mark.parametrize("name", ["none", "lines"])
def test_errors_are_said_whatever_else_is_not(said, name):
    def report(reporter):
        reporter.end_video(SAVED)
        reporter.index = 2
        reporter.end_video(Failed(videos=3, message="no"))
        reporter.emit(RunFailed(exit_code=1, message="1 of 3 videos failed"))

    closing = ["a.mp4: 1.0 s (); 0.5 s/step; peak 2.0 GB of RAM"] if name == "lines" else []
    errors = ["error: video 2 of 3 failed: no", "error: 1 of 3 videos failed"]
    assert said(name, report) == closing + errors
    records = [json.loads(line) for line in said(name, report, as_json=True)[len(closing) :]]
    assert [record["message"] for record in records] == ["no", "1 of 3 videos failed"]
    assert records[1]["exit_code"] == 1


def test_messages_are_lines_as_ever(said):
    def report(reporter):
        reporter.emit(Message(level="warning", message="--x: y"))
        reporter.emit(Message(level="info", message="z"))

    for name in ("none", "lines", "bars"):
        assert said(name, report) == ["warning: --x: y", "z"]


def test_bars_of_videos_that_are_made_at_the_same_time(said):
    def report(reporter):
        others = [Reporter(render=reporter.relay), Reporter(render=reporter.relay)]
        for index, other in enumerate(others, start=1):
            start(other, index)
        with (
            others[0].stage("denoise", total=2, unit="step") as one,
            others[1].stage("denoise", total=3, unit="step") as two,
        ):
            one(2)
            two(1)
        others[1].emit(progress.StageStarted(stage="denoise", about="", total=3, unit="step"))
        start(others[0], 2)  # the other was lost, and this one makes its video
        with others[0].stage("denoise", total=3, unit="step"):
            pass

    text = "\n".join(said("bars", report))
    assert "2/2" in text
    assert "1/3" in text
