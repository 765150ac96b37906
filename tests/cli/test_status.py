"""--status: what a run says of itself in one JSON file, and that the file never fails it."""

import json
import os
import time
from dataclasses import replace

import pytest

from videogen.cli import status
from videogen.cli.status import RunStatus, StatusFile, default_path
from videogen.results import progress
from videogen.results.progress import Failed, Report, Reporter, Saved, ignore

SAVED = Saved(path="a.mp4", sidecar="a.json", seconds={}, seconds_per_step=1.0, peak_memory={})


def reports_of(work):
    """Return the statuses after every report of work, on a clock of 10 s each."""
    state, taken = RunStatus(), []

    def take(report: Report):
        now = 1000.0 + 10 * len(taken)
        state.take(replace(report, time=now))
        taken.append(state.record(now))

    reporter = Reporter(render=take)
    work(reporter)
    return taken


def far(done, total, left, stage="denoise"):
    return progress.Progress(stage=stage, about="", done=done, total=total, unit="step", seconds_left=left)


@pytest.mark.parametrize(("videos", "mine"), [(3, None), (30, 3)])
def test_steps_and_estimates_of_a_list(videos, mine):
    def work(reporter):
        reporter.start_run(videos, mine=mine)
        reporter.start_video(1, seed=7, size=(48, 32), num_frames=5, segments=2, output="a.mp4")
        reporter.segment = 1
        reporter.emit(progress.StageStarted(stage="denoise", about="", total=4, unit="step"))
        reporter.emit(far(1, 4, 30.0))
        reporter.emit(progress.StageStarted(stage="decode", about="", total=4, unit="frame"))
        reporter.emit(far(2, 4, 10.0, "decode"))
        reporter.emit(far(4, 4, 0.0, "decode"))
        reporter.end_video(SAVED)
        reporter.start_video(2, seed=8, size=(48, 32), num_frames=5, segments=1, output="b.mp4")
        reporter.emit(progress.StageStarted(stage="denoise", about="", total=4, unit="step"))
        reporter.emit(far(2, 4, 10.0))
        reporter.end_video(Failed(videos=videos, message="no memory"))
        reporter.end_run()

    taken = reports_of(work)
    first, decoding, second, end = taken[3], taken[5], taken[10], taken[-1]
    assert (first["index"], first["videos"], first["mine"]) == (1, videos, 3)
    assert (first["segment"], first["segments"]) == (1, 2)
    assert (first["step"], first["steps"], first["seconds_per_step"]) == (1, 4, 10.0)
    # What decoding will take is not known yet.
    assert (first["seconds_left"], first["seconds_left_all"]) == (None, None)
    # 10 s of this segment, and another of 40 + 20 s; the video began 40 s ago, and two are like it.
    assert (decoding["seconds_left"], decoding["seconds_left_all"]) == (70.0, 70.0 + 2 * 110.0)
    # 10 s of steps, and two segments' decoding; the first video took 60 s, and another is still to come.
    assert (second["seconds_left"], second["seconds_left_all"]) == (50.0, 110.0)
    assert second["seconds_per_step"] == 5.0
    assert (end["made"], end["failed"], end["last_error"]) == (2, 1, "no memory")
    assert (end["finished"], end["exit_code"], end["seconds_left_all"]) == (True, 1, 0.0)


@pytest.mark.parametrize(
    ("values", "jobs", "expected"),
    [
        ({"output_dir": "films"}, "a/jobs.csv", "films.status.json"),
        ({"output_dir": "a/{seed}/b"}, "-", "a.status.json"),
        ({"output": "films/{index}.mp4"}, "jobs.csv", "films.status.json"),
        ({"output": "{index}.mp4"}, "jobs.csv", "videogen.status.json"),
        ({}, "a/jobs.csv", "a/jobs.status.json"),
        ({}, "-", "result.status.json"),
    ],
)
def test_the_default_is_beside_the_outputs_or_the_list(values, jobs, expected):
    assert str(default_path(values, jobs)) == expected


