"""The command line contract: plans, sources of options, batches, streams, metadata, resume."""

import json
import os
import re
import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import GOLDEN, REFS, ROOT
from videogen.cli.parser import parse
from videogen.planning.request import Item, make_plans
from videogen.results.output_paths import OverwritePolicy
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
lora output save_file output_dir save_latents overwrite resume jobs dry_run config from_metadata
list_tasks env json quiet verbose version
source_fps handover color_match prepend_input keep_audio keep_parts
new_frames_only captioner caption_only teacache_fixed cache float8_matmul
vae_dtype embedding_cache save_last_frame num_videos no_vlm concat audio_track i2v_condition_type no_riflex
neg_prompt i2v_resolution i2v_image_path use_cpu_offload save_path
"""


def test_the_surface_is_frozen():
    assert sorted(FLAG_NAMES) == sorted(FLAGS.split())
    for row in ROWS:
        assert {*row.options, *row.inputs} <= {*OPTIONS}
    for name, option in OPTIONS.items():
        assert option.about_run or option.chain or users_of(name), f"nobody uses --{name}"


def fresh(*arguments):
    """Run in a fresh process; returns what subprocess returns."""
    return subprocess.run(
        [sys.executable, str(ROOT / "generate_video.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


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

    for name in command_line.ALLOCATOR:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(command_line.sys, "platform", system[0])
    monkeypatch.setattr(command_line.platform, "release", lambda: system[1])
    command_line.use_expandable_segments()
    assert {name: os.environ[name] for name in command_line.ALLOCATOR if name in os.environ} == found


def test_help_of_a_task_shows_its_flags_and_defaults(cli):
    text = " ".join(cli("--task_type", "reference_to_video", "--help").out.split())
    assert "--ref_imgs" in text
    assert "(default 5.0)" in text
    assert "Skywork/SkyReels-V3-R2V-14B" in text
    assert "480P, 540P, 720P" in text
    assert "--ar_step" not in text
    assert "--i2v_stability" in cli("--help").out


def test_list_tasks_version_and_env(cli):
    assert cli("--list_tasks").out.startswith("reference_to_video ")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", cli("--version").out)
    environment = cli("--env").out
    assert "torch" in environment
    assert "cuda" in environment


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


def test_metadata_reproduces_the_result(cli, r2v, tmp_path, monkeypatch):
    """From the sidecar and from the MP4's own comment, run where relative inputs are found."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "robot.png").write_bytes((REFS / "robot.png").read_bytes())
    words = [word if not word.endswith("robot.png") else "robot.png" for word in r2v]
    assert cli(*words, "--seed", 5, "--output", "a.mp4", "--save_latents", "a.safetensors").code == 0
    for source in ("a.json", "a.mp4"):
        finished = cli(
            *(
                "--from_metadata",
                source,
                "--output",
                "b.npy",
                "--save_latents",
                "b.safetensors",
                "--overwrite",
            )
        )
        assert finished.code == 0, finished.err
        one, two = (load_file(tmp_path / name)["latents"] for name in ("a.safetensors", "b.safetensors"))
        assert (one == two).all()
        hashes = {json.loads((tmp_path / name).read_text())["plan_hash"] for name in ("a.json", "b.json")}
        assert len(hashes) == 1


def test_metadata_keeps_no_private_paths(cli, r2v, tmp_path):
    golden = str(GOLDEN / "skyreels_v3/checkpoint-r2v")
    words = [word if word != "tiny" else golden for word in r2v]
    assert cli(*words, "--output", tmp_path / "a.mp4").code == 0
    sidecar = (tmp_path / "a.json").read_text()
    with av.open(str(tmp_path / "a.mp4")) as container:
        comment = container.metadata["comment"]
    for text in (sidecar, comment):
        assert str(tmp_path) not in text
        assert str(ROOT) not in text
    assert json.loads(comment)["request"]["prompt"] == "a robot waves"
    record = json.loads(sidecar)
    assert record["request"]["ref_imgs"] == ["robot.png"]
    assert set(record) >= {
        "seed",
        "model",
        "versions",
        "seconds",
        "peak_memory",
        "plan_hash",
        "inputs",
        "device",
    }
    finished = cli("--from_metadata", tmp_path / "a.json", "--output", tmp_path / "b.mp4")
    assert finished.code == 2
    assert "made with the local model 'checkpoint-r2v'; add --model_id" in finished.complaint


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


