"""SkyReels-V2's options: segments, prompts per segment, resuming, step caches."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.conftest import GOLDEN, REFS, ROOT
from tests.processes import kill_when

V2 = GOLDEN / "skyreels_v2"
DF, I2V = V2 / "checkpoint-SkyReels-V2-DF-1.3B-540P", V2 / "checkpoint-SkyReels-V2-I2V-14B-540P"
T2V = V2 / "checkpoint-SkyReels-V2-T2V-14B-540P"
ROBOT = REFS / "robot.png"
LONG = ("--num_frames", 29, "--base_num_frames", 17, "--overlap_history", 5)  # segments of 17 and 12 frames


BAD = {
    "too long": (
        ("--num_frames", 101),
        "--num_frames 101: more than --base_num_frames 97.*nearest --num_frames 97",
    ),
    "no 4k+1": (("--num_frames", 10), "--num_frames 10: must be 4k\\+1; nearest 9 or 13"),
    "base": (("--base_num_frames", 18), "--base_num_frames 18: must be 4k\\+1; nearest 17 or 21"),
    "overlap": (("--overlap_history", 6), "--overlap_history 6: must be 4k\\+1; nearest 5 or 9"),
    "overlap of all": (
        ("--overlap_history", 17, "--base_num_frames", 17),
        "--overlap_history 17: must be less than --base_num_frames 17; nearest 13",
    ),
    "blocks that do not divide": (
        ("--ar_step", 1, "--causal_block_size", 4, "--num_frames", 21),
        "--causal_block_size 4: does not divide the segments of 6 latent.*1, 2, 3, 6; nearest 3",
    ),
    "blocks of a short last segment": (
        ("--ar_step", 1, "--causal_block_size", 5, "--num_frames", 29, "--base_num_frames", 17)
        + ("--overlap_history", 9),
        "--causal_block_size 5: does not divide the segments of 4 and 5 latent.*sizes that do: 1;",
    ),
    "overlap of less than a block": (
        ("--causal_block_size", 3, "--num_frames", 37, "--base_num_frames", 21, "--overlap_history", 5),
        "--overlap_history 5: holds no whole block of 3 latent frames; at least 9",
    ),
    "end without start": (
        ("--end_image", ROBOT),
        "--end_image robot.png: needs a start image; add --input_image",
    ),
    "end unseen": (
        ("--input_image", ROBOT, "--end_image", ROBOT, "--causal_attention"),
        "--end_image robot.png: no frame would see it",
    ),
    "nothing to make": (
        ("--input_image", ROBOT, "--num_frames", 1),
        "--num_frames 1: is the input image alone",
    ),
    "no video": (("--input_video", "nowhere.mp4"), "--input_video nowhere.mp4: no such file"),
    "not a video": (("--input_video", ROOT / "README.md"), "--input_video .*README.md: is not a"),
    "video without overlap": (
        ("--input_video", "VIDEO"),
        "needs --overlap_history; add --overlap_history 17",
    ),
    "video too short": (
        ("--input_video", "VIDEO", "--overlap_history", 37),
        "has 30 frames, fewer than --overlap_history 37; use --overlap_history 29",
    ),
    "only the overlap": (
        ("--input_video", "VIDEO", "--overlap_history", 17, "--num_frames", 17),
        "--num_frames 17: counts the overlap of 17 and leaves no new frame; at least 21",
    ),
    "video and image": (
        ("--input_video", "VIDEO", "--overlap_history", 17, "--input_image", ROBOT),
        "--input_image: not together with --input_video",
    ),
    "new frames of nothing": (("--new_frames_only",), "--new_frames_only: needs --input_video"),
    "teacache of an unknown model": (("--teacache",), "--teacache_model: needed with tiny.*T2V-14B"),
    "teacache word": (
        ("--teacache", "--teacache_model", "T2V-15B"),
        "--teacache_model T2V-15B: must be one of.*nearest T2V-1",
    ),
    "caption of nothing": (("--captioner",), "--captioner: needs --input_video"),
    "vlm device": (("--vlm_device", "gpu"), "--vlm_device gpu: must be auto"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(cli, forcing, make_video, tmp_path, name):
    words, message = BAD[name]
    words = [make_video() if word == "VIDEO" else word for word in words]
    finished = cli(*forcing(*words, "--output", tmp_path / "x.mp4", "--dry_run"))
    assert finished.code == 2
    assert re.search(message, finished.complaint), finished.complaint


@pytest.mark.parametrize(
    ("task", "more", "model", "message"),
    [
        (
            "image_to_video",
            ("--input_image", ROBOT),
            T2V,
            r"\(model_type t2v, 16 .*use Skywork/SkyReels-V2-I2V",
        ),
        ("text_to_video", (), I2V, r"\(model_type i2v, 36 input channels\).*use Skywork/SkyReels-V2-T2V"),
        ("diffusion_forcing", (), I2V, ".*36 input channels.*use Skywork/SkyReels-V2-DF"),
    ],
)
def test_a_model_for_another_task(cli, task, more, model, message):
    finished = cli("--task_type", task, "--model_id", model, "--prompt", "x", *more)
    assert finished.code == 2
    assert re.search(f"--model_id .*: is a model for another task {message}", finished.complaint)


def test_defaults_follow_the_model(cli):
    def plan(task, model, *more):
        finished = cli(
            "--task_type", task, "--model_id", model, "--prompt", "x", "--dry_run", "--json", *more
        )
        assert finished.code == 0, finished.err
        return json.loads(finished.out)

    for model, size in (("T2V-14B-540P", (544, 960)), ("T2V-14B-720P", (720, 1280))):
        made = plan("text_to_video", f"Skywork/SkyReels-V2-{model}")
        assert (made["height"], made["width"], made["num_frames"], made["fps"]) == (*size, 97, 24)
    upright = plan(
        "image_to_video", "Skywork/SkyReels-V2-I2V-1.3B-540P", "--input_image", REFS / "balloon.png"
    )
    assert (upright["height"], upright["width"]) == (960, 544)
    other = ("--task_type", "text_to_video", "--model_id", "Skywork/SkyReels-V2-DF-14B-720P", "--prompt", "x")
    finished = cli(*other, "--dry_run")
    assert finished.code == 2
    use = "is published for diffusion_forcing; text_to_video uses Skywork/SkyReels-V2-T2V-14B-720P"
    assert use in finished.complaint


def test_a_portrait_video_is_continued_upright(cli, forcing, make_video):
    """Published: both sides become the short one."""
    source = make_video("upright.mp4", size=(96, 160))
    words = (
        "--model_id",
        "Skywork/SkyReels-V2-DF-1.3B-540P",
        "--input_video",
        source,
        "--overlap_history",
        17,
    )
    finished = cli("--task_type", "diffusion_forcing", *words, "--prompt", "x", "--dry_run", "--json")
    plan = json.loads(finished.out)
    assert (plan["height"], plan["width"]) == (960, 544)
    assert plan["file"]["prepended"] == 30


def test_the_plan_counts_forwards(cli, forcing):
    words = ("--ar_step", 5, "--causal_block_size", 5, "--num_frames", 257, "--overlap_history", 17)
    plan = json.loads(cli(*forcing(*words, "--num_inference_steps", 30, "--dry_run", "--json")).out)
    assert [roll["num_frames"] for roll in plan["rolls"]] == [97, 80, 80]
    assert plan["forwards"] == 2 * (30 + 4 * 5 + 2 * (30 + 3 * 5))


def test_a_prompt_for_every_segment(cli, forcing, tmp_path):
    (tmp_path / "prompts.txt").write_text("a square moves\na circle stands\n", encoding="utf-8")
    common = (
        *LONG,
        "--output",
        tmp_path / "a.npy",
        "--save_latents",
        tmp_path / "a.safetensors",
        "--overwrite",
    )
    assert cli(*forcing("--roll_prompts", tmp_path / "prompts.txt", *common)).code == 0
    travel = load_file(tmp_path / "a.safetensors")
    assert cli(*forcing(*common)).code == 0
    plain = load_file(tmp_path / "a.safetensors")
    assert len(np.load(tmp_path / "a.npy")) == 29
    assert travel["latents_0"].equal(plain["latents_0"])
    assert not travel["latents_1"].equal(plain["latents_1"])


KILLED = {
    "a video, noise on known frames": (("--input_video", "VIDEO", "--addnoise_condition", 20), 4),
    "an image, blocks, a step cache": (
        ("--input_image", ROBOT, "--ar_step", 1, "--num_inference_steps", 6)
        + ("--teacache", "--teacache_model", "T2V-1.3B", "--teacache_thresh", 5),
        4,
    ),
}


@pytest.mark.parametrize("name", KILLED)
@pytest.mark.slow
def test_a_killed_video_goes_on_after_its_last_segment(cli, forcing, make_video, tmp_path, name):
    more, segments = KILLED[name]
    more = [make_video() if word == "VIDEO" else word for word in more]

    def words(name):
        made = ("--output", tmp_path / f"{name}.npy", "--save_latents", tmp_path / f"{name}.safetensors")
        return forcing("--overlap_history", 5, "--base_num_frames", 17, "--num_frames", 53, *more, *made)

    assert cli(*words("whole")).code == 0
    state = tmp_path / "a.parts/state.json"
    kill_when(state.exists, *words("a"))
    finished = json.loads(state.read_text())["finished"]
    assert 1 <= finished < segments
    resumed = cli(*words("a"), "--resume")
    assert resumed.code == 0, resumed.err
    assert f"continuing after {finished} finished segments" in resumed.err
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "whole.npy"))
    ours, theirs = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "whole.safetensors")
    assert list(ours) == [f"latents_{index}" for index in range(segments)]
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert not (tmp_path / "a.parts").exists()


def test_metadata_repeats_a_video(cli, forcing, tmp_path, monkeypatch):
    shutil.copy(ROBOT, tmp_path / "robot.png")
    monkeypatch.chdir(tmp_path)
    assert cli(*forcing("--input_image", "robot.png", "--output", "a.npy")).code == 0
    again = cli("--from_metadata", "a.json", "--output", "b.npy", "--device", "cpu")
    assert again.code == 0, again.err
    assert np.array_equal(np.load("a.npy"), np.load("b.npy"))


@pytest.mark.slow
def test_the_image_and_the_frame_rate_matter(cli, forcing, tmp_path):
    def latents(name, *more, task="diffusion_forcing"):
        made = ("--output", tmp_path / f"{name}.npy", "--save_latents", tmp_path / f"{name}.safetensors")
        assert cli(*forcing(*more, *made, task=task)).code == 0
        return load_file(tmp_path / f"{name}.safetensors")["latents"]

    plain, other = latents("plain"), latents("other", "--input_image", ROBOT)
    assert not plain.equal(other)
    assert not other.equal(latents("end", "--input_image", ROBOT, "--end_image", REFS / "hills.png"))
    assert plain.equal(latents("fps30", "--fps", 30))
    assert not plain.equal(latents("fps16", "--fps", 16))
    image = latents("i2v", "--input_image", ROBOT, task="image_to_video")
    assert not image.equal(latents("i2v2", "--input_image", REFS / "hills.png", task="image_to_video"))


@pytest.mark.parametrize("mode", ["--offload", "--low_vram", "--vae_tiling=on"])
def test_every_memory_mode(cli, forcing, tmp_path, mode):
    words = ("--input_image", ROBOT, mode, "--output", tmp_path / "a.mp4")
    finished = cli(*forcing(*words, task="image_to_video"))
    assert finished.code == 0, finished.err


def test_teacache_is_recorded_and_comes_off(cli, forcing, tmp_path):
    """Jobs of one run share the model; each has its own cache, or none."""
    jobs = tmp_path / "jobs.jsonl"
    cached = {"prompt": "a", "teacache": True, "teacache_model": "T2V-1.3B", "num_inference_steps": 8}
    lines = [cached, {**cached, "teacache_fixed": True, "teacache_thresh": 1e9}, {"prompt": "a"}, cached]
    jobs.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    words = [word for word in forcing() if word not in ("--prompt", "a square moves")]
    finished = cli(*words, "--jobs", jobs, "--output_dir", tmp_path / "out")
    assert finished.code == 0, finished.err
    first, fixed, none, again = (json.loads(path.with_suffix(".json").read_text()) for path in finished.paths)
    assert first["teacache"]["computed"] + first["teacache"]["skipped"] == 16
    assert fixed["teacache"] == {"computed": 4, "skipped": 12}  # the first and the last step of both branches
    assert "teacache" not in none
    assert again["teacache"] == first["teacache"]
    assert first["request"]["teacache_model"] == "T2V-1.3B"


def test_teacache_is_part_of_the_plan(cli, tmp_path):
    """The table counts, not the way it was chosen; and no private path is recorded."""
    words = (
        "--task_type",
        "diffusion_forcing",
        "--prompt",
        "x",
        "--seed",
        1,
        "--dry_run",
        "--json",
        "--model_id",
        DF,
    )
    plans = [
        json.loads(cli(*words, *more).out)["plan_hash"]
        for more in (
            ("--teacache",),
            ("--teacache", "--teacache_model", "/home/me/SkyReels-V2-DF-1.3B-540P"),
            ("--teacache", "--teacache_model", "T2V-14B"),
            (),
        )
    ]
    assert plans[0] == plans[1]
    assert len(set(plans)) == 3


def test_teacache_by_the_folder_asked_for(cli, tmp_path):
    """A name decides before the width; a link's own name counts."""
    (tmp_path / "renamed").symlink_to(DF)
    words = ("--task_type", "diffusion_forcing", "--prompt", "x", "--teacache", "--dry_run", "--model_id")
    assert cli(*words, DF).code == 0
    complaint = cli(*words, tmp_path / "renamed").complaint
    assert "needed with renamed (width 64)" in complaint
    assert cli(*words, tmp_path / "renamed", "--teacache_model", "SkyReels-V2-T2V-14B-540P").code == 0


