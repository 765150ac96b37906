"""Options that trade quality for speed, from the command line: what they leave out, and what is recorded."""

import json

import numpy as np
import pytest

from tests.conftest import REFS

ROBOT = REFS / "robot.png"
SMALL = ("--height", 32, "--width", 48, "--device", "cpu", "--seed", 1)
T2V = ("--task_type", "text_to_video", "--model_id", "tiny", "--prompt", "x", "--num_frames", 5, *SMALL)


def record(finished):
    assert finished.code == 0, finished.err
    return json.loads(finished.paths[-1].with_suffix(".json").read_text())


# Tasks with something particular: segments whose frames step apart, two experts, another network.
TASKS = {
    "diffusion_forcing": ("tiny", "--num_frames", 13, "--base_num_frames", 9, "--overlap_history", 5)
    + ("--ar_step", 1),
    "text_to_video": ("tiny:wan22-a14b", "--num_frames", 5),
    "hunyuan_image_to_video": ("tiny", "--input_image", ROBOT, "--num_frames", 5),
}


@pytest.mark.parametrize("task", TASKS)
def test_caches_of_diffusers(cli, tmp_path, task):
    """One after the other on one model; each leaves out forwards, is recorded, and comes off."""
    model, *words = TASKS[task]
    jobs = tmp_path / "jobs.jsonl"
    caches = [None, "first_block:1", "taylorseer_lite", None]
    lines = [{"prompt": "x", **({"cache": cache} if cache else {})} for cache in caches]
    jobs.write_text("\n".join(map(json.dumps, lines)))
    finished = cli(
        *("--task_type", task, "--model_id", model, *words, *SMALL, "--num_inference_steps", 6),
        *("--jobs", jobs, "--output", tmp_path / "{index}.npy"),
    )
    assert finished.code == 0, finished.err
    exact, *cached, again = (np.load(path).astype(int) for path in finished.paths)
    assert np.array_equal(exact, again)
    plain, *records, _ = (json.loads(path.with_suffix(".json").read_text()) for path in finished.paths)
    assert "cache" not in plain
    assert [found["request"]["cache"] for found in records] == ["first_block:1", "taylorseer_lite:5"]
    assert len({found["plan_hash"] for found in (plain, *records)}) == 3
    for frames, found in zip(cached, records, strict=True):
        assert found["cache"]["skipped"] > 0
        assert found["cache"]["computed"] > 0
        assert not np.array_equal(frames, exact)


def test_clips_of_an_avatar(cli, tmp_path, speech):
    """Every clip begins anew: of its four steps the fourth is extrapolated."""
    finished = cli(
        *("--task_type", "talking_avatar", "--model_id", "tiny", "--prompt", "x", "--input_image", ROBOT),
        *("--input_audio", speech, "--num_frames", 17, "--motion_frame", 5, "--drop_frame", 4, *SMALL),
        *("--max_frames_num", 17, "--cache", "taylorseer_lite", "--output", tmp_path / "a.npy"),
    )
    counts = record(finished)["cache"]
    assert counts["computed"] == 3 * counts["skipped"] >= 6
    assert (tmp_path / "a.npy").is_file()


