"""The command line contract: flags, sources of options, plans, outputs, streams."""

import json
import os
import re
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import REFS, ROOT
from videogen.cli.parser import parse
from videogen.tasks.options import FLAG_NAMES, OPTIONS
from videogen.tasks.table import ROWS, users_of

# The surface. Adding or renaming a flag is a conscious change of this list.
FLAGS = """
task_type task model_id ckpt_dir revision download_timeout prompt negative_prompt roll_prompts
prompt_enhancer vlm_path vlm_device custom_prompt resolution size height width duration num_frames
frame_num video_length fps ref_imgs input_image image end_image input_video video video_path input_audio
audio seed base_seed num_inference_steps sample_steps inference_steps infer_steps guidance_scale
sample_guide_scale text_guide_scale cfg_scale guidance_scale_img guidance_scale_audio audio_guide_scale
embedded_cfg_scale shift flow_shift sample_shift sample_solver boundary noise_device ar_step
causal_block_size causal_attention base_num_frames overlap_history addnoise_condition connection_prompt
motion_frame drop_frame max_frames_num i2v_stability no_i2v_stability teacache teacache_thresh
use_ret_steps teacache_model device dtype offload low_vram use_usp ulysses_degree ring_degree cfg_parallel
attention_backend compile vae_tiling
lora preset output save_file output_dir save_latents overwrite resume jobs dry_run config from_metadata
keep_order shard retry bundle serve host port token ray gpus_per_job fetch caption_batch
list_tasks env completion json progress quiet verbose version
source_fps handover color_match prepend_input keep_audio keep_parts
new_frames_only captioner caption_only teacache_fixed cache float8_matmul
vae_dtype embedding_cache save_last_frame num_videos no_vlm concat audio_track i2v_condition_type no_riflex
neg_prompt i2v_resolution i2v_image_path use_cpu_offload save_path
codec crf video_colors
contact_sheet show diff sheet rows columns report
transformer text_encoder vae quantize
preview_every vae_preview status
"""


def test_the_surface_is_frozen():
    assert sorted(FLAG_NAMES) == sorted(FLAGS.split())
    for row in ROWS:
        assert {*row.options, *row.inputs} <= {*OPTIONS}
    for name, option in OPTIONS.items():
        assert option.about_run or option.chain or users_of(name), f"nobody uses --{name}"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from videogen.cli.main import main; main(['--help']); "
        "assert not {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--task_type" in done.stdout


