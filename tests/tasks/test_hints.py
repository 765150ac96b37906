"""Hints: what is meant before what is spelt alike, and nothing where nothing is like it."""

import json
import re

import pytest

from videogen.errors import nearest
from videogen.tasks.hints import hint, synonyms
from videogen.tasks.options import FLAG_NAMES

MEANT = {
    "--steps": "--num_inference_steps",
    "--cfg": "--guidance_scale",
    "--quantization": "--quantize",
    "--gguf": "--transformer",
    "--fp8": "--low_vram",
    "--attention": "--attention_backend",
    "--prompt_file": "--jobs",
    "--prompt-file": "--jobs",
    "--batch": "--jobs",
    "--n": "--seed",
    "--frames": "--num_frames",
    "--length": "--num_frames",
    "--negative": "--negative_prompt",
    "--out": "--output",
    "--gpu": "--device",
    "--gpus": "torchrun",
    "--upscale": "no upscaler",
    "--lora-strength": "--lora PATH:SCALE",
    "--turbo": "--preset lightning",
    "--i2v": "--task_type",
    "--portrait": "--height and --width",
    "--prores": "--codec",
    "--help-all": "--help all",
    # misspelt words of other programs
    "--stesp": "--num_inference_steps",
    "--lenght": "--num_frames",
    "--guidence": "--guidance_scale",
    "--schedular": "--sample_solver",
    "--modle": "--model_id",
}


@pytest.mark.parametrize("flag", MEANT)
def test_a_flag_of_other_programs_is_understood(cli, flag):
    finished = cli(flag, "3", "--prompt", "x")
    assert finished.code == 2
    assert f"{flag}: unknown flag; use " in finished.complaint
    assert MEANT[flag] in finished.complaint


def test_every_advice_names_flags_that_there_are():
    assert not set(synonyms()) & set(FLAG_NAMES)
    for advice in synonyms().values():
        flags = set(re.findall(r"--(\w+)", advice))
        assert flags
        assert flags <= {*FLAG_NAMES, "help", "nproc_per_node"}


@pytest.mark.parametrize(
    "flag", ["--foo", "--colour", "--reverse", "--cache_dir", "--motion", "--z", "--workers", "--strength"]
)
def test_what_is_like_nothing_is_not_guessed(cli, flag):
    assert hint(flag) is None
    assert f"{flag}: unknown flag; see --help" in cli(flag, "3").complaint


@pytest.mark.parametrize(
    ("flag", "close"),
    [
        ("--gudance_scale", "--guidance_scale"),
        ("--shfit", "--shift"),
        ("--num-framse", "--num_"),
        ("--vae-path", "--vae"),  # what is said behind a name
        ("--codec-name", "--codec"),
    ],
)
def test_a_misspelling_is_still_seen(flag, close):
    assert close in str(hint(flag))


def test_a_key_in_a_file_is_understood_too(cli, tmp_path):
    (tmp_path / "c.yaml").write_text("steps: 3\n")
    assert (
        "steps: no such option; use --num_inference_steps" in cli("--config", tmp_path / "c.yaml").complaint
    )


def test_a_choice_that_is_like_nothing_names_an_example(cli):
    finished = cli("--task_type", "text_to_video", "--sample_solver", "heun", "--prompt", "x")
    assert (
        "--sample_solver heun: must be one of unipc, dpm++, euler, lcm; for example unipc"
        in finished.complaint
    )
    assert nearest("heun", ["euler", "unipc"]) is None


@pytest.mark.parametrize(
    ("flag", "value", "fix"),
    [
        ("--resolution", "4k", "nearest 720P"),
        ("--resolution", "480P", "nearest 540P"),
        ("--cache", "teacache", "use --teacache"),
        ("--cache", "foo", "for example first_block"),
        ("--cache", "taylor_seer", "nearest taylorseer"),
        ("--task_type", "t2v", "nearest text_to_video"),
        ("--task_type", "img2vid", "nearest image_to_video"),
        ("--task_type", "Ref-to-Video", "nearest reference_to_video"),
        ("--task_type", "df", "nearest diffusion_forcing"),
        ("--task_type", "avatar", "nearest talking_avatar"),
        ("--task_type", "extension", "see --list_tasks"),
        ("--no_compile", None, "leave --compile out"),
        ("--no-dry-run", None, "leave --dry_run out"),
    ],
)
def test_a_value_is_understood_by_its_meaning(cli, flag, value, fix):
    words = [flag] if value is None else [flag, value]
    task = () if flag == "--task_type" else ("--task_type", "text_to_video")
    assert cli(*task, "--prompt", "x", *words).complaint.endswith(f"; {fix}")