def test_several_seeds_load_the_model_once(cli, r2v, tmp_path, monkeypatch):
    from videogen.engine import load

    loads = []
    original = load.load_pipeline
    monkeypatch.setattr(load, "load_pipeline", lambda *args: (loads.append(1), original(*args))[1])
    finished = cli(*r2v, "--seed", "1,2,3", "--output_dir", tmp_path / "out", "--json")
    assert finished.code == 0, finished.err
    records = [json.loads(line) for line in finished.out.splitlines()]
    assert [record["seed"] for record in records] == [1, 2, 3]
    assert [record["output"] for record in records] == ["1_1.mp4", "2_2.mp4", "3_3.mp4"]
    assert all((tmp_path / "out" / record["output"]).is_file() for record in records)
    assert len(loads) == 1
    single = cli(*r2v, "--seed", 2, "--output", tmp_path / "two.npy")
    assert single.code == 0
    assert cli(*r2v, "--seed", "1,2", "--output", tmp_path / "s{seed}.npy").code == 0
    assert np.array_equal(np.load(tmp_path / "two.npy"), np.load(tmp_path / "s2.npy"))
    assert not np.array_equal(np.load(tmp_path / "s1.npy"), np.load(tmp_path / "s2.npy"))


@pytest.mark.parametrize("spelling", [("--base_seed", "-1"), ("--seed", "random")])
def test_a_drawn_seed_is_shown_and_recorded(cli, r2v, tmp_path, spelling):
    plans = [plan_of(cli, *r2v, *spelling) for _ in range(2)]
    assert plans[0]["request"]["seed"] != plans[1]["request"]["seed"]
    assert plan_of(cli, *r2v)["request"]["seed"] == 42


