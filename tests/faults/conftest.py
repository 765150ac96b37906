"""Commands for the faults."""

import json

import pytest

from tests.conftest import REFS
from tests.faults.commands import Command
from videogen.cli import chain, main

SMALL = ("--model_id", "tiny", "--device", "cpu", "--height", 32, "--width", 48)
SMALL += ("--num_inference_steps", 1, "--seed", 1)


@pytest.fixture
def said(tmp_path):
    return tmp_path / "said"


@pytest.fixture
def reference(r2v):
    return (*r2v[: r2v.index("--num_inference_steps")], "--num_inference_steps", 1, "--device", "cpu")


def of_task(task, make_video, speech):
    inputs = {
        "single_shot_extension": ("--input_video", make_video(), "--duration", 6),
        "shot_switching_extension": ("--input_video", make_video(), "--duration", 2),
        "talking_avatar": (
            "--input_audio",
            speech,
            "--input_image",
            REFS / "balloon.png",
            "--num_frames",
            29,
        ),
        "diffusion_forcing": ("--num_frames", 17, "--base_num_frames", 9, "--overlap_history", 5),
    }[task]
    words = ("--task_type", task, *SMALL, "--prompt", "x", *inputs, "--save_latents", "OUT/a.safetensors")
    return main.main, (*words, "--output", "OUT/a.npy")


@pytest.fixture
def command(request, tmp_path, reference, make_video, speech):
    if request.param == "chain":
        words = (
            "--video",
            make_video(),
            "--ckpt_dir",
            "tiny",
            "--num_videos",
            3,
            "--base_seed",
            7,
            "--no_vlm",
        )
        words += ("--sample_steps", 1, "--frame_num", 5, "--device", "cpu", "--output_dir", "OUT")
        program = chain.main
    elif request.param == "jobs":
        jobs = tmp_path / "jobs.jsonl"
        jobs.write_text(
            "\n".join(json.dumps({"prompt": word, "seed": len(word)}) for word in ("a", "bb", "ccc"))
        )
        program, words = main.main, (*reference, "--jobs", jobs, "--output", "OUT/{index}.gif")
        at = words.index("--prompt")
        words = words[:at] + words[at + 2 :]
    else:
        program, words = of_task(request.param, make_video, speech)
    return Command(program, words, tmp_path / "whole")
