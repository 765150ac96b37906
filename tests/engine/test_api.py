"""videogen.plan, generate and stream: the engine of the command line, called from Python."""

import json
import logging
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import videogen
from tests.conftest import ROOT
from videogen.errors import CheckpointError, InputError
from videogen.results.progress import Progress, RunFinished, Saved, StageStarted

SHORT = {"model": "tiny", "num_inference_steps": 2, "num_frames": 5, "device": "cpu"}


def test_the_package_shows_its_api_and_imports_no_torch():
    code = (
        "import sys, videogen; assert dir(videogen) == "
        "['Queue', 'Result', '__version__', 'generate', 'load', 'plan', 'stream'], dir(videogen); "
        "videogen.plan('text_to_video', 'a swan', model='tiny'); "
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_plan_is_the_dry_run():
    planned = videogen.plan("text_to_video", "a swan", model="tiny", seed=[1, 2])
    assert [video["request"]["seed"] for video in planned.videos] == [1, 2]
    assert "a swan" in str(planned)
    assert "2 of 2, as the first but for:\nseed      2 (argument)" in str(planned)
    assert {video["width"] for video in planned.videos} == {160}


def test_generate_equals_the_command_line(tmp_path, cli):
    made = videogen.generate(
        "text_to_video", "a swan", **SHORT, dtype="float32", seed=7, output=tmp_path / "a.npy"
    )
    arguments = [
        *("--task_type", "text_to_video", "--model_id", "tiny", "--prompt", "a swan", "--seed", "7"),
        *("--num_inference_steps", "2", "--num_frames", "5", "--device", "cpu", "--dtype", "float32"),
        *("--output", str(tmp_path / "b.npy")),
    ]
    assert cli(*arguments).code == 0
    np.testing.assert_array_equal(made.frames, np.load(tmp_path / "b.npy"))
    record = json.loads((tmp_path / "b.json").read_text())
    assert made.metadata["plan_hash"] == record["plan_hash"]
    assert (made.fps, made.audio, made.path) == (24, None, tmp_path / "a.npy")


@pytest.mark.parametrize("as_given", [np.asarray, lambda image: image], ids=["array", "image"])
def test_inputs_may_be_in_memory(tmp_path, as_given):
    picture = Image.new("RGB", (64, 64), "red")
    given = {**SHORT, "seed": 1, "output": tmp_path / "a.npy"}
    given.pop("num_frames")
    if as_given is np.asarray:
        frames = np.stack([np.asarray(picture)] * 30)
        made = videogen.generate("single_shot_extension", "he walks", **given, duration=5, input_video=frames)
        assert [item["name"] for item in made.metadata["inputs"]["input_video"]] == ["input_video.npy"]
    else:
        made = videogen.generate("reference_to_video", "a robot", **given, ref_imgs=[picture])
        again = videogen.generate(
            "reference_to_video",
            "a robot",
            **{**given, "output": tmp_path / "b.npy"},
            ref_imgs=[np.asarray(picture)],
        )
        np.testing.assert_array_equal(made.frames, again.frames)
        assert repr(made) == f"Result.of({str(tmp_path / 'a.npy')!r})"


def test_numbers_may_be_numpys():
    planned = videogen.plan("text_to_video", "a swan", model="tiny", seed=np.int64(3), shift=np.float32(5))
    assert (planned.videos[0]["request"]["seed"], planned.videos[0]["request"]["shift"]) == (3, 5)


def test_a_stream_that_is_left_raises_what_went_wrong():
    with pytest.raises(InputError, match="no such option"), videogen.stream("text_to_video", "x", nosuch=1):
        pass


def test_stream_yields_reports_and_keeps_results(tmp_path):
    run = videogen.stream("text_to_video", "a swan", **SHORT, seed=[1, 2], output_dir=tmp_path)
    reports = list(run)
    saved = [report.event.path for report in reports if isinstance(report.event, Saved)]
    assert saved == [str(result.path) for result in run.results]
    assert [result.metadata["seed"] for result in run.results] == [1, 2]
    assert list(run) == []
    steps = [r.event.done for r in reports if isinstance(r.event, Progress) and r.event.stage == "denoise"]
    assert steps == [1, 2, 1, 2]


def test_a_stream_can_be_cancelled_and_resumed(tmp_path):
    call = {**SHORT, "seed": [1, 2], "output_dir": tmp_path}
    run = videogen.stream("text_to_video", "a swan", **call)
    for report in run:
        if report.index == 2 and isinstance(report.event, Progress) and report.event.stage == "denoise":
            run.cancel()
    assert [result.metadata["seed"] for result in run.results] == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1_1.json", "1_1.mp4"]
    again = videogen.stream("text_to_video", "a swan", **call, resume=True)
    names = [report.event.name for report in again]
    assert (names.count("skipped"), names.count("saved"), len(again.results)) == (1, 1, 2)


def test_a_stream_raises_what_goes_wrong(tmp_path):
    run = videogen.stream("text_to_video", "a swan", model=tmp_path / "nowhere")
    with pytest.raises(CheckpointError):
        list(run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_inference_step": 3}, "videogen num_inference_step: no such option; nearest num_inference"),
        ({"json": True}, "videogen json: is for the command line; leave it out"),
        ({"config": "a.yaml"}, "videogen config: is for the command line; leave it out"),
        ({"seed": -4}, "--seed -4: must lie between 0"),
        ({"seed": [1, 2]}, "makes one video, and this asks for 2; give one seed, or use videogen.stream"),
        ({"ref_imgs": "a.png"}, "--ref_imgs"),
        ({"input_image": ["a.png", "b.png"]}, "input_image= (2 images): image_to_video takes 1; leave out 1"),
        ({"on_event": 4}, "on_event= 4: must be a function of a report"),
        ({"queue": 4}, "queue= 4: must be a videogen.Queue"),
    ],
)
def test_bad_calls_get_one_line(options, message):
    task = "image_to_video" if "input_image" in options else "text_to_video"
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        videogen.generate(task, "a swan", model="tiny", **options)
    assert "\n" not in str(caught.value)


