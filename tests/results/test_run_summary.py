"""The line that ends a run."""

import dataclasses

import pytest

from videogen.results.progress import RunFinished, Saved
from videogen.results.run_summary import closing_line, list_line, seconds_per_step

SAVED = Saved(
    path="a.mp4",
    sidecar="a.json",
    seconds={"load": 20.04, "denoise": 60.0, "total": 93.21},
    seconds_per_step=2.25,
    peak_memory={"ram": 12_340_000_000, "gpu": 41_200_000_000},
)


def test_all_that_a_run_took_is_in_one_line():
    assert closing_line(SAVED) == (
        "a.mp4: 93.2 s (load 20.0, denoise 60.0); 2.25 s/step; peak 41.2 GB on the GPU, 12.3 GB of RAM"
    )


def test_without_a_gpu_and_without_steps():
    saved = dataclasses.replace(SAVED, seconds_per_step=0.0, peak_memory={"ram": 5_000_000})
    assert closing_line(saved) == "a.mp4: 93.2 s (load 20.0, denoise 60.0); peak 5.0 MB of RAM"


@pytest.mark.parametrize(("steps", "mean"), [([], 0), ([3], 3), ([9, 1], 1), ([9, 1, 2], 1.5)])
def test_the_first_step_says_nothing_of_the_others(steps, mean):
    assert seconds_per_step(steps) == mean


def test_a_list_says_its_time_as_exactly_as_its_speed():
    run = RunFinished(videos=6, failed=0, skipped=0, seconds=91.6)
    assert list_line(run) == "6 videos: 6 made, 0 skipped, 0 failed in 1 min 32 s, 236 an hour"
