"""Video extension end to end, through the command line, against the published pipelines."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import GOLDEN
from videogen.checkpoints.resolve import locate
from videogen.engine.load import load_pipeline
from videogen.media.download import Fetcher
from videogen.media.video_reader import read_video
from videogen.pipelines.color import match_color
from videogen.pipelines.pixels import frames_tensor
from videogen.pipelines.single_shot_extension import SingleShotExtensionPipeline
from videogen.tasks.families.skyreels_v3 import single_shot_rolls
from videogen.tasks.geometry import Roll
from videogen.tasks.table import TASKS

CHECKPOINT = GOLDEN / "skyreels_v3/checkpoint-v2v"


@pytest.fixture
def extended(cli, golden, tmp_path):
    """Run an extension task as its case says; returns (case, frames, latents)."""

    def run(task, name):
        case = golden(f"skyreels_v3/{name}")
        asked, (height, width) = case.about["arguments"], case.about["output_size_hw"]
        finished = cli(
            *("--task_type", task, "--model_id", CHECKPOINT, "--input_video", case.folder / "input.mp4"),
            *("--prompt", asked["prompt"], "--duration", asked["duration"], "--seed", asked["seed"]),
            *("--height", height, "--width", width),
            *("--device", "cpu", "--dtype", "float32", "--noise_device", "cpu"),
            *("--output", tmp_path / "video.npy", "--save_latents", tmp_path / "latents.safetensors"),
        )
        assert finished.code == 0, finished.err
        return case, np.load(tmp_path / "video.npy"), load_file(tmp_path / "latents.safetensors")

    return run


def assert_nearly_equal(frames, published, worst):
    """At most one level off in 99.9 % of the values, and never more than ``worst``."""
    assert frames.shape == published.shape
    difference = np.abs(frames.astype(int) - published.numpy().astype(int))
    assert (difference <= 1).mean() >= 0.999
    assert difference.max() <= worst


def test_single_shot(extended, tmp_path):
    case, frames, latents = extended("single_shot_extension", "single_shot")
    assert list(latents) == ["latents_0", "latents_1"]
    outputs, later = case.outputs, case.about["tolerances"]["later_rolls"]["final_latents_atol"]
    torch.testing.assert_close(latents["latents_0"][0], outputs["roll0_final_latents"], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(latents["latents_1"][0], outputs["roll1_final_latents"], atol=later, rtol=0)
    assert_nearly_equal(frames, outputs["video_uint8"], worst=3)
    assert len(frames) == case.about["output_frames"]
    assert not (tmp_path / "video.parts").exists()


def test_shot_switching(extended):
    case, frames, latents = extended("shot_switching_extension", "shot_switching")
    torch.testing.assert_close(latents["latents"][0], case.outputs["final_latents"], atol=1e-3, rtol=1e-3)
    assert_nearly_equal(frames, case.outputs["video_uint8"], worst=3)


def test_shot_switching_with_guidance(golden, tmp_path):
    case = golden("skyreels_v3/shot_switching")
    asked = case.about["cfg_arguments"]
    task = TASKS["shot_switching_extension"]
    pipeline = load_pipeline(task, locate(str(CHECKPOINT), None, task), torch.float32)
    video = read_video("--input_video", str(case.folder / "input.mp4"), Fetcher(folder=tmp_path))
    names = ("prompt", "negative_prompt", "height", "width", "guidance_scale", "num_inference_steps", "shift")
    (part,) = pipeline.parts(
        input_video=video,
        rolls=[Roll(latent_frames=4, context_frames=3, num_frames=asked["num_frames"])],
        sample_solver="unipc",
        generator=torch.Generator().manual_seed(asked["seed"]),
        **{name: asked[name] for name in names},
    )
    torch.testing.assert_close(part.latents[0], case.outputs["cfg_final_latents"], atol=1e-3, rtol=1e-3)


def test_condition_frames_are_stretched(golden):
    case = golden("skyreels_v3/condition_video_resize")
    expected = case.outputs["prefix_video"]
    made = frames_tensor(case.inputs["frames"], *expected.shape[-2:])
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)


def test_roll_plans(golden):
    file = golden("skyreels_v3/resolution_tables").folder / "single_shot_roll_plan.json"
    plans = json.loads(file.read_text())["plans"]
    assert [plan["duration"] for plan in plans] == list(range(1, 31))
    for plan in plans:
        rolls = single_shot_rolls(plan["duration"])
        assert [roll.latent_frames for roll in rolls] == [roll["new_latents"] for roll in plan["rolls"]]
        assert [roll.num_frames for roll in rolls] == [roll["kept_frames"] for roll in plan["rolls"]]
        assert sum(roll.num_frames for roll in rolls) == plan["output_frames"]
        assert {(roll.latent_frames + roll.context_frames) % 8 for roll in rolls} == {0}


def test_color_match(golden):
    case = golden("talking_avatar/color_match")
    for row in case.about["args"]:
        index = row["i"]
        video, reference = case.inputs[f"video{index}"], case.inputs[f"ref{index}"]
        matched, expected = match_color(video, reference, row["strength"]), case.outputs[f"out{index}"]
        torch.testing.assert_close(matched, expected, atol=2e-4, rtol=0)


def test_levels_are_cut_off_not_rounded():
    made = SingleShotExtensionPipeline.to_uint8(torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 2.0]))
    assert made.tolist() == [0, 0, 127, 254, 255, 255]