def test_names_of_other_programs_are_values_too(cli):
    words = ("--quantize", "fp8", "--attention_backend", "sdpa", "--device", "cpu", "--json")
    finished = cli(*T2V, *words)
    request = json.loads(finished.out)["request"]
    assert (request["quantize"], request["attention_backend"]) == ("float8", "native")


T2V = ("--task_type", "text_to_video", "--prompt", "x", "--dry_run")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("Wan-AI/Wan2.2-T2V-A41B", "as a Wan2.2 A14B model .*known and like it: Wan-AI/Wan2.2-T2V-A14B"),
        ("Wan-AI/Wan2.2-TI2V-5b", "as a Wan2.2 5B model .*known and like it: Wan-AI/Wan2.2-TI2V-5B"),
        ("Skywork/SkyReels-V2-T2V-14B-540PP", "known and like it: Skywork/SkyReels-V2-T2V-14B-540P"),
        (
            "me/something-else",
            "me/something-else is not known here, and planned as a SkyReels-V2 model until the hub",
        ),
    ],
)
def test_an_unknown_hub_id_is_never_planned_in_silence(cli, model, said):
    finished = cli(*T2V, "--model_id", model)
    assert finished.code == 0, finished.err
    assert re.search(f"warning: --model_id {model} .*{said}|{said}", finished.err), finished.err
    assert "is not known here" not in cli(*T2V, "--model_id", "Wan-AI/Wan2.2-T2V-A14B").err


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("Wan2.2-T2V-A14B", "nearest Wan-AI/Wan2.2-T2V-A14B"),
        ("https://huggingface.co/Wan-AI/Wan2.2-T2V-A14B/", "nearest Wan-AI/Wan2.2-T2V-A14B"),
        ("a/b/c", "default Skywork/"),
        ("Wan-AI/Wan2.2-S2V-14B", "is not supported; talking_avatar"),
        ("Wan-AI/Wan2.2-Animate-14B", "is not supported; reference_to_video"),
        ("tencent/HunyuanVideo-I2V", "use hunyuanvideo-community/HunyuanVideo-I2V"),
    ],
)
def test_a_model_that_cannot_be_names_one_that_can(cli, model, said):
    finished = cli(*T2V, "--model_id", model)
    assert finished.code == 3
    assert said in finished.complaint


def test_a_device_that_is_not_here_is_said_by_a_dry_run_too(cli, monkeypatch):
    import torch

    finished = cli(*T2V, "--model_id", "tiny", "--device", "cuda")
    if torch.cuda.is_available():
        assert finished.code == 0
        return
    assert finished.code == 2
    assert "--device cuda: there are 0 such devices here" in finished.complaint
    assert "try --device cpu" in finished.complaint
    assert cli(*T2V, "--model_id", "tiny", "--device", "auto").code == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cli(*T2V, "--model_id", "tiny", "--device", "cuda").code == 0


@pytest.mark.parametrize(
    ("visible", "version", "why"),
    [
        ("", "2.13.0", "CUDA_VISIBLE_DEVICES hides them"),
        (None, "2.13.0+cpu", "is for the CPU alone"),
        (None, "2.13.0", "there is no driver for one"),
    ],
)
def test_why_there_is_no_cuda_is_known_without_torch(monkeypatch, visible, version, why):
    from videogen.planning import local_devices

    monkeypatch.setattr(local_devices.metadata, "version", lambda name: version)
    monkeypatch.setattr(local_devices, "DRIVERS", ("/no/such/file",))
    monkeypatch.setattr(local_devices.sys, "platform", "linux")
    assert why in local_devices._missing_cuda.__wrapped__(visible)
    monkeypatch.setattr(local_devices, "DRIVERS", ("/",))
    assert (local_devices._missing_cuda.__wrapped__(None) is None) == (version == "2.13.0")


def test_frames_of_720p_name_the_segment_that_takes_them(cli):
    words = ("--task_type", "diffusion_forcing", "--prompt", "x", "--num_frames", 121, "--dry_run")
    small = cli(*words, "--model_id", "Skywork/SkyReels-V2-DF-14B-540P", "--resolution", "720P")
    assert small.code == 2
    assert "--base_num_frames 121 (published for 720P), or nearest --num_frames 97" in small.complaint
    assert cli(*words, "--model_id", "Skywork/SkyReels-V2-DF-14B-720P").code == 0
