"""Bad input: exit code 2 (3 for checkpoints), one line that says what is allowed and a fix, and no file."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.commands import R2V, ROBOT, command, everything_below
from tests.conftest import GOLDEN, REFS, ROOT
from videogen.planning.option_rules import PACKAGES


def setting_up(folder: Path) -> None:
    """Files that the cases below refer to."""
    (folder / "text.png").write_text("I am not a picture")
    (folder / "page.png").write_text("<!DOCTYPE html><title>Log in</title>")
    (folder / "cut.png").write_bytes((REFS / "robot.png").read_bytes()[:2000])
    (folder / "empty.yaml").write_text("")
    (folder / "broken.yaml").write_text("prompt: [unclosed")
    (folder / "unknown.yaml").write_text("propmt: a cat")
    (folder / "empty.json").write_text("")
    (folder / "broken.json").write_text("{")
    (folder / "other.json").write_text('{"name": "something else"}')
    (folder / "not_a_video.mp4").write_text("no")
    (folder / "a_file").write_text("")
    (folder / "exists.mp4").write_text("precious")
    (folder / "jobs.txt").write_text("")
    (folder / "jobs.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "num_frames": 80}\n')
    (folder / "jobs_broken.jsonl").write_text('{"prompt": "a"}\nnot json\n')
    (folder / "jobs_unknown.jsonl").write_text('{"prompt": "a", "colour": "red"}\n')
    (folder / "jobs_value.jsonl").write_text('{"prompt": "a", "seed": "abc"}\n')
    (folder / "value.yaml").write_text("duration: yes\n")
    (folder / "recorded.json").write_text("{}")
    for name in ("dangling.png", "dangling.png.mp4"):
        (folder / name).symlink_to(folder / "nowhere")
    (folder / "empty_model").mkdir()
    (folder / "readonly").mkdir(mode=0o555)
    no_vae = shutil.copytree(R2V, folder / "no_vae")
    shutil.rmtree(no_vae / "vae")
    (folder / "one_shard").mkdir()
    short = shutil.copytree(R2V, folder / "short_shard")
    shard = next((short / "transformer").glob("*00001*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-10])
    lost = shutil.copytree(R2V, folder / "lost_shard")
    next((lost / "transformer").glob("*00002*.safetensors")).unlink()


MANY = ",".join([ROBOT] * 5)
CASES: dict[str, tuple[dict[str, object], int, str]] = {
    "no reference": ({"ref_imgs": None}, 2, "--ref_imgs: none given; reference_to_video takes 1 to 4"),
    "five references": ({"ref_imgs": MANY}, 2, r"--ref_imgs \(5 images\): .*1 to 4.*leave out 1"),
    "missing file": ({"ref_imgs": str(REFS / "robto.png")}, 2, "no such file; nearest .*robot.png"),
    "text named png": ({"ref_imgs": "text.png"}, 2, "--ref_imgs text.png: is not an image"),
    "page named png": ({"ref_imgs": "page.png"}, 2, "--ref_imgs page.png: is a web page, not the file"),
    "truncated png": ({"ref_imgs": "cut.png"}, 2, "--ref_imgs cut.png: cannot be decoded"),
    "folder as image": ({"ref_imgs": "empty_model"}, 2, "is a folder"),
    "size not 16": ({"height": 100, "width": 160}, 2, "--height 100: .*multiple of 16; nearest 96 or 112"),
    "half a size": ({"height": 96}, 2, "--height 96: needs its partner"),
    "size twice": ({"height": 96, "width": 96, "size": "1280*720"}, 2, "--size: not together with --height"),
    "size unsupported": ({"size": "1280*721"}, 2, r"--size 1280\*721: .*nearest 1280\*720"),
    "size nonsense": ({"size": "big"}, 2, r"--size big: must be WIDTH\*HEIGHT"),
    "resolution": ({"resolution": "900P"}, 2, "--resolution 900P: this model has"),
    "duration 0": ({"duration": 0}, 2, "--duration 0: must be a number above 0"),
    "duration negative": ({"duration": -1}, 2, "--duration -1: must be a number above 0"),
    "frames 0": ({"num_frames": 0}, 2, "--num_frames 0: must be a whole number from 1 on; for example 5"),
    "frames not 4k+1": ({"num_frames": 80}, 2, "--num_frames 80: must be 4k.1; nearest 77 or 81"),
    "frames half": ({"num_frames": "4.5"}, 2, "--num_frames 4.5: must be a whole number"),
    "guidance nan": ({"guidance_scale": "nan"}, 2, "--guidance_scale nan: must be a number, 0 or more"),
    "guidance inf": ({"guidance_scale": "inf"}, 2, "--guidance_scale inf"),
    "guidance negative": ({"guidance_scale": -1}, 2, "--guidance_scale -1: must be a number, 0 or more"),
    "steps 0": ({"num_inference_steps": 0}, 2, "--num_inference_steps 0"),
    "steps too many": ({"num_inference_steps": 2000}, 2, "from 1 to 1000; nearest 1000"),
    "steps negative": ({"num_inference_steps": -3}, 2, "--num_inference_steps -3"),
    "shift 0": ({"shift": 0}, 2, "--shift 0: must be a number above 0"),
    "shift negative": ({"shift": -2}, 2, "--shift -2"),
    "fps 0": ({"fps": 0}, 2, "--fps 0: must be a whole number from 1 to 240; nearest 1"),
    "seed negative": ({"seed": -1}, 2, "--seed -1: must lie between 0 and 9223372036854775807"),
    "seed too large": ({"seed": 2**63}, 2, "--seed 9223372036854775808"),
    "seed twice": ({"seed": "1,1"}, 2, "--seed 1,1: must name each seed once"),
    "unknown flag": ({"gudance_scale": 3}, 2, "--gudance_scale: unknown flag; nearest --guidance_scale"),
    "not a flag": ({"prompt": "a", "quiet": "stray"}, 2, "stray: not a flag"),
    "value for nothing": ({"num_frames": "--seed"}, 2, "--num_frames: needs a value; --num_frames FRAMES"),
    "unknown suffix": ({"output": "out.avi"}, 2, "--output out.avi: must be .mp4, .mov,"),
    "unknown task": ({"task_type": "reference_2_video"}, 2, "--task_type .*nearest reference_to_video"),
    "no task": ({"task_type": None}, 2, "--task_type: none given; choose one of reference_to_video"),
    "no prompt": ({"prompt": None}, 2, "--prompt: required by reference_to_video"),
    "empty prompt": ({"prompt": ""}, 2, "--prompt '': must not be empty"),
    "blank prompt": ({"prompt": "  \n "}, 2, "--prompt '': must not be empty"),
    "missing config": ({"config": "nope.yaml"}, 2, "--config nope.yaml: cannot be read"),
    "empty config": ({"config": "empty.yaml"}, 2, "--config empty.yaml: is empty"),
    "broken config": ({"config": "broken.yaml"}, 2, "--config broken.yaml: is not YAML"),
    "unknown config key": ({"config": "unknown.yaml"}, 2, "--config unknown.yaml propmt: .*nearest prompt"),
    "missing metadata": ({"from_metadata": "nope.json"}, 2, "--from_metadata nope.json: no such file"),
    "empty metadata": ({"from_metadata": "empty.json"}, 2, "holds no videogen metadata"),
    "broken metadata": ({"from_metadata": "broken.json"}, 2, "holds no videogen metadata"),
    "other metadata": ({"from_metadata": "other.json"}, 2, "holds no videogen metadata"),
    "metadata of no video": ({"from_metadata": "not_a_video.mp4"}, 2, "is not a readable video"),
    "flag of another task": (
        {"ar_step": 5},
        2,
        "--ar_step 5: not used by reference_to_video; used by diffusion_f",
    ),
    "switch of another task": ({"captioner": True}, 2, "--captioner: not used by.*diffusion_forcing"),
    "low_vram with usp": ({"low_vram": True, "use_usp": True}, 2, "--low_vram: not together with --use_usp"),
    "usp": ({"use_usp": True}, 2, "--use_usp: one process was started.*torchrun --nproc_per_node"),
    "device": ({"device": "gpu"}, 2, "--device gpu: must be auto, cpu, cuda"),
    "dtype": ({"dtype": "float8"}, 2, "--dtype float8: must be one of bfloat16.*nearest float"),
    "steps half": ({"num_inference_steps": "2.6"}, 2, "--num_inference_steps 2.6: .*nearest 3"),
    "shift huge": ({"shift": "1e30"}, 2, "--shift 1e30: must be .*nearest 1000"),
    "resolution between": ({"resolution": "1080P"}, 2, "--resolution 1080P: .*nearest 720P"),
    "line break in output": ({"output": "a\nb.mp4"}, 2, "must not hold line breaks"),
    "output without a name": ({"output": ".mp4"}, 2, "--output .mp4: must be .mp4, .mov"),
    "broken link": ({"ref_imgs": "dangling.png"}, 2, "is not a regular file"),
    "output is a broken link": ({"output": "dangling.png.mp4"}, 2, "exists already"),
    "record exists": (
        {"output": "recorded.mp4"},
        2,
        "--output recorded.mp4: its record rec.*exists",
    ),
    "jobs of no file": ({"jobs": "/dev/zero"}, 2, "--jobs /dev/zero: is not a regular file"),
    "value in a job": ({"jobs": "jobs_value.jsonl"}, 2, "jobs_value.jsonl line 1: --seed abc"),
    "value in a config": ({"config": "value.yaml"}, 2, "--config value.yaml: --duration True"),
    "backend": ({"attention_backend": "flsh"}, 2, "--attention_backend flsh: .*nearest flash"),
    **{
        f"{name} not installed": (
            {"attention_backend": name},
            2,
            f"{name}: needs the package {package.module}, not installed; {package.how[:5]}",
        )
        for name, package in PACKAGES.items()
        if find_spec(package.module) is None
    },
    "backend of another device": (
        {"attention_backend": "cudnn", "device": "cpu"},
        2,
        "--attention_backend cudnn: does not run on cpu; use native",
    ),
    "cache": (
        {"cache": "first_blok"},
        2,
        r"--cache first_blok: must be NAME\[:threshold\] with one of first_block, magcache, taylorseer, "
        "taylorseer_lite; nearest first_block",
    ),
    "cache without a name": ({"cache": ":0.1"}, 2, "--cache :0.1: must be NAME"),
    "cache threshold": ({"cache": "first_block:2"}, 2, "--cache first_block:2: .*0 to 1; nearest 1"),
    "cache threshold word": ({"cache": "magcache:much"}, 2, "--cache magcache:much: .*, or 'calibrate'"),
    "cache interval": ({"cache": "taylorseer:1"}, 2, "--cache taylorseer:1: .*from 2 to 100; nearest 2"),
    "cache twice": ({"cache": "first_block", "teacache": True}, 2, "--teacache: not together with --cache"),
    "cache compiled": (
        {"cache": "taylorseer", "compile": True},
        2,
        "--cache taylorseer: .*not together with --compile; use taylorseer_lite",
    ),
    "cache not measured": (
        {"cache": "magcache", "model_id": R2V},
        2,
        "--cache magcache: was not measured for this model.*; run once with --cache magcache:calibrate",
    ),
    "float8 on the CPU": (
        {"float8_matmul": True, "device": "cpu"},
        2,
        r"--float8_matmul: needs a GPU of compute capability 8\.9 or more, not cpu",
    ),
    "float8 in float32": (
        {"float8_matmul": True, "dtype": "float32"},
        2,
        "--float8_matmul: needs bfloat16 weights, not float32; add --dtype bfloat16",
    ),
    "float8 twice": (
        {"float8_matmul": True, "low_vram": True},
        2,
        "--low_vram: not together with --float8_matmul",
    ),
    "output under a file": ({"output": "a_file/out.mp4"}, 2, "--output a_file: .*is a file"),
    "output in a read-only folder": ({"output": "readonly/out.mp4"}, 2, "--output readonly: is not writable"),
    "output in /proc": ({"output": "/proc/out.mp4"}, 2, "--output /proc: is not writable"),
    "output exists": ({"output": "exists.mp4"}, 2, "--output exists.mp4: exists already; add --overwrite"),
    "output a full folder": ({"output": "no_vae/", "overwrite": True}, 2, "a folder with other files in it"),
    "output and folder": ({"output_dir": "d"}, 2, "--output: not together with --output_dir"),
    "long name": ({"output": "x" * 230 + ".mp4"}, 2, "names may have 200 bytes; choose a shorter one"),
    "latents suffix": ({"save_latents": "x.pt"}, 2, "--save_latents x.pt: must end in .safetensors"),
    "open brace": ({"output": "x{seed.mp4"}, 2, r"--output x\{seed.mp4: has a \{ without a \}; .*\{seed\}"),
    "stray brace": ({"output": "seed}/x_{seed}.mp4"}, 2, r"has a \} without a \{"),
    "open brace of latents": ({"save_latents": "{{seed}.safetensors"}, 2, "--save_latents .*without"),
    "many without a mark": ({"seed": "1,2"}, 2, "--output out.mp4: several videos need {seed} or {index}"),
    "resume without a name": (
        {"output": None, "resume": True},
        2,
        "--resume: needs names that stay the same",
    ),
    "resume and overwrite": (
        {"resume": True, "overwrite": True},
        2,
        "--resume: not together with --overwrite",
    ),
    "empty jobs": ({"jobs": "jobs.txt"}, 2, "--jobs jobs.txt: is empty"),
    "missing jobs": ({"jobs": "nope.txt"}, 2, "--jobs nope.txt: cannot be read"),
    "bad job": ({"jobs": "jobs.jsonl", "output": "o_{index}.mp4"}, 2, "jobs.jsonl line 2: --num_frames 80"),
    "broken job": ({"jobs": "jobs_broken.jsonl", "output": "o_{index}.mp4"}, 2, "line 2: is not JSON"),
    "unknown job key": (
        {"jobs": "jobs_unknown.jsonl"},
        2,
        "jobs_unknown.jsonl line 1 colour: no such option",
    ),
    "ftp": ({"ref_imgs": "ftp://host/a.png"}, 2, "--ref_imgs ftp://host/a.png: URLs must be http or https"),
    "file url": ({"ref_imgs": f"file://{ROBOT}"}, 2, "URLs must be http or https"),
    "unreachable": ({"ref_imgs": "http://127.0.0.1:9/a.png"}, 2, "could not be downloaded"),
    "missing lora": ({"lora": "nope.safetensors"}, 2, "--lora nope.safetensors: no such .safetensors file"),
    "lora scale": ({"lora": "a_file:much"}, 2, "--lora a_file:much: .*'much' is not a number"),
    "lora expert": ({"lora": "a_file:1:high"}, 2, "--lora a_file: ':high' is for models with two experts"),
    "missing model": ({"model_id": "/no/such/model"}, 3, "--model_id /no/such/model: no such folder"),
    "missing relative model": ({"model_id": "./modle"}, 3, "--model_id ./modle: no such folder"),
    "missing relative lora": ({"lora": "./nope:0.5"}, 2, "--lora ./nope: no such .safetensors file"),
    "missing relative transformer": ({"transformer": "./nope:low"}, 2, "--transformer ./nope: no such file"),
    "missing relative vae": ({"vae": "./nope"}, 2, "--vae ./nope: no such file"),
    "missing published model": (
        {"model_id": "./SkyReels-V3-R2V-14B"},
        3,
        "no such folder; give an existing folder, or the hub id Skywork/SkyReels-V3-R2V-14B",
    ),
    "model is a file": ({"model_id": "./a_file"}, 3, "is a file, not a model folder"),
    "empty model": ({"model_id": "empty_model"}, 3, "is empty; reference_to_video needs transformer/ vae/"),
    "model is this folder": (
        {"model_id": "."},
        3,
        r"--model_id \. \(/.*\): is not a model folder; nearest \w+$",
    ),
    "model is /proc": (
        {"model_id": "/proc/self/fdinfo"},
        3,
        "--model_id /proc/self/fdinfo: is not a model folder; .*, or the hub id Skywork/SkyReels-V3-R2V-14B$",
    ),
    "no vae": ({"model_id": "no_vae"}, 3, "incomplete diffusers folder; missing vae/"),
    "another model": (
        {"model_id": GOLDEN / "skyreels_v3/checkpoint-v2v"},
        3,
        "is a SkyReels-V3 extension folder",
    ),
    "neither path nor id": ({"model_id": "some model"}, 3, "neither a folder nor a hub id"),
    "unknown tiny": ({"model_id": "tiny:huge"}, 3, "nearest tiny:skyreels-v3-r2v"),
    "truncated shard": ({"model_id": "short_shard"}, 3, "safetensors: broken or truncated"),
    "lost shard": ({"model_id": "lost_shard"}, 3, "missing transformer/.*00002-of-00002"),
}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    setting_up(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_message(cli, workplace, name):
    changes, code, message = CASES[name]
    before = everything_below(workplace)
    finished = cli(*command(changes))
    assert finished.code == code, finished.err
    assert finished.out == ""
    assert re.search(message, finished.complaint), finished.complaint
    assert everything_below(workplace) == before
    assert (workplace / "exists.mp4").read_text() == "precious"


DRIVER = """
import json, sys, time
from videogen.cli.main import main
for name, words in json.load(open(sys.argv[1])).items():
    started = time.perf_counter()
    code = main(words)
    heavy = sorted({"torch", "diffusers", "transformers"} & set(sys.modules))
    print(json.dumps([name, code, time.perf_counter() - started, heavy]), flush=True)
"""


def test_every_complaint_comes_before_any_framework(workplace):
    """In a fresh process: no torch, and far inside the contract's three seconds."""
    (workplace / "cases.json").write_text(
        json.dumps({name: command(case[0]) for name, case in CASES.items()})
    )
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, "cases.json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) == len(CASES)
    for name, code, seconds, heavy in reports:
        assert code == CASES[name][1]
        assert not heavy, (name, heavy)
        assert seconds < 3, name
