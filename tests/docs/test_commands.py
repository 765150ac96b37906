"""Every command and every Python example of README and manual runs.

As they stand, our commands are planned (``--dry_run``), which checks flags, models and inputs. Marked slow,
they make their videos with tiny models. Inputs that a page names (person.png, walk.mp4, ...) are stand-ins.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import GOLDEN, REFS, ROOT
from tests.docs import pages
from tests.review.results import write_result
from tests.tiny_chat import tiny_captioner, tiny_chat_model
from videogen import distributed
from videogen.cli import chain
from videogen.cli.main import main
from videogen.cli.parser import parse
from videogen.tasks.options import FLAG_NAMES

BASH = pages.blocks("bash")
PYTHON = [block for block in pages.blocks("python") if "openai" not in block.text]  # that is in tests/server
HUNYUAN = GOLDEN / "hunyuan/checkpoint-A"
DESCRIBER = GOLDEN / "wan22/checkpoint-internvl-hf"
LORA = {"high_4steps.safetensors", "low_4steps.safetensors"}
HAIR = "hunyuan-video-i2v-720p/lora/hair_growth_kohya_weights.safetensors"
# Layers with a LoRA of rank 4 that does nothing, in the tiny Wan2.2 A14B and in the golden HunyuanVideo.
WAN_LORA = {"blocks.0.attn1.to_q.lora_A.weight": (4, 48), "blocks.0.attn1.to_q.lora_B.weight": (48, 4)}
HUNYUAN_LORA = {
    "Hunyuan_video_I2V_lora_double_blocks_0_img_attn_proj.lora_down.weight": (4, 48),
    "Hunyuan_video_I2V_lora_double_blocks_0_img_attn_proj.lora_up.weight": (48, 4),
}
PICTURE = re.compile(r"docs/pictures/[\w.]+")  # of the manual
NAMED_INPUT = re.compile(r"(?<![\w/.])(\w+\.(png|jpg|mp4|wav))\b")
TINY = {"A14B": "tiny:wan22-a14b", "5B": "tiny:wan22-5b"}  # by the end of a Wan2.2 model's name
# What makes a video short. It is appended to a command: what is given twice counts last.
SHORT = {
    "reference_to_video": "--num_frames 5",
    "single_shot_extension": "--duration 1",
    "shot_switching_extension": "--duration 2",
    "diffusion_forcing": "--base_num_frames 17 --num_frames 17",
    "talking_avatar": "--max_frames_num 30",
}
SMALL = "--height 32 --width 32 --num_inference_steps 2 --device cpu".split()  # noqa: SIM905 - a command
REPLACED = ("--resolution", "--size")  # by a size in pixels
LOOKING_BACK = {"show", "diff", "sheet", "report"}
LEFT_OUT = ("--compile",)  # minutes; tests/simulated compiles every family


@pytest.fixture(scope="session")
def put_inputs(tmp_path_factory, make_video, speech):
    """Return a function that makes what a text names as inputs, in a folder."""
    store = tmp_path_factory.mktemp("stand_ins")
    save_file({name: torch.zeros(shape) for name, shape in WAN_LORA.items()}, store / "wan.safetensors")
    shutil.copytree(HUNYUAN, store / "ckpts")
    (store / "ckpts" / HAIR).parent.mkdir()
    save_file({name: torch.zeros(shape) for name, shape in HUNYUAN_LORA.items()}, store / "ckpts" / HAIR)
    kinds = {"png": REFS / "balloon.png", "jpg": REFS / "hills.png", "wav": speech}
    kinds["mp4"] = make_video("stand_in.mp4", frames=40, audio=True)

    def put(text, folder):
        links = {"ref_imgs": REFS, "ckpts": store / "ckpts"}
        links |= dict.fromkeys(LORA, store / "wan.safetensors")
        links |= {name: kinds[kind] for name, kind in NAMED_INPUT.findall(text)}
        links |= {name: ROOT / name for name in PICTURE.findall(text)}
        for name, target in links.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(target)

    return put


@pytest.fixture
def call_folder(tmp_path, monkeypatch, put_inputs, earlier_run):
    """Return a function that makes a new folder with the inputs of a call, and goes there."""

    def prepare(call, number):
        folder = tmp_path / f"call{number}"
        folder.mkdir()
        text = pages.copy_written(call, folder)
        given, _ = parse(call.arguments)
        monkeypatch.chdir(folder)
        if LOOKING_BACK & given.keys():
            put_results(call.arguments, folder)
            return
        outputs = {str(given.get("output"))} | {str(given.get("from_metadata"))}
        names = [word for word in call.arguments if word not in outputs]
        put_inputs("\n".join([*names, text]), folder)
        if "from_metadata" in given:
            for file in earlier_run().iterdir():
                shutil.copy(file, folder)

    return prepare


def put_results(words, folder):
    """Make the results that a command looks at: the videos that it names, and a folder ``sweep``."""
    named = [word for word in words if word.endswith(".mp4") and words[words.index(word) - 1] != "--output"]
    for seed, name in enumerate([*named, "sweep/a.mp4", "sweep/b.mp4"]):
        write_result(folder, name, request={"seed": seed})


@pytest.fixture(scope="session")
def earlier_run(tmp_path_factory):
    """Return a function that makes run.mp4 and run.json, once, and returns their folder."""

    @functools.cache
    def make():
        folder = tmp_path_factory.mktemp("earlier")
        shutil.copy(REFS / "robot.png", folder)
        files = ("--ref_imgs", str(folder / "robot.png"), "--output", str(folder / "run.mp4"))
        what = "--task_type reference_to_video --model_id tiny --prompt waves --num_frames 5"
        assert main([*what.split(), *files, *SMALL]) == 0
        return folder

    return make


@pytest.fixture
def ranks(monkeypatch):
    """Return a function that makes this process the first of several ranks."""

    def become(size):
        for name, value in {"RANK": 0, "WORLD_SIZE": size, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": size}.items():
            monkeypatch.setenv(name, str(value))
        distributed.get_ranks.cache_clear()

    yield become
    monkeypatch.undo()
    distributed.get_ranks.cache_clear()


def run(call, words):
    return (chain.main if call.script == "generate_continuous.py" else main)(words)


def test_the_pages_have_commands():
    assert len(BASH) >= 25
    assert len(PYTHON) >= 2


@pytest.mark.parametrize("block", BASH, ids=lambda block: block.name)
def test_every_command_is_planned(block, tmp_path, call_folder, ranks, capsys):
    found = pages.calls(block, tmp_path / "block")
    assert found, "a block that starts no program"
    for number, call in enumerate(found):
        if call.script is None:
            check_other_program(call)
            continue
        call_folder(call, number)
        if "--serve" in call.words:
            pytest.importorskip("gradio")
        if call.ranks > 1:
            ranks(call.ranks)
        here = ["cpu" if re.fullmatch(r"cuda:\d", word) else word for word in call.arguments]
        code = run(call, [*here, "--dry_run"])
        assert code == 0, f"{call.arguments}: {capsys.readouterr().err}"


def check_other_program(call):
    """Check that a program which is not ours has the script, module and flags that a page says."""
    if "benchmarks/first_hour.sh".endswith(call.program):
        assert (ROOT / "benchmarks/first_hour.sh").is_file()
    elif "-m" in call.words and call.words[call.words.index("-m") + 1].startswith("benchmarks."):
        module = call.words[call.words.index("-m") + 1]
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        for flag in (word for word in call.words if word.startswith("--")):  # our own are passed on
            assert f'"{flag}"' in source or flag.lstrip("-") in FLAG_NAMES, f"{module} has no {flag}"
    elif "-r" in call.words:
        assert (ROOT / call.words[call.words.index("-r") + 1]).is_file()
    for word in call.words:
        if word.startswith("deploy/"):
            assert (ROOT / word).is_file(), word


@pytest.fixture(scope="session")
def prompt_writers(tmp_path_factory):
    """Return tiny stand-ins for the models that write prompts, by option."""
    folder = tmp_path_factory.mktemp("writers")
    return {
        "prompt_enhancer": str(tiny_chat_model(folder / "chat")),
        "vlm_path": str(tiny_captioner(folder / "captioner")),
    }


def made_short(words, given):
    """Return a command's words with a tiny model and few small frames."""
    words = list(words)
    for flag in REPLACED:
        if flag in words:
            del words[words.index(flag) : words.index(flag) + 2]
    words = [word for word in words if word not in LEFT_OUT]
    task, model = given.get("task_type"), str(given.get("model_id", "tiny"))
    if "from_metadata" not in given and model != "ckpts":
        tiny = next((TINY[end] for end in TINY if "Wan2.2" in model and model.endswith(end)), "tiny")
        words += ["--model_id", model if model.startswith(("tiny", "miniature")) else tiny]
    if "config" not in given and "from_metadata" not in given:
        words += SHORT.get(task, "--num_frames 5").split()
    if task == "diffusion_forcing" and "overlap_history" in given:
        words += ["--overlap_history", "5", "--num_frames", "29"]
    if given.get("num_videos"):
        words += ["--num_videos", "2"]
    if "custom_prompt" in given and "no_vlm" not in given:
        words += ["--vlm_path", str(DESCRIBER)]
    return [*words, *SMALL]


