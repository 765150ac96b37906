"""--from_metadata with a file that somebody else made: it says what to make, and nothing else."""

import json

import pytest

from tests.conftest import REFS
from videogen.tasks.options import OPTIONS

# What speaks about this machine: where things are, devices, patience.
ABOUT_THE_MACHINE = {
    "output": "elsewhere.mp4",
    "output_dir": "elsewhere",
    "save_latents": "elsewhere.safetensors",
    "save_last_frame": "elsewhere.png",
    "embedding_cache": "elsewhere",
    "device": "cuda:7",
    "vlm_device": "cuda:7",
    "vlm_path": "some/model",
    "download_timeout": 9999.0,
    "use_usp": True,
    "ulysses_degree": 2,
    "ring_degree": 2,
    "cfg_parallel": True,
}


@pytest.fixture
def shared(tmp_path):
    """Write a metadata file with a request; returns its path."""

    def write(**request):
        own = {"task_type": "reference_to_video", "model_id": "tiny", "prompt": "a robot", "seed": 5}
        own |= {"ref_imgs": [str(REFS / "robot.png")], "height": 32, "width": 48, "num_frames": 5}
        file = tmp_path / "shared.json"
        file.write_text(json.dumps({"schema": 1, "request": {**own, "num_inference_steps": 1, **request}}))
        return file

    return write


def test_options_about_the_machine_are_not_recorded():
    assert not any(OPTIONS[name].recorded for name in ABOUT_THE_MACHINE)


@pytest.mark.parametrize("name", ABOUT_THE_MACHINE)
def test_what_is_about_the_machine_is_not_taken(cli, shared, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    file = shared(**{name: ABOUT_THE_MACHINE[name]})
    finished = cli("--from_metadata", file, "--dry_run", "--json")
    assert finished.code == 0, finished.err
    assert f"warning: {file} cannot say {name}: give them as flags" in finished.err
    assert "elsewhere" not in finished.out
    assert "cuda:7" not in finished.out
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("name", ["overwrite", "resume", "quiet"])
def test_what_is_about_the_run_is_refused(cli, shared, name):
    finished = cli("--from_metadata", shared(**{name: True}), "--dry_run")
    assert finished.code == 2
    assert f"{name}: is about the whole run" in finished.complaint


def test_a_prompt_file_is_not_read(cli, shared, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    finished = cli("--from_metadata", shared(roll_prompts=str(secret)), "--dry_run")
    assert finished.code == 2
    assert "roll_prompts" in finished.complaint
    assert "must be a list of prompts" in finished.complaint


def test_models_loras_and_urls_are_named_before_anything_is_fetched(cli, shared, tmp_path, monkeypatch):
    from videogen.cli import main

    seen = []

    def fetch(*args, **kwargs):
        seen.append(True)
        raise RuntimeError("fetched")

    monkeypatch.setattr(main, "make_plans", fetch)
    url, lora = "http://127.0.0.1:9/a.png", tmp_path / "style.safetensors"
    file = shared(model_id="some/model", ref_imgs=[url], lora=[f"{lora}:0.5"])
    finished = cli("--from_metadata", file, "--output", tmp_path / "a.mp4")
    assert seen
    lines = finished.err.splitlines()
    assert lines[:3] == [
        f"{file} names {what}" for what in ("the model some/model", f"the LoRA {lora}", f"the URL {url}")
    ]
    given = cli(
        "--from_metadata", file, "--model_id", "tiny", "--ref_imgs", REFS / "robot.png", "--lora", lora
    )
    assert "names" not in given.err


def test_dry_run_fetches_nothing_for_a_file(cli, shared):
    file = shared(ref_imgs=["http://127.0.0.1:9/a.png"])
    finished = cli("--from_metadata", file, "--dry_run")
    assert finished.code == 2
    assert "--dry_run: fetches nothing" in finished.complaint
    assert "add --ref_imgs with its path" in finished.complaint
    assert cli("--from_metadata", file, "--dry_run", "--ref_imgs", REFS / "robot.png").code == 0