def test_what_should_be_known_is_logged(tmp_path, caplog):
    faded = Image.new("RGBA", (64, 64), (255, 0, 0, 100))
    with caplog.at_level(logging.WARNING):
        videogen.generate("image_to_video", "a swan", **SHORT, input_image=faded, output=tmp_path / "a.npy")
    assert "white" in caplog.text


def test_a_result_that_is_complete_is_returned_and_reported_without_torch(tmp_path):
    call = {**SHORT, "seed": 7, "output": tmp_path / "a.npy"}
    made = videogen.generate("text_to_video", "a swan", **call)
    code = (
        "import sys, videogen; names = []\n"
        f"made = videogen.generate('text_to_video', 'a swan', **{SHORT}, seed=7, resume=True,"
        f"    output={str(tmp_path / 'a.npy')!r},"
        "    on_event=lambda report: names.append(report.event.name))\n"
        "print(names, made.metadata['plan_hash'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"['start', 'skipped', 'done'] {made.metadata['plan_hash']} False\n"


def test_an_exception_of_the_callback_ends_the_run(tmp_path):
    def stop(report):
        if isinstance(report.event, Progress):
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        videogen.generate("text_to_video", "a swan", **SHORT, output=tmp_path / "a.mp4", on_event=stop)
    assert not list(tmp_path.iterdir())


def test_a_queue_keeps_the_model_for_the_next_call(tmp_path):
    queue, said = videogen.Queue(), []
    for seed in (1, 2):
        given = {**SHORT, "seed": seed, "output": tmp_path / f"{seed}.npy"}
        videogen.generate("text_to_video", "a swan", **given, queue=queue, on_event=said.append)
    runs = [[]]
    for report in said:
        runs[-1].append(report.event)
        if isinstance(report.event, RunFinished):
            runs.append([])
    loads = [
        [event for event in run if isinstance(event, StageStarted) and event.stage == "load"] for run in runs
    ]
    assert (len(runs), bool(loads[0]), loads[1]) == (3, True, [])
    assert [run[-1].videos for run in runs[:2]] == [1, 1]
    assert queue.session.pipeline is not None
    queue.close()
    assert queue.session.pipeline is None
    made = videogen.generate(
        "text_to_video", "a swan", **{**given, "output": tmp_path / "3.npy"}, queue=queue
    )
    np.testing.assert_array_equal(made.frames, np.load(tmp_path / "2.npy"))
