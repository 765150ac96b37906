"""--preset: what it sets, what wins over it, and what a result says of it."""

import json

import pytest
import torch

from tests.conftest import REFS
from videogen.diffusion.sampling import make_solver
from videogen.tasks import config
from videogen.tasks.table import VARIANTS

ROBOT = REFS / "robot.png"
A14B = ("--model_id", "Wan-AI/Wan2.2-T2V-A14B")


def plan(cli, *words, task="text_to_video", model=A14B):
    finished = cli("--task_type", task, "--prompt", "x", *model, "--dry_run", "--json", *words)
    assert finished.code == 0, finished.err
    return json.loads(finished.out)


def test_lightning_is_as_published(cli):
    made = plan(cli, "--preset", "lightning")
    asked = made["request"]
    assert asked["preset"] == "lightning"
    assert (asked["num_inference_steps"], asked["guidance_scale"], asked["shift"]) == (4, 1.0, 5.0)
    assert (asked["sample_solver"], asked["boundary"]) == ("euler", 0.875)
    folder = "lightx2v/Wan2.2-Lightning:Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1.1"
    assert asked["lora"] == [
        f"{folder}/{name}_noise_model.safetensors:1.0:{name}" for name in ("high", "low")
    ]
    assert made["forwards"] == 4
    assert sum("is to be downloaded" in note for note in made["notes"]) == 2


def test_images_have_a_pair_of_their_own(cli):
    model = ("--model_id", "Wan-AI/Wan2.2-I2V-A14B", "--input_image", ROBOT)
    asked = plan(cli, "--preset", "lightning", task="image_to_video", model=model)["request"]
    assert all("I2V-A14B-4steps-lora-rank64-Seko-V1/" in lora for lora in asked["lora"])
    assert asked["boundary"] == 0.9


def test_the_levels_are_those_of_the_distillation():
    solver = make_solver("euler", 4, 5.0, None, sigma_min=1 / 4)
    torch.testing.assert_close(solver.sigmas, torch.tensor([1.0, 15 / 16, 5 / 6, 5 / 8, 0.0]))


def test_flags_win(cli, tmp_path):
    made = plan(cli, "--preset", "lightning", "--num_inference_steps", 8, "--lora", "a/b:c.safetensors")
    asked = made["request"]
    assert (asked["num_inference_steps"], asked["shift"]) == (8, 5.0)
    assert asked["lora"] == ["a/b:c.safetensors:1.0"]
    assert "--lora takes the place of the LoRAs of --preset lightning" in made["notes"]


def test_a_result_made_with_a_preset_is_made_again(cli, tmp_path, monkeypatch):
    """And one made without takes a preset that is given now."""
    from safetensors.torch import save_file

    layer = "transformer.blocks.0.attn1.to_q"
    pair = {f"{layer}.lora_A.weight": torch.ones(2, 48), f"{layer}.lora_B.weight": torch.ones(48, 2)}
    save_file(pair, tmp_path / "l.safetensors")
    monkeypatch.chdir(tmp_path)
    tiny = ("--model_id", "tiny:wan22-a14b", "--num_frames", 5, "--device", "cpu", "--seed", 1)
    words = ("--task_type", "text_to_video", "--prompt", "x", *tiny, "--lora", "l.safetensors:0.5:high")
    finished = cli(*words, "--preset", "lightning", "--output", "a.npy")
    assert finished.code == 0, finished.err
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["request"]["preset"] == "lightning"
    again = cli("--from_metadata", "a.json", "--dry_run", "--json")
    assert json.loads(again.out)["plan_hash"] == record["plan_hash"]

    finished = cli(*words, "--num_inference_steps", 2, "--output", "b.npy")
    assert finished.code == 0, finished.err
    later = json.loads(cli("--from_metadata", "b.json", "--preset", "lightning", "--dry_run", "--json").out)
    assert later["request"]["num_inference_steps"] == 4
    assert later["request"]["sample_solver"] == "euler"
    assert len(later["request"]["lora"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--preset", "lighning", *A14B), "--preset lighning: must be one of lightning; nearest lightning"),
        (
            ("--preset", "lightning"),
            "is not for text_to_video with SkyReels-V2 models; leave it out; used by ",
        ),
    ],
)
def test_refused(cli, words, message):
    finished = cli("--task_type", "text_to_video", "--prompt", "x", *words, "--dry_run")
    assert finished.code == 2
    assert message in finished.complaint


def test_every_row_is_for_models_that_there_are():
    for rows in config.read("presets").values():
        for row in rows:
            for task in row["tasks"]:
                assert row["family"] in {spec.family for spec in VARIANTS[task]}
