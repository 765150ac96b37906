"""Wan2.2 models under the tasks' names, and what v2v adds."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.cli.test_tasks import decoded
from tests.conftest import GOLDEN, REFS, ROOT

WAN22 = GOLDEN / "wan22"
I2V, B5 = WAN22 / "checkpoint-i2v-a14b", WAN22 / "checkpoint-ti2v-5b"
VLM = WAN22 / "checkpoint-internvl-hf"
ROBOT = REFS / "robot.png"
SHORT = ("--num_frames", 5, "--num_inference_steps", 2, "--device", "cpu")


def plan(cli, task, *words):
    finished = cli("--task_type", task, "--prompt", "x", "--dry_run", "--json", *words)
    assert finished.code == 0, finished.err
    return json.loads(finished.out)


@pytest.mark.parametrize(
    ("task", "name", "frames", "rate", "channels"),
    [
        ("text_to_video", "wan22-a14b", 17, 16, 16),
        ("text_to_video", "wan22-5b", 17, 24, 48),
        ("image_to_video", "wan22-a14b", 17, 16, 16),
        ("image_to_video", "wan22-5b", 17, 24, 48),
    ],
)
def test_the_model_decides_the_family(cli, tmp_path, task, name, frames, rate, channels):
    words = ("--input_image", ROBOT) if task == "image_to_video" else ()
    model = ("--model_id", f"tiny:{name}", "--num_inference_steps", 4)
    made = plan(cli, task, *model, *words)
    assert (made["num_frames"], made["fps"], made["latent_shape"][1]) == (frames, rate, channels)
    output = tmp_path / "a.mp4"
    finished = cli("--task_type", task, "--prompt", "x", *model, *words, "--output", output)
    assert finished.code == 0, finished.err
    video, fps = decoded(output)
    assert (len(video), fps) == (frames, rate)
    assert video.std() > 5


def test_published_defaults(cli):
    text = plan(cli, "text_to_video", "--model_id", "Wan-AI/Wan2.2-T2V-A14B")
    assert (text["width"], text["height"], text["num_frames"], text["forwards"]) == (1280, 720, 81, 80)
    image = plan(cli, "image_to_video", "--model_id", "Wan-AI/Wan2.2-TI2V-5B", "--input_image", ROBOT)
    assert (image["width"], image["height"], image["num_frames"], image["fps"]) == (1248, 704, 121, 24)
    assert image["latent_shape"] == [1, 48, 31, 44, 78]
    assert image["tokens"] == 31 * 22 * 39
    area = ("--model_id", "Wan-AI/Wan2.2-I2V-A14B", "--input_image", ROBOT, "--size", "832*480")
    assert plan(cli, "image_to_video", *area)["width"] == 832
    upright = plan(cli, "text_to_video", "--model_id", "Wan-AI/Wan2.2-TI2V-5B", "--size", "704*1280")
    assert (upright["width"], upright["height"]) == (704, 1280)


BAD = {
    "boundary": (
        ("text_to_video", "--boundary", 0.5),
        2,
        "not used by text_to_video with SkyReels-V2 models",
    ),
    "teacache": (
        ("text_to_video", "--model_id", "tiny:wan22-a14b", "--teacache"),
        *(2, "--teacache: not used by text_to_video with Wan2.2 A14B models"),
    ),
    "two scales": (
        ("text_to_video", "--model_id", "tiny:wan22-5b", "--guidance_scale", "3,4"),
        *(2, "--guidance_scale 3,4: two scales are for models with two experts; nearest 4"),
    ),
    "three scales": (
        ("text_to_video", "--guidance_scale", "3,4,5"),
        *(2, "--guidance_scale 3,4,5: must be one number, or LOW,HIGH; nearest 3,4"),
    ),
    "an expert of one": (
        ("text_to_video", "--model_id", "tiny:wan22-5b", "--lora", "LORA:1:low"),
        *(2, "':low' is for models with two experts"),
    ),
    "size": (
        ("text_to_video", "--model_id", "Wan-AI/Wan2.2-T2V-A14B", "--size", "1000*1000"),
        *(2, "--size 1000.1000: must be one of 832.480, 1280.720, 480.832, 720.1280 .*nearest 1280.720"),
    ),
    "unit of the 5B": (
        ("text_to_video", "--model_id", "tiny:wan22-5b", "--height", 48, "--width", 64),
        *(2, "--height 48: must be a multiple of 32; nearest"),
    ),
    "frames": (("v2v-5B", "--model_id", "tiny", "--num_frames", 80), 2, "must be 4k.1; nearest 77 or 81"),
    "nothing new": (
        ("v2v-5B", "--model_id", "tiny", "--num_frames", 1),
        2,
        "is the input image alone; at least 5",
    ),
    "a 5B folder for 14B": (("v2v-14B", "--model_id", B5), 3, "Wan2.2 5B folder; it is for .*v2v-5B"),
    "a 14B folder for 5B": (("v2v-5B", "--model_id", I2V), 3, "Wan2.2 A14B folder; it is for .*v2v-14B"),
    "an image model for text": (
        ("text_to_video", "--model_id", I2V),
        2,
        "36 input channels.*Wan2.2-T2V-A14B",
    ),
    "no such tiny": (("text_to_video", "--model_id", "tiny:wan22"), 3, "tiny models .*nearest tiny:wan22-"),
    "vlm by the id of its original format": (
        ("v2v-14B", "--model_id", "tiny", "--vlm_path", "OpenGVLab/InternVL3_5-8B"),
        *(3, "original format.*OpenGVLab/InternVL3_5-8B-HF"),
    ),
    "not a lora": (
        ("v2v-14B", "--model_id", "tiny", "--lora", f"{ROOT / 'README.md'}:1"),
        *(2, "--lora .*README.md: is no LoRA file"),
    ),
    "vlm in its original format": (
        ("v2v-14B", "--model_id", "tiny", "--vlm_path", "ORIGINAL"),
        *(3, "original format .internvl_chat.*OpenGVLab/InternVL3_5-8B-HF"),
    ),
    "last frame": (
        ("v2v-14B", "--model_id", "tiny", "--save_last_frame", "x.jpg"),
        *(2, "--save_last_frame x.jpg: must end in .png; try x.png"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(cli, tmp_path, make_video, name):
    (task, *words), code, message = BAD[name]
    save_file(
        {"x": load_file(VLM / "model.safetensors")["language_model.lm_head.weight"]},
        tmp_path / "l.safetensors",
    )
    (tmp_path / "original").mkdir()
    (tmp_path / "original/config.json").write_text('{"model_type": "internvl_chat"}')
    places = {"LORA:1:low": f"{tmp_path / 'l.safetensors'}:1:low", "ORIGINAL": tmp_path / "original"}
    words = [places.get(word, word) for word in words]
    words += ["--input_video", make_video()] if task.startswith("v2v") else []
    words += [] if "--vlm_path" in words else ["--prompt", "x"]
    finished = cli("--task_type", task, *words, "--output", tmp_path / "x.mp4", "--device", "cpu")
    assert finished.code == code, finished.err
    assert re.search(message, finished.complaint), finished.complaint


def test_a_missing_expert(cli, tmp_path):
    folder = shutil.copytree(I2V, tmp_path / "model")
    shutil.rmtree(folder / "low_noise_model")
    finished = cli(
        "--task_type", "image_to_video", "--model_id", folder, "--prompt", "x", "--input_image", ROBOT
    )
    assert finished.code == 3
    assert "incomplete Wan2.2 A14B folder; missing low_noise_model/" in finished.complaint


@pytest.mark.parametrize("mode", [("--offload",), ("--low_vram",), ("--vae_tiling", "on")])
@pytest.mark.parametrize("name", ["wan22-a14b", "wan22-5b"])
def test_every_memory_mode(cli, tmp_path, name, mode):
    words = (
        "--task_type",
        "image_to_video",
        "--model_id",
        f"tiny:{name}",
        "--input_image",
        ROBOT,
        "--prompt",
        "x",
    )
    finished = cli(*words, *SHORT, *mode, "--output", tmp_path / "a.mp4")
    assert finished.code == 0, finished.err


@pytest.mark.slow
def test_a_lora_for_each_expert(cli, tmp_path):
    """At the last steps the low-noise expert works alone, at the first the other."""
    layer = "transformer.blocks.0.attn1.to_q"
    lora = {
        f"{layer}.lora_A.weight": np.ones((2, 48), np.float32),
        f"{layer}.lora_B.weight": np.ones((48, 2), np.float32),
    }
    import torch

    save_file({name: torch.from_numpy(value) for name, value in lora.items()}, tmp_path / "l.safetensors")

    def latents(name, *more):
        words = (
            "--task_type",
            "text_to_video",
            "--model_id",
            "tiny:wan22-a14b",
            "--prompt",
            "x",
            "--seed",
            1,
        )
        made = ("--output", tmp_path / f"{name}.npy", "--save_latents", tmp_path / f"{name}.safetensors")
        finished = cli(*words, "--num_frames", 5, "--num_inference_steps", 4, "--device", "cpu", *made, *more)
        assert finished.code == 0, finished.err
        return load_file(tmp_path / f"{name}.safetensors")["latents"]

    results = [latents("plain")]
    for number, suffix in enumerate((":0.5", ":0.5:high", ":0.5:low")):
        results.append(latents(f"l{number}", "--lora", f"{tmp_path / 'l.safetensors'}{suffix}"))
    for one in range(4):
        for other in range(one):
            assert not torch.equal(results[one], results[other]), (one, other)


def test_only_the_expert_of_the_noise_level_works(monkeypatch):
    import torch

    import videogen
    from videogen.pipelines.wan22_a14b import Wan22A14BPipeline

    pipeline = videogen.load("text_to_video", "tiny:wan22-a14b", dtype="float32", device="cpu")
    used = []
    velocity = Wan22A14BPipeline.velocity

    def noted(self, *args, model, **kwargs):
        used.append("high" if model is self.transformer else "low")
        return velocity(self, *args, model=model, **kwargs)

    monkeypatch.setattr(Wan22A14BPipeline, "velocity", noted)
    generator = torch.Generator().manual_seed(1)
    pipeline("x", num_frames=5, num_inference_steps=40, generator=generator, output_type="latent")
    assert used == ["high"] * 52 + ["low"] * 28  # 26 steps of 40 at shift 12: spec wan22 section 5


@pytest.mark.slow
def test_a_video_is_described(cli, tmp_path, make_video):
    words = ("--task_type", "v2v-14B", "--model_id", "tiny", "--input_video", make_video(), *SHORT)
    more = ("--vlm_path", VLM, "--vlm_device", "cpu", "--custom_prompt", "continue video")
    finished = cli(*words, *more, "--output", tmp_path / "a.npy", "--seed", 1)
    assert finished.code == 0, finished.err
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["prompts"]["models"] == {"describer": VLM.name}
    assert record["request"]["prompt"] == f"continue video, {record['prompts']['description']}"
    literal = cli(*words, "--prompt", "x", "--vlm_path", VLM, "--dry_run")
    assert "--vlm_path has no effect with a --prompt" in literal.err
    said = cli("--caption_only", "--task_type", "v2v-14B", "--input_video", make_video(), "--vlm_path", VLM)
    assert json.loads(said.out)["description"] == record["prompts"]["description"]


def test_the_last_frame_is_what_goes_on(cli, tmp_path, make_video):
    """From the video itself, or from a lossless copy of its last frame."""
    words = ("--task_type", "v2v-5B", "--model_id", "tiny", "--prompt", "x", "--seed", 1, *SHORT)
    first = cli(
        *words,
        "--input_video",
        make_video(),
        "--output",
        tmp_path / "a.npy",
        "--save_last_frame",
        tmp_path / "a.png",
    )
    assert first.code == 0, first.err
    frames = np.load(tmp_path / "a.npy")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), frames[-1])
    for name, more in (("b", ()), ("c", ("--input_image", tmp_path / "a.png")), ("d", ("--color_match",))):
        finished = cli(*words, "--input_video", make_video(), *more, "--output", tmp_path / f"{name}.npy")
        assert finished.code == 0, finished.err
    b, c, d = (np.load(tmp_path / f"{name}.npy") for name in "bcd")
    assert not np.array_equal(b, c)
    assert not np.array_equal(b, d)


def test_half_of_a_pair_of_experts_is_no_other_family(cli, tmp_path):
    import videogen

    pipeline = videogen.load("text_to_video", "tiny:wan22-a14b")
    pipeline.save_pretrained(tmp_path / "model")
    words = ("--task_type", "text_to_video", "--model_id", tmp_path / "model", "--prompt", "x", "--dry_run")
    assert cli(*words).code == 0
    shutil.rmtree(tmp_path / "model/transformer_2")
    finished = cli(*words)
    assert finished.code == 3
    assert "missing transformer_2/" in finished.complaint


def test_python_callers_get_their_family(tmp_path):
    from videogen.errors import InputError
    from videogen.pipelines.wan22_5b import Wan22TI2V5BPipeline

    pipeline = Wan22TI2V5BPipeline.from_pretrained("tiny:wan22-5b")
    assert isinstance(pipeline, Wan22TI2V5BPipeline)
    with pytest.raises(InputError, match="is a model for TextToVideoPipeline, not for Wan22TI2V5BPipeline"):
        Wan22TI2V5BPipeline.from_pretrained("tiny")
    with pytest.raises(InputError, match="two scales are for models with two experts"):
        pipeline("x", input_image=Image.open(ROBOT), guidance_scale=(3, 4), num_frames=5)


def test_an_end_image_is_for_the_experts_that_know_it(cli, tmp_path):
    words = ("--prompt", "x", "--input_image", ROBOT, "--end_image", REFS / "hills.png", *SHORT)

    def frames(name, *more):
        output = tmp_path / f"{name}.npy"
        finished = cli("--task_type", "image_to_video", "--output", output, "--seed", 1, *more)
        assert finished.code == 0, finished.err
        return np.load(output)

    a14b = ("--model_id", "tiny:wan22-a14b")
    assert not np.array_equal(frames("end", *a14b, *words), frames("open", *a14b, *words[:4], *SHORT))
    for task, model, users in (
        ("image_to_video", "tiny:wan22-5b", "used by image_to_video with Wan2.2 A14B models"),
        ("image_to_video", "tiny", "used by image_to_video with Wan2.2 A14B models, diffusion_forcing"),
        ("v2v-14B", "tiny", "used by image_to_video, diffusion_forcing"),
    ):
        finished = cli("--task_type", task, "--model_id", model, *words, "--dry_run")
        assert finished.code == 2
        assert users in finished.complaint