def test_clip_under_the_names_of_transformers(tmp_path):
    """diffusers folders hold it as 'vision_model....' or, written by transformers 5, without."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel

    from videogen.models.components import load_component

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=28, patch_size=14, hidden_act="gelu"))
    model.save_pretrained(tmp_path / "new")
    tensors = load_file(tmp_path / "new/model.safetensors")
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    bare = {name.removeprefix("vision_model."): tensor for name, tensor in tensors.items()}
    save_file(
        {f"vision_model.{name}": tensor for name, tensor in bare.items()}, tmp_path / "old/model.safetensors"
    )
    save_file(bare, tmp_path / "new/model.safetensors")
    pixels = torch.randn(1, 3, 28, 28)
    for name in ("old", "new"):
        loaded = load_component("image_encoder", tmp_path / name)
        assert torch.equal(loaded(pixels).last_hidden_state, model(pixels).last_hidden_state)


def test_images_are_cropped_not_stretched(cli, forcing, tmp_path):
    """The middle of a wide image, whatever its edges hold."""
    middle = Image.open(ROBOT).convert("RGB").resize((48, 32))
    frames = []
    for name, edge in (("black", (0, 0, 0)), ("red", (255, 0, 0))):
        wide = Image.new("RGB", (80, 32), edge)
        wide.paste(middle, (16, 0))
        wide.save(tmp_path / f"{name}.png")
        words = ("--input_image", tmp_path / f"{name}.png", "--output", tmp_path / f"{name}.npy")
        assert cli(*forcing(*words)).code == 0
        frames.append(np.load(tmp_path / f"{name}.npy"))
    assert np.array_equal(*frames)