def test_magcache_is_measured_and_then_used(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEOGEN_CACHE", str(tmp_path / "kept"))
    words = (*T2V, "--num_inference_steps", 6, "--output")
    exact = cli(*words, tmp_path / "exact.npy")
    refused = cli(*words, tmp_path / "a.npy", "--cache", "magcache:1")
    assert refused.code == 2
    assert "--cache magcache: was not measured for this model with these steps" in refused.complaint

    measured = record(cli(*words, tmp_path / "m.npy", "--cache", "magcache:calibrate"))
    assert measured["cache"] == {"computed": 12, "skipped": 0}
    assert np.array_equal(np.load(exact.paths[0]), np.load(tmp_path / "m.npy"))
    (file,) = (tmp_path / "kept/magcache").iterdir()
    ratios = json.loads(file.read_text())["ratios"]
    assert [sorted(branches) for branches in ratios["transformers"]] == [["cond", "uncond"]]

    used = record(cli(*words, tmp_path / "a.npy", "--cache", "magcache:1"))
    assert used["cache"]["skipped"] >= 4
    assert used["request"]["cache"] == "magcache:1"
    assert cli(*words, tmp_path / "a.npy", "--cache", "magcache:1", "--resume").code == 0
    assert cli(*words, tmp_path / "b.npy", "--from_metadata", tmp_path / "a.json").code == 0
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))

    other = cli(*words, tmp_path / "c.npy", "--cache", "magcache", "--shift", 3)  # other noise levels
    assert (other.code, "was not measured" in other.complaint) == (2, True)
    file.write_text(file.read_text().replace("1.0,", "1.25,"))  # other ratios are another plan
    again = cli(*words, tmp_path / "a.npy", "--cache", "magcache:1", "--resume")
    assert again.code == 2


def test_a_plan_counts_what_a_cache_keeps(cli, tmp_path):
    words = ("--task_type", "text_to_video", "--prompt", "x", "--dry_run", "--json", "--size", "960*544")
    plain, per_layer = (
        json.loads(cli(*words, *more).out)["memory_bytes"]["plain"]
        for more in ((), ("--cache", "taylorseer"))
    )
    assert per_layer > plain + 200e9  # 240 of a branch
    assert "fewer with the cache" in cli(*words[:4], "--dry_run", "--cache", "first_block").out


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("reference_to_video", ("--ref_imgs", ROBOT, "--num_frames", 5)),
        ("image_to_video", ("--model_id", "tiny:wan22-5b", "--input_image", ROBOT, "--num_frames", 5)),
    ],
)
def test_lcm(cli, tmp_path, task, words):
    size = ("--height", 64, "--width", 64)
    words = ("--task_type", task, "--model_id", "tiny", *words, "--prompt", "x", *size, *SMALL[4:])
    words += ("--sample_solver", "lcm", "--num_inference_steps", 4, "--guidance_scale", 1, "--shift", 5)
    first = cli(*words, "--output", tmp_path / "a.npy")
    assert record(first)["request"]["sample_solver"] == "lcm"
    warnings = [line for line in first.err.splitlines() if line.startswith("warning: --sample_solver lcm")]
    assert len(warnings) == 1  # no LoRA
    assert cli(*words, "--output", tmp_path / "b.npy").code == 0
    frames = np.load(tmp_path / "a.npy")
    assert np.array_equal(frames, np.load(tmp_path / "b.npy"))
    assert frames.std() > 5


def test_lcm_goes_on_with_the_same_noise(cli, tmp_path):
    """Segments draw their steps' noise from generators of their own."""
    words = ("--task_type", "diffusion_forcing", "--model_id", "tiny", "--prompt", "x", *SMALL)
    words += ("--num_frames", 13, "--base_num_frames", 9, "--overlap_history", 5, "--guidance_scale", 1)
    words += ("--sample_solver", "lcm", "--num_inference_steps", 4, "--keep_parts", "--output")
    assert cli(*words, tmp_path / "a.npy").code == 0
    (tmp_path / "a.npy").rename(tmp_path / "whole.npy")
    (tmp_path / "a.json").unlink()
    state = tmp_path / "a.parts/state.json"  # as if the second had not been finished
    state.write_text(state.read_text().replace('"finished": 2', '"finished": 1'))
    finished = cli(*words, tmp_path / "a.npy", "--resume")
    assert finished.code == 0, finished.err
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "whole.npy"))


def test_lcm_is_not_for_tasks_with_a_schedule_of_their_own(cli, speech):
    for task in ("talking_avatar", "hunyuan_image_to_video"):
        words = ("--task_type", task, "--model_id", "tiny", "--prompt", "x", "--input_image", ROBOT)
        finished = cli(*words, "--sample_solver", "lcm")
        assert finished.code == 2
        assert f"--sample_solver lcm: not used by {task}" in finished.complaint