def tiny_captions(words, prompt_writers):
    """Return the words of --caption_only with tiny models."""
    words = [word for word in words if word != "--prompt_enhancer"]
    return [*words, *(word for name, path in prompt_writers.items() for word in (f"--{name}", path))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", [block for block in BASH if "generate_" in block.text], ids=lambda block: block.name
)
def test_every_command_makes_its_video(block, tmp_path, call_folder, prompt_writers, capsys):
    for number, call in enumerate(pages.calls(block, tmp_path / "block")):
        if call.script is None or {"--dry_run", "--serve"} & {*call.words}:
            continue
        given, _ = parse(call.arguments)
        call_folder(call, number)
        if given.get("caption_only"):  # a random model writes no JSON, and that is what is said
            assert run(call, tiny_captions(call.arguments, prompt_writers)) == 1
            assert "the reply is not the JSON asked for" in capsys.readouterr().err
            continue
        if LOOKING_BACK & given.keys():
            assert run(call, call.arguments) == 0, capsys.readouterr().err
            continue
        words = made_short(call.arguments, given)
        if call.ranks > 1:
            with_torchrun(call, words)
            continue
        assert run(call, words) == 0, f"{words}: {capsys.readouterr().err}"
        paths = capsys.readouterr().out.splitlines()
        assert paths
        assert all(Path(path).stat().st_size for path in paths)


def with_torchrun(call, words):
    """Run a command on two ranks."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*torchrun, ROOT / call.script, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.split()[-1]).stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.name)
def test_every_python_example_runs(block, tmp_path, monkeypatch, put_inputs):
    put_inputs(block.text.replace("run.mp4", ""), tmp_path)
    monkeypatch.chdir(tmp_path)
    tiny = re.sub(r'model="[^"]*"', 'model="tiny"', block.text).replace('"cuda"', '"cpu"')
    tiny = tiny.replace("num_frames=121", "num_frames=5").replace("duration=5", "duration=1")
    exec(compile(tiny, block.name, "exec"), {})


@pytest.mark.slow
def test_the_loop_over_seeds_as_it_stands(tmp_path):
    """Run it in a folder where .venv/bin/python is this Python."""
    (block,) = (block for block in BASH if "for seed in" in block.text)
    launcher = tmp_path / ".venv/bin/python"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    launcher.chmod(0o755)
    for name in ("generate_video.py", "ref_imgs"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert "set -euo pipefail" in block.text
    done = subprocess.run(
        ["bash", "-c", block.text],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"made take_{seed}.mp4" for seed in (1, 2, 3)]
    assert json.loads((tmp_path / "take_3.json").read_text())["seed"] == 3
