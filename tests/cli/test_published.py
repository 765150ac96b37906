"""Commands as the four repositories publish them, with only the script's name changed.

Flags are those of the published command lines; the words of prompts are our own.
"""

import json
import re
import shlex

import pytest

from tests.conftest import REFS
from videogen import distributed
from videogen.cli import published
from videogen.cli.parser import parse
from videogen.cli.published import ROWS, translate
from videogen.errors import InputError
from videogen.tasks.options import FLAG_NAMES

ROBOT, HILLS = REFS / "robot.png", REFS / "hills.png"
WAN = "--offload_model True --convert_model_dtype"
TEACACHE = "--teacache --use_ret_steps --teacache_thresh 0.3"
V2 = f"--resolution 540P --prompt 'swans on a lake' --offload {TEACACHE}"
HYV = (
    "--model HYVideo-T/2 --prompt 'a man with a hat sits down' --i2v-mode --i2v-resolution 720p "
    f"--i2v-image-path {ROBOT} --infer-steps 50 --video-length 129 --flow-reverse --embedded-cfg-scale 6.0 "
    "--seed 0 --save-path ./results"
)

# Repository and what it is -> (command behind the script's name, what the plan says).
COMMANDS = {
    "wan t2v": (
        f"--task t2v-A14B --size 1280*720 --model_id Wan-AI/Wan2.2-T2V-A14B {WAN} --prompt 'two cats box'",
        {"task_type": "text_to_video", "width": 1280, "height": 720, "num_frames": 81},
    ),
    "wan t2v, longer prompt": (
        f"--task t2v-A14B --size 1280*720 {WAN} --prompt 'two cats box' --use_prompt_extend "
        "--prompt_extend_method dashscope --prompt_extend_target_lang zh",
        {"task_type": "text_to_video", "prompt_enhancer": "Qwen/Qwen2.5-14B-Instruct"},
    ),
    "wan t2v, longer prompt here": (
        f"--task t2v-A14B --size 1280*720 {WAN} --prompt 'two cats box' --use_prompt_extend "
        "--prompt_extend_method local_qwen --prompt_extend_model Qwen/Qwen2.5-7B-Instruct "
        "--prompt_extend_target_lang en",
        {"prompt_enhancer": "Qwen/Qwen2.5-7B-Instruct"},
    ),
    "wan i2v": (
        f"--task i2v-A14B --size 1280*720 {WAN} --image {HILLS} --prompt 'a cat on a surfboard' "
        "--sample_solver unipc --sample_steps 40 --sample_shift 5.0 --sample_guide_scale 3.5 --base_seed -1",
        {"task_type": "image_to_video", "shift": 5.0, "num_inference_steps": 40},
    ),
    "wan ti2v, text": (
        f"--task ti2v-5B --size 1280*704 {WAN} --t5_cpu --prompt 'two cats box'",
        {"task_type": "text_to_video", "width": 1280, "height": 704, "num_frames": 121},
    ),
    "wan ti2v, image": (
        f"--task ti2v-5B --size 1280*704 {WAN} --t5_cpu --image {HILLS} --prompt 'a cat on a surfboard'",
        {"task_type": "image_to_video", "model_id": "Wan-AI/Wan2.2-TI2V-5B"},
    ),
    "v2 t2v": (
        f"--model_id Skywork/SkyReels-V2-T2V-14B-540P --num_frames 97 --guidance_scale 6.0 --shift 8.0 "
        f"--fps 24 {V2}",
        {"task_type": "text_to_video", "num_frames": 97},
    ),
    "v2 i2v": (
        f"--model_id Skywork/SkyReels-V2-I2V-14B-540P --num_frames 97 --guidance_scale 5.0 --shift 3.0 "
        f"--fps 24 --image {HILLS} --outdir mine {V2}",
        {"task_type": "image_to_video", "output": "result/mine/1_7.mp4"},
    ),
    "v2 df, long": (
        f"--model_id Skywork/SkyReels-V2-DF-14B-540P --ar_step 0 --base_num_frames 97 --num_frames 257 "
        f"--overlap_history 17 --addnoise_condition 20 {V2}",
        {"task_type": "diffusion_forcing", "num_frames": 257},
    ),
    "v2 df, blocks": (
        f"--model_id Skywork/SkyReels-V2-DF-14B-540P --ar_step 5 --causal_block_size 5 --base_num_frames 97 "
        f"--num_frames 737 --overlap_history 17 --addnoise_condition 20 {V2}",
        {"task_type": "diffusion_forcing", "num_frames": 737},
    ),
    "v2 df, first and last frame": (
        f"--model_id Skywork/SkyReels-V2-DF-14B-540P --ar_step 0 --base_num_frames 97 --num_frames 97 "
        f"--image {HILLS} --end_image {ROBOT} {V2}".replace("--offload", "--offload True"),
        {"task_type": "diffusion_forcing"},
    ),
    "v2 df, 720P": (
        f"--model_id Skywork/SkyReels-V2-DF-14B-720P --num_frames 121 {V2}".replace("540P ", "720P "),
        {"task_type": "diffusion_forcing", "num_frames": 121, "base_num_frames": 121, "height": 720},
    ),
    "v3 references": (
        f"--task_type reference_to_video --ref_imgs '{ROBOT},{HILLS}' --prompt 'a robot on a hill' "
        "--duration 5 --offload",
        {"task_type": "reference_to_video", "num_frames": 121},
    ),
    "hunyuan, stable": (
        f"{HYV} --i2v-stability --flow-shift 7.0 --use-cpu-offload",
        {"task_type": "hunyuan_image_to_video", "i2v_stability": True, "shift": 7.0, "num_frames": 129},
    ),
    "hunyuan, dynamic": (
        f"{HYV} --flow-shift 17.0 --use-cpu-offload",
        {"task_type": "hunyuan_image_to_video", "i2v_stability": False, "shift": 17.0},
    ),
    "hunyuan, every flag": (
        f"{HYV} --flow-shift 17.0 --precision bf16 --vae 884-16c-hy --vae-precision fp16 --vae-tiling "
        "--text-encoder llm-i2v --text-encoder-precision fp16 --denoise-type flow --flow-solver euler "
        "--seed-type auto --reproduce --use-fp8 --batch-size 1 --num-videos 1 --model-resolution 540p "
        "--video-size 720 1280 --name-suffix '' --save-path-suffix a --disable-autocast --load-key module",
        {"dtype": "bfloat16", "vae_tiling": "auto", "output": "results_a/1_0.mp4"},
    ),
}
VIDEO_COMMANDS = {
    "v2 df, video": (
        f"--model_id Skywork/SkyReels-V2-DF-14B-540P --ar_step 0 --base_num_frames 97 --num_frames 120 "
        f"--overlap_history 17 --addnoise_condition 20 {V2}",
        "--video_path",
        "diffusion_forcing",
    ),
    "v3 extension": (
        "--task_type single_shot_extension --prompt 'a man walks on' --duration 5 --offload",
        "--input_video",
        "single_shot_extension",
    ),
    "v3 switch": (
        "--task_type shot_switching_extension --prompt '[ZOOM_IN_CUT] his face' --offload",
        "--input_video",
        "shot_switching_extension",
    ),
}


