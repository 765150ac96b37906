"""What --dry_run says, and where it says that numbers come from."""

import json
import re

import pytest

from tests.conftest import REFS

T2V = ("--task_type", "text_to_video", "--device", "cpu")
SMALL = ("--height", 32, "--width", 48, "--num_frames", 5)


def rows(text):
    return dict(line.split(maxsplit=1) for line in text.split("\n\n")[0].splitlines() if line[0] != " ")


def test_the_plan_of_a_published_model_tells_all(cli):
    words = ("--prompt", "a swan", "--shift", 5, "--seed", 3)
    said = rows(cli(*T2V, *words, "--dry_run").out)
    assert said["prompt"] == "a swan"
    assert said["model"].endswith("(SkyReels-V2, to be downloaded; task default)")
    assert re.match(r"69\.0 GB to download, [\d.]+ [GM]B free in .*; transformer 57\.2 GB, ", said["files"])
    assert said["video"] == (
        "960x544, 97 frames at 24 fps, 4.04 s; resolution 540P, num_frames 97, fps 24 (task default)"
    )
    assert said["sampling"] == (
        "num_inference_steps 30, guidance_scale 6, sample_solver unipc (task default); shift 5 (flag)"
    )
    assert said["seed"] == "3 (flag)"
    assert said["forwards"] == "60 (30 steps x 2)"
    assert said["tokens"] == "51000 per forward, latents 1x16x25x68x120"
    assert re.match(r"about 50\.\d GB on the CPU, [\d.]+ [GM]B free", said["RAM"])
    assert {"time", "segments", "lora", "ranks", "file"}.isdisjoint(said)


def test_every_source_of_a_number_is_named(cli, tmp_path):
    (tmp_path / "a.yaml").write_text("shift: 4\nfps: 12\n")
    listed = tmp_path / "a.jsonl"
    listed.write_text(json.dumps({"prompt": "x", "guidance_scale": 2}))
    words = (*T2V, "--model_id", "tiny", *SMALL, "--config", tmp_path / "a.yaml")
    said = rows(cli(*words, "--jobs", listed, "--num_inference_steps", 3, "--fps", 8, "--dry_run").out)
    assert said["video"].endswith("height 32, width 48, num_frames 5, fps 8 (flag)")
    assert said["sampling"] == (
        "num_inference_steps 3 (flag); guidance_scale 2 (job list); shift 4 (config); "
        "sample_solver unipc (task default)"
    )
    assert said["seed"].endswith("(drawn)")

    assert cli(*words, "--prompt", "x", "--num_inference_steps", 1, "--output", tmp_path / "a.npy").code == 0
    again = ("--from_metadata", tmp_path / "a.json", "--shift", 9, "--dry_run")
    plan = json.loads(cli(*again, "--json").out)
    origins = {name: plan["origins"][name] for name in ("seed", "fps", "shift", "prompt", "dtype")}
    assert origins == {**dict.fromkeys(origins, "metadata"), "shift": "flag"}
    assert plan["origins"].keys() == plan["request"].keys()


def test_defaults_of_a_checkpoint_and_of_a_preset_are_named(cli):
    large = ("--model_id", "Skywork/SkyReels-V2-T2V-14B-720P")
    said = rows(cli(*T2V, *large, "--prompt", "x", "--dry_run").out)["video"]
    assert re.search(r"resolution 720P[^;]* \(checkpoint\)", said), said
    lightning = ("--model_id", "Wan-AI/Wan2.2-T2V-A14B", "--preset", "lightning")
    said = rows(cli(*T2V, *lightning, "--prompt", "x", "--dry_run").out)
    assert re.search(r"num_inference_steps 4[^;]* \(preset\)", said["sampling"]), said
    assert re.search(r"\(scale 1, high noise\), .*\(scale 1, low noise\)", said["lora"]), said


def test_a_size_is_written_as_it_is_given(cli):
    said = rows(cli(*T2V, "--prompt", "x", "--size", "544*960", "--dry_run").out)["video"]
    assert said.startswith("544x960, ")
    assert "; size 544*960 (flag); " in said


def test_a_long_video_has_segments_and_lists_their_prompts(cli, tmp_path):
    (tmp_path / "prompts.txt").write_text("a swan\na duck\n")
    words = ("--task_type", "diffusion_forcing", "--duration", 10, "--overlap_history", 17)
    out = cli(*words, "--roll_prompts", tmp_path / "prompts.txt", "--dry_run").out
    assert "prompt    2, one for each segment:\n          a swan\n          a duck\n" in out
    assert rows(out)["segments"] == "97, 80, 64 frames"
    assert "overlap_history 17 (flag)" in rows(out)["sampling"]
    assert "--roll_prompts has 2 prompts for 3 segments" in out
    assert not re.search(r"\brolls?\b", out)


def test_the_plan_of_a_list_says_once_what_all_have(cli, tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("a swan\na duck\na goose\n")
    blocks = cli(*T2V, "--model_id", "tiny", *SMALL, "--jobs", file, "--seed", 1, "--dry_run").out.split(
        "\n\n"
    )
    assert [re.findall(r"^prompt +(.*)$", block, re.MULTILINE) for block in blocks[:3]] == [
        *(["a swan"], ["a duck"], ["a goose"])
    ]
    assert [block.splitlines()[0] for block in blocks[1:3]] == [
        *("2 of 3, as the first but for:", "3 of 3, as the first but for:")
    ]
    assert {line.split()[0] for line in blocks[2].splitlines()[1:]} == {"prompt", "output"}


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ((), 1.2),  # stored in the dtype they work in: nothing is copied
        (("--dtype", "float32"), 24.3),  # the text encoder
        (("--dtype", "float32", "--offload"), 82.3),
        (("--low_vram",), 15.7),
    ],
)
def test_ram_beside_the_gpu(cli, words, needed, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    inputs = ("--prompt", "x", "--ref_imgs", REFS / "robot.png", "--device", "cuda")
    plan = json.loads(cli("--task_type", "reference_to_video", *inputs, *words, "--dry_run", "--json").out)
    assert plan["ram_bytes"] / 1e9 == pytest.approx(needed, abs=0.1)


def test_ram_of_float32_files_is_that_of_their_copies(cli, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    words = (*T2V[:2], "--prompt", "x", "--device", "cuda", "--dry_run", "--json")
    plain, offload, low = (
        json.loads(cli(*words, *mode).out)["ram_bytes"] / 1e9 for mode in ([], ["--offload"], ["--low_vram"])
    )
    assert plain == pytest.approx(1.2, abs=0.1)  # read straight onto the GPU
    assert offload == low == pytest.approx(30.2, abs=0.1)