def test_a_run_writes_its_status(cli, r2v, tmp_path):
    file = tmp_path / "state.json"
    done = cli(
        *r2v, "--seed", "3,4", "--output_dir", tmp_path / "films", "--status", file, "--preview_every", 1
    )
    assert done.code == 0, done.err
    state = json.loads(file.read_text())
    assert (state["index"], state["videos"], state["made"], state["failed"]) == (0, 2, 2, 0)
    assert (state["finished"], state["exit_code"], state["last_error"]) == (True, 0, None)
    assert (state["step"], state["steps"], state["seed"]) == (2, 2, 4)
    assert state["memory"]["ram"] > 10_000_000
    assert state["pid"] == os.getpid()
    assert state["output"].endswith("2_4.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films", "state.json"]
    assert cli(*r2v, "--output", tmp_path / "b.mp4", "--status", file).code == 0  # in place of the earlier


def test_a_list_of_jobs_has_one_and_an_error_is_in_it(cli, r2v, tmp_path, monkeypatch):
    from videogen.pipelines.wan import WanPipeline

    monkeypatch.setattr(WanPipeline, "velocity", lambda self, segments, *_: segments[0].latents / 0)
    (tmp_path / "jobs.txt").write_text("a cat\n")
    done = cli(*r2v, "--jobs", tmp_path / "jobs.txt", "--output_dir", tmp_path / "films")
    assert done.code == 1
    state = json.loads((tmp_path / "films.status.json").read_text())
    assert "not finite" in state["last_error"]
    assert (state["finished"], state["exit_code"]) == (True, 1)


def test_lines_that_name_their_outputs_have_it_beside_the_list(cli, r2v, tmp_path):
    line = {"prompt": "a cat", "output": f"{tmp_path}/films/a.mp4"}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(line))
    for share, name in (((), "jobs"), (("--shard", "0/2", "--overwrite"), "jobs.0_of_2")):
        assert cli(*r2v, "--jobs", tmp_path / "jobs.jsonl", *share).code == 0
        state = json.loads((tmp_path / f"{name}.status.json").read_text())
        assert (state["made"], state["finished"]) == (1, True)


def test_a_dry_run_writes_none(cli, r2v, tmp_path):
    assert cli(*r2v, "--dry_run", "--status", tmp_path / "s.json", "--output", tmp_path / "a.mp4").code == 0
    assert not list(tmp_path.iterdir())


def test_other_files_are_not_replaced(cli, r2v, tmp_path):
    (tmp_path / "mine.json").write_text("[1]")
    for name, what in (("mine.json", "no status of an earlier run"), ("state.txt", "must end in .json")):
        done = cli(*r2v, "--output", tmp_path / "a.mp4", "--status", tmp_path / name)
        assert (done.code, what in done.complaint) == (2, True)
    assert (tmp_path / "mine.json").read_text() == "[1]"
    done = cli(*r2v, "--output", tmp_path / "a.mp4", "--status", tmp_path / "a.json")
    assert (done.code, "is the name of the video's record" in done.complaint) == (2, True)


def test_a_full_disk_is_one_warning(tmp_path, caplog, refuse):
    refuse(status, "write_json", 28)
    file = StatusFile(tmp_path / "s.json", ignore)
    reporter = Reporter(render=file)
    with caplog.at_level("WARNING", "videogen"):
        reporter.start_run(1)
        reporter.end_run()
    file.stop()
    assert [record.message.endswith("(No space left on device)") for record in caplog.records] == [True]


def test_a_long_step_is_no_silence(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "EVERY", 0.1)
    file = StatusFile(tmp_path / "s.json", ignore)
    file.begin()
    first = (tmp_path / "s.json").stat().st_ino  # a new file is renamed into place
    deadline = time.monotonic() + 4
    while (tmp_path / "s.json").stat().st_ino == first and time.monotonic() < deadline:
        time.sleep(0.05)
    file.stop()
    assert time.monotonic() < deadline