def planned(cli, command, *more):
    finished = cli(*shlex.split(command), *more, "--dry_run", "--json")
    assert finished.code == 0, finished.err
    return json.loads(finished.out), finished.err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_published_command_is_planned(cli, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command, expected = COMMANDS[name]
    plan, _ = planned(cli, command, *(("--seed", "7") if "seed" not in command else ()))
    found = {**plan["request"], **plan}
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", VIDEO_COMMANDS)
def test_a_published_command_with_a_video_is_planned(cli, name, make_video):
    command, flag, task = VIDEO_COMMANDS[name]
    plan, _ = planned(cli, command, flag, make_video("long.mp4", frames=60))
    assert plan["task_type"] == task


def test_a_published_avatar_command_is_planned(cli, speech):
    command = (
        f"--task_type talking_avatar --prompt 'a woman speaks' --seed 42 --offload --input_image {ROBOT}"
    )
    plan, _ = planned(cli, command, "--input_audio", speech)
    assert plan["task_type"] == "talking_avatar"


def test_published_commands_run_on_tiny_models(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = "--height 32 --width 48 --num_frames 5 --num_inference_steps 2 --device cpu --seed 1"
    for command in (
        f"--task ti2v-5B --ckpt_dir tiny:wan22-5b {WAN} --t5_cpu --prompt cats --save_file a.mp4 "
        f"{small.replace('48', '64')}",
        f"--model HYVideo-T/2 --i2v-mode --model-base tiny --i2v-image-path {ROBOT} --flow-reverse "
        f"--flow-shift 17.0 --save-path . --prompt cats {small}",
        f"--model_id tiny:skyreels-v2-t2v --outdir x --offload False --prompt cats {small}",
    ):
        finished = cli(*shlex.split(command))
        assert finished.code == 0, finished.err
        assert finished.paths[0].is_file()


@pytest.mark.parametrize(
    ("command", "size"),
    [
        (
            f"{HYV} --i2v-stability --flow-shift 7.0 --ulysses-degree 8 --ring-degree 1 --xdit-adaptive-size",
            8,
        ),
        ("--task t2v-A14B --size 1280*720 --dit_fsdp --t5_fsdp --ulysses_size 8 --prompt cats", 8),
        (f"--model_id Skywork/SkyReels-V2-DF-1.3B-540P --use_usp --seed 42 {V2}", 2),
    ],
)
def test_published_commands_for_several_gpus(cli, command, size, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    ranks = distributed.Ranks(size=size, local_size=size, launched=True)
    monkeypatch.setattr(distributed, "get_ranks", lambda: ranks)
    plan, _ = planned(cli, command)
    assert plan["ranks"]["ulysses"] == size


def test_every_row_says_what_becomes_of_its_flag():
    for name, row in ROWS.items():
        assert name == row.flag
        assert row.becomes is not None or row.no_effect or row.instead or row.needs
        assert not row.needs or row.needs in ROWS
        assert row.source.count("/") == 1
    for name in set(ROWS) & set(FLAG_NAMES):
        assert ROWS[name].becomes is not None


@pytest.mark.parametrize(
    "flag", sorted(name for name, row in ROWS.items() if row.no_effect and not row.needs)
)
def test_a_flag_without_effect_is_said_in_one_line(flag):
    row = ROWS[flag]
    values = [row.only[0] if row.only else "1"] * row.values
    words, notes = translate([f"--{flag.replace('_', '-')}", *values, "--prompt", "a"])
    assert words == ["--prompt", "a"]
    (note,) = notes
    assert note.startswith(f"--{flag} has no effect here: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--task s2v-14B", "--task_type s2v-14B: is not supported; talking_avatar"),
        ("--task animate-14B", "--task_type animate-14B: is not supported; reference_to_video"),
        ("--task t2v-14B", "--task_type t2v-14B: is not supported; that is Wan2.1; t2v-A14B is Wan2.2's"),
        ("--task flf2v-14B", "--task_type flf2v-14B: is not supported; that is Wan2.1; i2v-A14B"),
        (
            "--pose_video a.mp4",
            "--pose_video a.mp4: of Wan-Video/Wan2.2, cannot be done here; it is for animate-14B and",
        ),
        (
            "--model HYVideo-S/2",
            "--model HYVideo-S/2: is no network of the image-to-video weights",
        ),
        (
            "--i2v-dit-weight x/y.pt",
            "is not in hunyuan-video-i2v-720p/transformers/; give the model's folder",
        ),
        ("--batch-size 4", "--batch_size 4: of Tencent-Hunyuan/HunyuanVideo-I2V, .*--seed 1,2"),
        ("--use_prompt_extend --prompt_extend_method cloud", "--prompt_extend_method cloud: .*leave it out"),
        ("--ulysses_size 8", "--ulysses_size 8: is for several GPUs.*torchrun --nproc_per_node=8"),
        ("--outdir", "--outdir: needs a value"),
        ("--offload maybe", "maybe: not a flag"),
        ("--offload=maybe", "--offload maybe: is a switch; give it alone, or with True or False"),
        ("--model_id Skywork/SkyReels-V2-I2V-14B-540P", "--input_image: none given; image_to_video takes 1"),
        ("--model_id Wan-AI/Wan2.2-T2V-A41B", "known and like it: Wan-AI/Wan2.2-T2V-A14B"),
        (
            "--model_id Skywork/SkyReels-V3-V2V-14B --input_video x.mp4",
            "--task_type: none given, and .* is for single_shot_extension and shot_switching_extension",
        ),
    ],
)
def test_what_cannot_be_done_says_what_to_do(cli, words, message):
    finished = cli(*shlex.split(words), "--prompt", "a")
    assert finished.code == 2
    assert re.search(message, finished.complaint), finished.complaint


@pytest.mark.parametrize(
    ("words", "model"),
    [
        ("--task t2v-A14B --size 1280*720", "tiny:wan22-a14b"),
        (f"--task i2v-A14B --size 1280*720 --image {HILLS}", "tiny:wan22-a14b"),
        ("--task ti2v-5B --size 1280*704", "tiny:wan22-5b"),
        (f"--task ti2v-5B --size 1280*704 --image {HILLS}", "tiny:wan22-5b"),
        ("--task t2v-A14B --size 1280*720", "tiny:skyreels-v2-t2v"),
    ],
)
def test_a_published_task_has_the_tiny_model_of_its_family(cli, words, model):
    asked = model if "skyreels" in model else "tiny"
    plan, _ = planned(cli, f"{words} --ckpt_dir {asked} --prompt cats")
    assert plan["request"]["model_id"] == model


def test_a_lora_of_three_flags_is_one_here():
    words, notes = translate(shlex.split("--use-lora --lora-path a.safetensors --lora-scale 0.5"))
    assert words == ["--lora=a.safetensors:0.5"]
    assert not notes
    with pytest.raises(InputError, match=r"--lora_path a\.safetensors: is not used without --use_lora; add"):
        translate(["--lora-path", "a.safetensors"])
    assert translate(["--lora-scale", "1.0"]) == ([], ["--lora_scale has no effect without --lora_path"])


def test_weights_are_found_by_their_published_place():
    weights = "ckpts/hunyuan-video-i2v-720p/transformers/mp_rank_00_model_states.pt"
    assert translate(["--i2v-dit-weight", weights])[0] == ["--model_id=./ckpts"]
    assert translate(["--i2v-dit-weight", weights, "--model-base", "mine"])[0] == ["--model_id=mine"]


def test_the_published_folder_is_used_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert translate(["--i2v-mode"])[0] == ["--task_type=hunyuan_image_to_video"]
    (tmp_path / "ckpts/hunyuan-video-i2v-720p").mkdir(parents=True)
    assert translate(["--i2v-mode"])[0] == ["--task_type=hunyuan_image_to_video", "--model_id=ckpts"]
    assert "--model_id=ckpts" not in translate(["--i2v-mode", "--model_id", "tiny"])[0]


def test_values_are_not_taken_for_flags():
    words = ["--prompt", "--t5_cpu, said the dog", "--negative_prompt", "-blur"]
    assert translate(words)[0] == words
    assert parse(["--offload", "False"])[0] == {"offload": False}
    assert parse(["--offload", "True", "-v", "--teacache"])[0] == dict.fromkeys(
        ("offload", "verbose", "teacache"), True
    )


def test_the_dynamic_command_says_that_stability_is_off(cli):
    _, said = planned(cli, COMMANDS["hunyuan, dynamic"][0])
    assert "warning: --shift 17 is published without stability, so it is off" in said
    for flag, stable in (("--i2v-stability", True), ("--no_i2v_stability", False)):
        plan, said = planned(cli, COMMANDS["hunyuan, dynamic"][0], flag)
        assert plan["request"]["i2v_stability"] is stable
        assert "is published without" not in said


def test_tasks_of_scripts_have_a_name_here(cli):
    assert "--overlap_history" in cli("--task", "generate_video_df.py", "--help").out
    assert "--boundary" in cli("--task", "t2v-A14B", "--help").out
    assert set(published.UNSUPPORTED_TASKS) & set(published.TASK_NAMES) == set()
