"""Every task of the table, end to end on its tiny model: frames, size, exit code, files."""

import json

import av
import numpy as np
import pytest
from PIL import Image

from tests.conftest import REFS
from videogen.planning.measured_rates import read_rates
from videogen.tasks import config
from videogen.tasks.geometry import bucket_size
from videogen.tasks.table import TASKS

# What each task is given, and (width, height, frames) that it must make of it. A new task adds its row.
# "source.mp4" is a video of 160x96 and 30 frames.
RUNS = {
    "reference_to_video": (("--ref_imgs", f"{REFS / 'robot.png'},{REFS / 'hills.png'}"), (160, 96, 25)),
    "single_shot_extension": (("--input_video", "source.mp4"), (160, 96, 68)),
    "shot_switching_extension": (("--input_video", "source.mp4"), (160, 96, 49)),
    "text_to_video": (("--size", "96*160"), (96, 160, 17)),
    "image_to_video": (("--input_image", REFS / "balloon.png"), (96, 160, 17)),
    "diffusion_forcing": (
        (
            *("--input_video", "source.mp4", "--overlap_history", "5", "--base_num_frames", "17"),
            "--num_frames=29",
        ),
        (160, 96, 54),
    ),
}

RUNS["talking_avatar"] = (
    ("--input_image", REFS / "balloon.png", "--input_audio", "speech.wav"),
    (96, 128, 35),
)
RUNS["hunyuan_image_to_video"] = (("--input_image", REFS / "balloon.png"), (96, 96, 17))
for _name in ("v2v-14B", "v2v-5B"):
    RUNS[_name] = (("--input_video", "source.mp4"), (160, 96, 17))


def decoded(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack(frames), stream.average_rate


def test_every_task_has_a_run():
    assert set(RUNS) == set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_task(cli, tmp_path, make_video, speech, task):
    inputs, (width, height, frames) = RUNS[task]
    files = {"source.mp4": make_video(), "speech.wav": speech}
    inputs = [files.get(word, word) for word in inputs]
    output = tmp_path / "out.mp4"
    words = ("--task_type", task, "--model_id", "tiny", "--prompt", "a robot waves", *inputs)
    finished = cli(*words, "--output", output, "--preview_every", 2, "--progress", "json")
    assert finished.code == 0, finished.err
    assert finished.paths == [output]
    assert '"event": "preview"' in finished.err
    video, rate = decoded(output)
    assert video.shape == (frames, height, width, 3)
    assert video.std() > 5  # a picture, not a blank
    assert rate == {"v2v-14B": 16, "talking_avatar": 25}.get(task, 24)
    record = json.loads((tmp_path / "out.json").read_text())
    assert (record["width"], record["height"], record["num_frames"]) == (width, height, frames)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.mp4"]
    assert read_rates()[0].task == task  # what is kept of a video with as many steps as were planned


@pytest.mark.parametrize("name", ["robot", "balloon", "hills"])
def test_the_first_reference_fixes_the_shape(cli, tmp_path, name):
    image = Image.open(REFS / f"{name}.png")
    finished = cli(
        *("--task_type", "reference_to_video", "--model_id", "tiny", "--prompt", "x", "--dry_run", "--json"),
        *("--ref_imgs", REFS / f"{name}.png", "--output", tmp_path / "x.mp4"),
    )
    plan = json.loads(finished.out)
    table = config.read("sizes")["tiny"]["TINY"]
    assert (plan["height"], plan["width"]) == bucket_size(table, image.width, image.height)
