"""--progress, errors as JSON, resuming without libraries, and what other libraries say."""

import json
import re
import subprocess
import sys

import pytest

from tests.cli.test_tasks import RUNS
from tests.conftest import ROOT


def events_of(finished):
    """Return the events on stderr, which must hold nothing else."""
    return [json.loads(line) for line in finished.err.splitlines()]


def test_events_of_a_list(cli, r2v, tmp_path):
    words = [*r2v, "--seed", "3,4", "--progress", "json", "--low_vram"]
    finished = cli(*words, "--output_dir", tmp_path / "films")
    assert finished.code == 0
    events = events_of(finished)
    assert (events[0]["event"], events[0]["videos"]) == ("start", 2)
    assert events[-1].items() >= {"event": "done", "videos": 2, "failed": 0}.items()
    for index, seed in ((1, 3), (2, 4)):
        mine = [event for event in events if event.get("index") == index]
        assert mine[0].items() >= {"event": "video", "seed": seed, "videos": 2, "width": 48}.items()
        steps = [event for event in mine if event["event"] == "progress" and event["stage"] == "denoise"]
        assert [(event["done"], event["total"]) for event in steps] == [(1, 2), (2, 2)]
        frames = [event for event in mine if event["event"] == "progress" and event["stage"] == "decode"]
        assert frames[-1]["done"] == 5
        assert mine[-1]["event"] == "saved"
        assert mine[-1]["path"] == finished.out.splitlines()[index - 1]
    warnings = [event for event in events if event["event"] == "message" and event["level"] == "warning"]
    assert any("--low_vram" in event["message"] for event in warnings)
    stages = {event["stage"] for event in events if event["event"] == "stage"}
    assert {"libraries", "load", "text", "vae encode", "denoise", "decode"} <= stages
    for stage in stages:  # what begins ends
        kinds = [event["event"] for event in events if event.get("stage") == stage]
        assert kinds.count("stage") == kinds.count("stage_finished")


def test_events_of_a_long_video_name_its_segments(cli, forcing, tmp_path):
    words = forcing("--num_frames", "29", "--base_num_frames", "17", "--overlap_history", "5")
    finished = cli(*words, "--progress", "json", "--output", tmp_path / "a.mp4")
    assert finished.code == 0, finished.err
    events = events_of(finished)
    for name in ("segment", "progress"):
        mine = [event for event in events if event["event"] == name and event.get("stage") != "load"]
        assert {(event["segment"], event["segments"]) for event in mine} == {(1, 2), (2, 2)}


def test_one_of_several_that_fails_is_an_event(cli, r2v, tmp_path, monkeypatch):
    from videogen.pipelines.wan import WanPipeline

    monkeypatch.setattr(WanPipeline, "velocity", lambda self, segments, *_: segments[0].latents / 0)
    finished = cli(*r2v, "--seed", "1,2", "--progress", "json", "--json", "--output_dir", tmp_path)
    assert finished.code == 1
    events = events_of(finished)
    failed = [event for event in events if event["event"] == "failed"]
    assert [event["index"] for event in failed] == [1, 2]
    assert all("not finite" in event["message"] for event in failed)
    assert events[-1].items() >= {"event": "error", "exit_code": 1, "message": "2 of 2 videos failed"}.items()
    assert [json.loads(line)["index"] for line in finished.out.splitlines()] == [1, 2]


@pytest.mark.parametrize("flag", [("--json",), ("--progress", "json"), ("--progress=json",)])
@pytest.mark.parametrize(
    ("wrong", "code"), [(("--nonsense", "1"), 2), (("--num_frames", "6"), 2), (("--model_id", "./none"), 3)]
)
def test_errors_are_json(cli, r2v, tmp_path, flag, wrong, code):
    finished = cli(*r2v, "--output", tmp_path / "a.mp4", *flag, *wrong)
    assert (finished.code, finished.out) == (code, "")
    (error,) = (event for event in events_of(finished) if event["event"] == "error")
    assert error["exit_code"] == code
    assert wrong[0] in error["message"] or wrong[1] in error["message"]


def test_an_unknown_format_is_one_line(cli, r2v):
    finished = cli(*r2v, "--progress", "jsno")
    assert finished.code == 2
    expected = "error: --progress jsno: must be one of auto, bars, lines, json, none; nearest json"
    assert finished.err.splitlines() == [expected]


def test_a_short_run_is_a_few_lines(cli, r2v, tmp_path):
    finished = cli(*r2v, "--output", tmp_path / "a.mp4")
    assert finished.code == 0
    assert re.search(r"^\d\d:\d\d:\d\d video 1: seed 42, 48x32, 5 frames$", finished.err, flags=re.MULTILINE)
    assert len(finished.err.splitlines()) < 8
    assert cli(*r2v, "--output", tmp_path / "b.mp4", "--progress", "none").err == ""


def test_a_list_that_is_finished_loads_no_library(cli, r2v, tmp_path):
    words = [*r2v, "--seed", "1,2,3", "--output_dir", str(tmp_path), "--resume"]
    first = cli(*words)
    assert first.code == 0
    code = (
        "import sys; from videogen.cli.main import main; code = main(sys.argv[1:]); "
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules), 'heavy'; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == first.out
    assert done.stderr.count("is complete, skipped") == 3
    (tmp_path / "2_2.mp4").unlink()
    again = cli(*words)
    assert (again.code, again.out) == (0, first.out)
    assert again.err.count("is complete, skipped") == 2


OURS = re.compile(
    r"warning: --|\d\d:\d\d:\d\d |warning: what is (seen|heard)|prompt: |using |description: |/.*a\.mp4: "
)
NOISY = [  # what makes other libraries talk
    ("hunyuan_image_to_video", ("--quantize", "int8")),
    ("text_to_video", ("--low_vram",)),
    ("reference_to_video", ("--quantize", "int4")),
    ("reference_to_video", ("--compile", "--offload")),
    ("image_to_video", ("--quantize", "float8", "--cache", "first_block")),
    *((task, ()) for task in RUNS),
]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "flags"), NOISY)
def test_other_libraries_are_not_heard(make_video, speech, tmp_path, task, flags):
    files = {"source.mp4": make_video(), "speech.wav": speech}
    inputs = [str(files.get(word, word)) for word in RUNS[task][0]]
    words = ("--task_type", task, "--model_id", "tiny", "--prompt", "x", "--output", str(tmp_path / "a.mp4"))
    command = [sys.executable, "generate_video.py", *words, *inputs, *flags, "--num_inference_steps", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not OURS.match(line)] == []


def test_warnings_that_nobody_has_listed_are_passed_on(cli, r2v, tmp_path, monkeypatch):
    import warnings

    from videogen.pipelines.wan import WanPipeline

    velocity = WanPipeline.velocity

    def talkative(*arguments):
        warnings.warn("something is odd", stacklevel=1)
        sys.stderr.write("a stray line\n")
        return velocity(*arguments)

    monkeypatch.setattr(WanPipeline, "velocity", talkative)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert "warning: something is odd\n" in cli(*r2v, "--output", tmp_path / "a.mp4").err
        finished = cli(*r2v, "--output", tmp_path / "b.mp4", "--progress", "json")
    messages = [event["message"] for event in events_of(finished) if event["event"] == "message"]
    assert {"something is odd", "a stray line"} <= set(messages)
