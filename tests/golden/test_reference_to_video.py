"""reference_to_video end to end, through the command line, against the published pipeline."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import GOLDEN, PACKED, ROOT
from videogen.checkpoints.resolve import locate
from videogen.engine.load import load_pipeline
from videogen.tasks.geometry import latent_frames
from videogen.tasks.table import TASKS

CHECKPOINT = GOLDEN / "skyreels_v3/checkpoint-r2v"
REFS = [GOLDEN / f"skyreels_v3/r2v_e2e/ref{i}.png" for i in (0, 1)]


@pytest.fixture
def command(cli, tmp_path):
    """Run the task on the golden checkpoint in float32; returns (frames, latents, sidecar)."""

    def run(*arguments):
        output, latents = tmp_path / "video.npy", tmp_path / "latents.safetensors"
        finished = cli(
            *("--task_type", "reference_to_video", "--model_id", CHECKPOINT),
            *("--ref_imgs", ",".join(map(str, REFS))),
            *("--device", "cpu", "--dtype", "float32", "--noise_device", "cpu"),
            *("--output", output, "--save_latents", latents),
            *arguments,
        )
        assert finished.code == 0, finished.err
        assert finished.paths == [output]
        return np.load(output), load_file(latents), json.loads((tmp_path / "video.json").read_text())

    return run


def test_as_published(golden, command):
    case = golden("skyreels_v3/r2v_e2e")
    asked, (height, width) = case.about["arguments"], case.about["output_size_hw"]
    frames, latents, sidecar = command(
        *("--prompt", asked["prompt"], "--duration", asked["duration"], "--seed", asked["seed"]),
        *("--height", height, "--width", width),
    )
    assert list(latents) == ["latents"]
    assert latents["latents"].dtype == torch.float32
    torch.testing.assert_close(latents["latents"], case.outputs["final_latents"], atol=1e-3, rtol=1e-3)
    published = case.outputs["video_uint8"].numpy()
    assert frames.shape == published.shape
    assert np.abs(frames.astype(int) - published.astype(int)).max() <= 1
    assert sidecar["num_frames"] == case.about["output_frames"]


def test_dual_guidance(golden, command):
    case = golden("skyreels_v3/r2v_dual_guidance")
    asked = case.about["arguments"]
    names = ("prompt", "negative_prompt", "height", "width", "num_frames", "seed")
    names += ("num_inference_steps", "guidance_scale", "guidance_scale_img")
    frames, latents, _ = command(*(word for name in names for word in (f"--{name}", asked[name])))
    torch.testing.assert_close(latents["latents"], case.outputs["final_latents"], atol=2e-3, rtol=1e-3)
    published = (case.outputs["video_float"] * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(frames[::2].astype(float) - published).max() <= 1


def test_float_video_and_intermediate_steps(golden):
    """What the files cannot show: the float video, the schedule, and the draws."""
    case = golden("skyreels_v3/r2v_dual_guidance")
    asked = case.about["arguments"]
    spec = TASKS["reference_to_video"]
    pipeline = load_pipeline(spec, locate(str(CHECKPOINT), None, spec), torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    seen = []

    def keep(pipe, index, timestep, tensors):
        seen.append(int(timestep))
        return tensors

    names = ("prompt", "negative_prompt", "height", "width", "num_frames")
    names += ("num_inference_steps", "guidance_scale", "guidance_scale_img")
    video = pipeline(
        **{name: asked[name] for name in names},
        ref_imgs=[Image.open(ref).convert("RGB") for ref in REFS],
        generator=torch.Generator().manual_seed(asked["seed"]),
        callback_on_step_end=keep,
        output_type="pt",
    ).frames
    torch.testing.assert_close(video[0][::2], case.outputs["video_float"], atol=2e-3, rtol=0)
    assert seen == case.outputs["timesteps"].tolist()


def test_draws_and_references(golden, monkeypatch):
    """The order of random draws, and empty slots as zero latents."""
    case = golden("skyreels_v3/r2v_e2e")
    spec = TASKS["reference_to_video"]
    pipeline = load_pipeline(spec, locate(str(CHECKPOINT), None, spec), torch.float32)
    generator = torch.Generator().manual_seed(case.about["arguments"]["seed"])
    height, width = case.about["output_size_hw"]
    with torch.no_grad():
        noise = pipeline.draw_noise(latent_frames(case.about["output_frames"]), height, width, generator)
        refs = pipeline.encode_references([Image.open(ref) for ref in REFS], height, width, generator)
    assert torch.equal(noise, case.outputs["initial_noise"])
    torch.testing.assert_close(refs, case.outputs["reference_latents_padded"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["Skywork/SkyReels-V3-R2V-14B", "Skywork/SkyReels-V3-Reference2Video"])
def test_either_hub_name_finds_the_cached_repository(cli, tmp_path, monkeypatch, name):
    """A cache that holds the repository under one of its names serves both, without network."""
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub/models--Skywork--SkyReels-V3-Reference2Video"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    (repository / "snapshots" / commit).symlink_to(CHECKPOINT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    finished = cli(
        *("--task_type", "reference_to_video", "--model_id", name, "--ref_imgs", REFS[0]),
        *("--prompt", "a cat", "--dry_run", "--json", "--output", tmp_path / "x.mp4"),
    )
    assert finished.code == 0, finished.err
    plan = json.loads(finished.out)
    assert plan["model"]["present"]
    assert plan["model"]["revision"] == commit
    assert plan["model"]["id"] == "Skywork/SkyReels-V3-Reference2Video"


def test_golden_folder_is_complete_in_the_repository():
    assert not [path for path in PACKED.rglob("*") if path.is_symlink()]
    assert sum(path.stat().st_size for path in PACKED.rglob("*") if path.is_file()) < 30 * 2**20
    assert PACKED.is_relative_to(ROOT)
