"""To which frame the colours of a video are matched."""

import numpy as np
import pytest

from tests.sources import write_flat

SMALL = ("--num_inference_steps", 1, "--height", 32, "--width", 48, "--model_id", "tiny", "--device", "cpu")


@pytest.mark.parametrize("task", ["single_shot_extension", "shot_switching_extension", "v2v-5B"])
def test_a_video_is_matched_to_the_last_frame_of_its_input(cli, tmp_path, task):
    """Which has a colour of its own: matched to a flat frame, every frame has just this colour."""
    colours = [(200, 60, 60), (60, 200, 60), (60, 60, 200)] * 8 + [(90, 120, 150)]
    source = write_flat(tmp_path / "source.mp4", colours)
    length = ("--num_frames", 5, "--prompt", "x") if task == "v2v-5B" else ("--duration", 2, "--prompt", "x")
    size = ("--height", 64, "--width", 96) if task == "v2v-5B" else ()
    words = ("--task_type", task, *SMALL, *size, "--input_video", source, *length, "--color_match")
    finished = cli(*words, "--output", tmp_path / "a.npy")
    assert finished.code == 0, finished.err
    made = np.load(tmp_path / "a.npy").astype(int)
    assert len(made) > 4
    assert np.abs(made - (90, 120, 150)).max() <= 6