@pytest.mark.parametrize(
    ("system", "given", "found"),
    [
        (("linux", "6.8.0-generic"), {}, {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}),
        (("linux", "5.15.167.4-microsoft-standard-WSL2"), {}, {}),  # its driver fails with them
        (("win32", "11"), {}, {}),
        (("linux", "6.8.0"), {"PYTORCH_CUDA_ALLOC_CONF": ""}, {"PYTORCH_CUDA_ALLOC_CONF": ""}),
    ],
)
def test_the_allocator_is_set_up_where_the_user_has_not(monkeypatch, system, given, found):
    from videogen.cli import main as command_line

    for name in (*command_line.ALLOCATOR, "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(command_line.sys, "platform", system[0])
    monkeypatch.setattr(command_line.platform, "release", lambda: system[1])
    command_line.set_up_torch()
    assert {name: os.environ[name] for name in command_line.ALLOCATOR if name in os.environ} == found


@pytest.mark.parametrize("given", [None, "active"])
def test_threads_sleep_where_the_user_has_not_said_how_they_wait(monkeypatch, given):
    from videogen.cli import main as command_line

    for name in (*command_line.ALLOCATOR, "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, given or "")  # so that it is put back
        monkeypatch.delenv(name)
    if given is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    command_line.set_up_torch()
    assert os.environ["OMP_WAIT_POLICY"] == (given or "passive")


def test_help_of_a_task_shows_its_flags_and_defaults(cli):
    text = " ".join(cli("--task_type", "reference_to_video", "--help").out.split())
    assert "--ref_imgs" in text
    assert "(default 5.0)" in text
    assert "Skywork/SkyReels-V3-R2V-14B" in text
    assert "480P, 540P, 720P" in text
    assert "--ar_step" not in text
    assert "--i2v_stability" in cli("--help", "all").out


def test_list_tasks_version_and_env(cli):
    assert cli("--list_tasks").out.startswith("reference_to_video ")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", cli("--version").out)
    environment = cli("--env").out
    assert "torch" in environment
    assert "cuda" in environment


@pytest.mark.slow
def test_env_prints_nothing_of_the_libraries_that_it_imports():
    command = [sys.executable, "generate_video.py", "--env"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_arguments_at_all(cli):
    finished = cli()
    assert finished.code == 2
    assert "--task_type: none given" in finished.complaint


def plan_of(cli, *arguments):
    finished = cli(*arguments, "--dry_run", "--json")
    assert finished.code == 0, finished.err
    return json.loads(finished.out)


def test_dry_run_says_what_will_happen(cli, r2v, tmp_path):
    finished = cli(*r2v, "--output", tmp_path / "x.mp4", "--dry_run")
    assert finished.code == 0
    for word in (
        "48x32",
        "5 frames",
        "1x16x2x4x6",
        "36 per forward",
        "2 steps",
        "memory",
        str(tmp_path / "x.mp4"),
    ):
        assert word in finished.out
    assert not list(tmp_path.iterdir())


def test_dry_run_of_the_published_model_needs_no_network(cli, tmp_path):
    plan = plan_of(
        cli, *("--task_type", "reference_to_video", "--prompt", "x", "--ref_imgs", REFS / "robot.png")
    )
    assert plan["model"]["id"] == "Skywork/SkyReels-V3-R2V-14B"
    assert not plan["model"]["present"]
    assert plan["model"]["bytes"]["transformer"] > 28e9
    assert (plan["width"], plan["height"], plan["num_frames"]) == (1280, 720, 121)
    assert plan["latent_shape"] == [1, 16, 31, 90, 160]
    assert plan["tokens"] == 126000
    assert plan["forwards"] == 8
    memory = plan["memory_bytes"]
    assert memory["plain"] > memory["offload"] > memory["low_vram"] > 10e9
    assert re.fullmatch(r"result/reference_to_video/42_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d.mp4", plan["output"])
    guided = plan_of(
        cli,
        *("--task_type", "reference_to_video", "--prompt", "x", "--ref_imgs", REFS / "robot.png"),
        *("--guidance_scale", 5),
    )
    assert guided["forwards"] == 24


def test_offline_is_one_line(cli, tmp_path):
    finished = cli(
        *("--task_type", "reference_to_video", "--prompt", "x", "--ref_imgs", REFS / "robot.png"),
        *("--output", tmp_path / "x.mp4"),
    )
    assert finished.code == 3
    assert "not in the cache, and HF_HUB_OFFLINE is set" in finished.complaint
    assert "hf download Skywork/SkyReels-V3-R2V-14B" in finished.complaint
    assert not list(tmp_path.iterdir())


def test_precedence_flag_config_metadata_default(cli, r2v, tmp_path):
    assert cli(*r2v, "--output", tmp_path / "a.mp4", "--shift", 3, "--seed", 7, "--fps", 12).code == 0
    config = tmp_path / "config.yaml"
    config.write_text("shift: 4\nframe-num: 9\nprompt: from the file\n")
    plan = plan_of(
        cli,
        *("--from_metadata", tmp_path / "a.json", "--config", config, "--prompt", "from the flag"),
        *("--output", tmp_path / "b.mp4", "--ref_imgs", REFS / "robot.png"),
    )
    request = plan["request"]
    assert request["prompt"] == "from the flag"  # flag
    assert request["shift"] == 4  # config
    assert plan["num_frames"] == 9  # config, under an alias
    assert request["seed"] == 7  # metadata
    assert plan["fps"] == 12  # metadata
    assert request["guidance_scale"] == 1.0  # default


def test_a_size_in_a_flag_silences_another_kind_of_size_in_the_config(cli, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("size: 1280*720\n")
    words = ("--task_type", "reference_to_video", "--prompt", "x", "--ref_imgs", REFS / "robot.png")
    plan = plan_of(cli, *words, "--config", config, "--height", 64, "--width", 96)
    assert (plan["height"], plan["width"]) == (64, 96)
    assert (plan_of(cli, *words, "--config", config)["width"]) == 1280


def test_dashes_and_equals_signs_and_values_that_begin_with_a_dash(cli, r2v):
    plan = plan_of(cli, *r2v, "--negative-prompt=-blur", "--guidance-scale=3")
    assert plan["request"]["negative_prompt"] == "-blur"
    words = [word if word != "a robot waves" else "-a robot --waves" for word in r2v]
    assert plan_of(cli, *words)["request"]["prompt"] == "-a robot --waves"


def test_outputs_of_every_kind(cli, r2v, tmp_path):
    for name in ("a.npy", "a.mp4", "a.gif", "pngs", "more/"):
        finished = cli(
            *r2v, "--output", tmp_path / name if name != "more/" else f"{tmp_path}/more/", "--overwrite"
        )
        assert finished.code == 0, finished.err
    frames = np.load(tmp_path / "a.npy")
    assert frames.shape == (5, 32, 48, 3)
    assert frames.dtype == np.uint8
    for folder in ("pngs", "more"):
        files = sorted((tmp_path / folder).iterdir())
        assert [file.name for file in files] == [f"{i:06d}.png" for i in range(5)]
        assert np.array_equal(np.stack([np.asarray(Image.open(file)) for file in files]), frames)
        assert (tmp_path / f"{folder}.json").is_file()
    for name in ("a.mp4", "a.gif"):
        with av.open(str(tmp_path / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 5
    assert not list(tmp_path.rglob(".*"))


def test_latents_file(cli, r2v, tmp_path):
    assert cli(*r2v, "--output", tmp_path / "a.npy", "--save_latents", tmp_path / "l.safetensors").code == 0
    tensors = load_file(tmp_path / "l.safetensors")
    assert list(tensors) == ["latents"]
    assert tensors["latents"].shape == (1, 16, 2, 4, 6)
    assert str(tensors["latents"].dtype) == "torch.float32"


@pytest.mark.parametrize("spelling", [("--base_seed", "-1"), ("--seed", "random")])
def test_a_drawn_seed_is_shown_and_recorded(cli, r2v, tmp_path, spelling):
    plans = [plan_of(cli, *r2v, *spelling) for _ in range(2)]
    assert plans[0]["request"]["seed"] != plans[1]["request"]["seed"]
    assert plan_of(cli, *r2v)["request"]["seed"] == 42


def test_quiet_and_streams(cli, r2v, tmp_path):
    finished = cli(*r2v, "--output", tmp_path / "a.mp4", "--quiet")
    assert finished.out == f"{tmp_path / 'a.mp4'}\n"
    assert finished.err == ""


def test_memory_options_on_a_cpu_work_or_say_why_not(cli, r2v, tmp_path):
    finished = cli(*r2v, "--output", tmp_path / "a.mp4", "--low_vram")
    assert finished.code == 0, finished.err
    assert finished.err.count("warning: ") == 2  # streaming does not apply; tiling is on
    finished = cli(
        *(*r2v, "--output", tmp_path / "b.mp4", "--offload", "--compile", "--attention_backend", "native"),
    )
    assert finished.code == 0, finished.err
    warnings = [line for line in finished.err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    for flag in ("--offload", "--compile"):
        assert sum(flag in line for line in warnings) == 1
    assert json.loads((tmp_path / "b.json").read_text())["attention_backend"] == "native"


def test_lora_flag(cli, r2v, tmp_path):
    import torch
    from safetensors.torch import save_file

    name = "transformer.blocks.0.attn1.to_q"
    save_file(
        {f"{name}.lora_A.weight": torch.randn(4, 48), f"{name}.lora_B.weight": torch.randn(48, 4)},
        tmp_path / "style.safetensors",
    )
    assert cli(*r2v, "--output", tmp_path / "plain.npy").code == 0
    finished = cli(*r2v, "--output", tmp_path / "lora.npy", "--lora", f"{tmp_path / 'style.safetensors'}:0.8")
    assert finished.code == 0, finished.err
    assert not np.array_equal(np.load(tmp_path / "plain.npy"), np.load(tmp_path / "lora.npy"))
    assert json.loads((tmp_path / "lora.json").read_text())["request"]["lora"] == ["style.safetensors:0.8"]


def test_a_lora_path_may_hold_a_colon_and_a_list_may_hold_commas(tmp_path):
    from videogen.tasks.options import OPTIONS

    (tmp_path / "a:b.safetensors").write_bytes(b"")
    assert OPTIONS["lora"].value(str(tmp_path / "a:b.safetensors"))[0].path == tmp_path / "a:b.safetensors"
    assert OPTIONS["ref_imgs"].value(["a,b.png", "c.png"]) == ("a,b.png", "c.png")


def test_lists_may_come_in_pieces():
    given, _ = parse(["--ref_imgs", "a.png", "--ref_imgs", "b.png,c.png", "--seed", "1", "--seed", "2"])
    assert given == {"ref_imgs": ("a.png", "b.png", "c.png"), "seed": (1, 2)}


def test_numbers_that_are_not_are_no_result(cli, r2v, tmp_path, monkeypatch):
    from videogen.pipelines.wan import WanPipeline

    monkeypatch.setattr(WanPipeline, "velocity", lambda self, segments, *_: segments[0].latents * np.nan)
    finished = cli(*r2v, "--output", tmp_path / "a.mp4")
    assert finished.code == 1
    assert "are not finite numbers; try" in finished.complaint
    assert not list(tmp_path.iterdir())


def test_on_and_off_in_yaml(cli, r2v, tmp_path):
    (tmp_path / "c.yaml").write_text("vae_tiling: off\n")
    finished = cli(*r2v, "--config", tmp_path / "c.yaml", "--dry_run", "--json")
    assert json.loads(finished.out)["request"]["vae_tiling"] == "off"


def test_guidance_flags_without_guidance_are_a_warning(cli, r2v):
    finished = cli(*r2v, "--guidance_scale_img", 3, "--dry_run")
    assert "warning: --guidance_scale_img has no effect" in finished.err