def test_models_of_one_name_in_two_folders_are_two_models(cli, r2v, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    from videogen.models import tiny

    for parent, factor in (("a", 1.0), ("b", 0.5)):
        model = shutil.copytree(
            tiny.build("skyreels-v3-r2v", tmp_path / f"made_{parent}"), tmp_path / parent / "m"
        )
        (weights,) = (model / "transformer").glob("*.safetensors")
        tensors = load_file(weights)
        tensors["proj_out.weight"] *= factor
        save_file(tensors, weights, metadata={"format": "pt"})
    lines = [json.dumps({"prompt": "x", "model_id": str(tmp_path / parent / "m")}) for parent in "ab"]
    (tmp_path / "jobs.jsonl").write_text("\n".join(lines))
    output = tmp_path / "{index}.npy"
    finished = cli(*r2v, "--jobs", tmp_path / "jobs.jsonl", "--output", output)
    assert finished.code == 0, finished.err
    first, second = (np.load(path) for path in finished.paths)
    assert not np.array_equal(first, second)


def test_jobs_of_prompts_and_of_json(cli, r2v, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red robot\n\na blue robot\n")
    finished = cli(*r2v, "--jobs", tmp_path / "prompts.txt", "--output", tmp_path / "p{index}.mp4", "--json")
    assert finished.code == 0, finished.err
    records = [json.loads(line) for line in finished.out.splitlines()]
    assert [record["request"]["prompt"] for record in records] == ["a red robot", "a blue robot"]
    assert [record["output"] for record in records] == ["p1.mp4", "p2.mp4"]

    jobs = [{"seed": [1, 2]}, {"prompt": "other", "num-frames": 9, "output": str(tmp_path / "own.npy")}]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    jobs[1]["seed"] = [3, 4]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    finished = cli(*r2v, "--jobs", tmp_path / "jobs.jsonl", "--output_dir", tmp_path / "out")
    assert finished.code == 2  # the job's own output would be that of several videos
    assert "line 2: --output" in finished.complaint
    del jobs[1]["seed"]
    jobs[1]["output"] = str(tmp_path / "own_{seed}.npy")
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    finished = cli(*r2v, "--jobs", tmp_path / "jobs.jsonl", "--output_dir", tmp_path / "out")
    assert finished.code == 0, finished.err
    assert [path.name for path in finished.paths] == ["1_1.mp4", "2_2.mp4", "own_42.npy"]
    assert np.load(tmp_path / "own_42.npy").shape[0] == 9


def test_a_failing_item_is_recorded_and_the_rest_goes_on(cli, r2v, tmp_path, monkeypatch):
    from videogen.engine import session

    original = session.write

    def fail_on_two(plan, *args, **kwargs):
        if plan.seed == 2:
            raise RuntimeError("boom")
        return original(plan, *args, **kwargs)

    monkeypatch.setattr(session, "write", fail_on_two)
    finished = cli(*r2v, "--seed", "1,2,3", "--output_dir", tmp_path)
    assert finished.code == 1
    assert [path.name for path in finished.paths] == ["1_1.mp4", "3_3.mp4"]
    assert "video 2 of 3 failed: RuntimeError: boom" in finished.err
    assert "Traceback" not in finished.err


def test_a_batch_survives_a_checkpoint_that_does_not_fit(cli, r2v, tmp_path):
    model = shutil.copytree(GOLDEN / "skyreels_v3/checkpoint-r2v", tmp_path / "model")
    (model / "tokenizer/tokenizer.json").write_text("what?")
    jobs = [{}, {"model_id": str(model)}, {"seed": 7}]
    lines = "\n".join(json.dumps({"prompt": "x", **job}) for job in jobs)
    (tmp_path / "jobs.jsonl").write_text(lines)
    finished = cli(*r2v, "--jobs", tmp_path / "jobs.jsonl", "--output_dir", tmp_path)
    assert finished.code == 1
    assert [path.name for path in finished.paths] == ["1_42.mp4", "3_7.mp4"]
    assert re.search("video 2 of 3 failed: .*not a tokenizer", finished.err)


def test_a_failed_video_holds_no_memory(cli, r2v, tmp_path, monkeypatch):
    """What failed must be gone before the next video needs its place."""
    import gc
    import weakref

    from videogen.engine import session

    held, alive = [], []

    def fail(plan, pipeline, *args, **kwargs):
        gc.collect()
        alive.append([tensor() is not None for tensor in held])
        latents = torch.ones(8)
        held.append(weakref.ref(latents))
        raise torch.OutOfMemoryError("CUDA out of memory")

    import torch

    monkeypatch.setattr(session, "write", fail)
    finished = cli(*r2v, "--seed", "1,2", "--output_dir", tmp_path)
    assert finished.code == 1
    assert "video 2 of 2 failed: out of memory; try a smaller" in finished.err
    assert alive == [[], [False]]


def test_other_memory_errors_are_not_out_of_memory(cli, r2v, tmp_path, monkeypatch):
    from videogen.engine import session

    def fail(*args, **kwargs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(session, "write", fail)
    finished = cli(*r2v, "--output", tmp_path / "a.mp4")
    assert finished.code == 1
    assert "illegal memory access was encountered more" in finished.complaint


def test_resume_skips_what_is_finished(cli, r2v, tmp_path):
    words = [*r2v, "--seed", "1,2", "--output_dir", str(tmp_path), "--resume"]
    assert cli(*words).code == 0
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.mp4")}
    (tmp_path / "2_2.json").unlink()  # as if killed before the end
    finished = cli(*words)
    assert finished.code == 0, finished.err
    assert [path.name for path in finished.paths] == ["1_1.mp4", "2_2.mp4"]
    assert (tmp_path / "1_1.mp4").stat().st_mtime_ns == stamps[tmp_path / "1_1.mp4"]
    assert (tmp_path / "2_2.mp4").stat().st_mtime_ns > stamps[tmp_path / "2_2.mp4"]

    finished = cli(*words, "--shift", 3)
    assert finished.code == 2
    assert "--resume" in finished.complaint
    assert "was made with another shift" in finished.complaint


def test_resume_replaces_only_our_own(cli, r2v, tmp_path):
    (tmp_path / "a.mp4").write_text("precious")
    finished = cli(*r2v, "--output", tmp_path / "a.mp4", "--resume")
    assert finished.code == 2
    assert "is no earlier result of videogen" in finished.complaint
    (tmp_path / "b.json").write_text('{"precious": true}')
    assert cli(*r2v, "--output", tmp_path / "b.mp4", "--resume").code == 2
    assert (tmp_path / "a.mp4").read_text() == "precious"
    assert (tmp_path / "b.json").read_text() == '{"precious": true}'


def test_resume_makes_what_is_missing_of_a_result(cli, r2v, tmp_path):
    words = [*r2v, "--output", tmp_path / "a.npy", "--resume"]
    assert cli(*words).code == 0
    finished = cli(*words, "--save_latents", tmp_path / "a.safetensors")
    assert finished.code == 0, finished.err
    assert (tmp_path / "a.safetensors").is_file()


def test_resume_keeps_a_seed_that_was_drawn(cli, r2v, tmp_path):
    words = [*r2v, "--seed", "random", "--output_dir", tmp_path, "--resume"]
    (first,) = cli(*words).paths
    (second,) = cli(*words).paths
    assert first == second
    assert len(list(tmp_path.glob("*.mp4"))) == 1


def test_overwrite_replaces_only_our_own(cli, r2v, tmp_path):
    assert cli(*r2v, "--output", tmp_path / "a.mp4").code == 0
    assert "exists already" in cli(*r2v, "--output", tmp_path / "a.mp4").complaint
    assert cli(*r2v, "--output", tmp_path / "a.mp4", "--seed", 9, "--overwrite").code == 0
    assert json.loads((tmp_path / "a.json").read_text())["seed"] == 9
    assert cli(*r2v, "--output", tmp_path / "frames", "--num_frames", 9).code == 0
    assert len(list((tmp_path / "frames").iterdir())) == 9
    assert "exists already" in cli(*r2v, "--output", tmp_path / "frames").complaint
    assert cli(*r2v, "--output", tmp_path / "frames", "--overwrite").code == 0
    assert len(list((tmp_path / "frames").iterdir())) == 5


def test_default_names_never_collide(cli, r2v, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda *args: "2026-01-02_03-04-05")
    first, second = (cli(*r2v).paths[0] for _ in range(2))
    assert str(first) == "result/reference_to_video/42_2026-01-02_03-04-05.mp4"
    assert str(second) == "result/reference_to_video/42_2026-01-02_03-04-05_2.mp4"


def test_two_processes_with_one_default_name_lose_nothing(cli, r2v, tmp_path, monkeypatch):
    """Another process finishes under the name that was free when this one began."""
    from videogen.engine import generate

    monkeypatch.chdir(tmp_path)
    original = generate._record

    def meanwhile(plan, pipeline):
        plan.outputs.path.parent.mkdir(parents=True, exist_ok=True)
        plan.outputs.path.write_text("theirs")
        return original(plan, pipeline)

    monkeypatch.setattr(generate, "_record", meanwhile)
    (path,) = cli(*r2v).paths
    assert path.stem.endswith("_2")
    assert path.with_suffix(".json").is_file()
    assert (path.with_name(path.name.replace("_2.mp4", ".mp4"))).read_text() == "theirs"


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


def test_a_changed_input_is_noticed(cli, r2v, tmp_path, monkeypatch):
    (tmp_path / "ref.png").write_bytes((REFS / "robot.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    words = [*r2v, "--ref_imgs", "ref.png"]
    words.remove(str(REFS / "robot.png"))
    words.remove("--ref_imgs")
    assert cli(*words, "--output", "a.npy").code == 0
    again = ("--from_metadata", "a.npy", "--output", "b.npy", "--dry_run")
    assert "ref.png" not in cli(*again).err
    (tmp_path / "ref.png").write_bytes((REFS / "hills.png").read_bytes())
    assert "warning: ref.png is not the file that a.npy was made from" in cli(*again).err


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


def test_unexpected_errors_are_one_line_and_exit_1(cli, r2v, tmp_path, monkeypatch):
    from videogen.engine import load

    def explode(*args):
        raise RuntimeError("boom\nwith a second line")

    monkeypatch.setattr(load, "load_pipeline", explode)
    finished = cli(*r2v, "--output", tmp_path / "a.mp4")
    assert finished.code == 1
    assert "RuntimeError: boom with a second line" in finished.complaint
    assert "Traceback" in cli(*r2v, "--output", tmp_path / "a.mp4", "-v").err


def test_out_of_memory_says_what_to_try(cli, r2v, tmp_path, monkeypatch):
    import torch

    from videogen.engine import load, out_of_memory

    def explode(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(load, "load_pipeline", explode)
    finished = cli(*r2v, "--output", tmp_path / "a.mp4")
    assert finished.code == 4
    assert "try a smaller --resolution or fewer --num_frames" in finished.complaint

    plan = make_plans([Item(values=parse(r2v)[0])], OverwritePolicy(), tmp_path)[0]
    tries = out_of_memory.memory_suggestions(plan, on_gpu=True)
    assert re.fullmatch(r"--offload \(about .* GB\), --low_vram \(about .* GB\), a smaller .*", tries)
