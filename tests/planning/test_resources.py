"""Warnings before anything is loaded: too little RAM, too small a disk."""

import json
import sys

import pytest

from tests.conftest import REFS
from videogen import files
from videogen.cli.parser import parse
from videogen.planning import local_ram, plan_report, resources
from videogen.planning.request import Item, make_plans
from videogen.planning.resources import ram_warning
from videogen.results.output_paths import OverwritePolicy

T2V = ("--task_type", "text_to_video", "--prompt", "x", "--device", "cpu")
WAN = ("--task_type", "image_to_video", "--input_image", REFS / "robot.png", "--prompt", "x")


@pytest.fixture
def with_ram(tmp_path, monkeypatch):
    """Return a function that gives a machine so many GB of free RAM."""

    def give(size):
        (tmp_path / "meminfo").write_text(f"MemAvailable: {int(size * 1e9) // 1024} kB\n")
        monkeypatch.setattr(local_ram, "PROC", tmp_path)

    return give


def plan_of(tmp_path, *words):
    values = parse([str(word) for word in words])[0]
    return make_plans([Item(values=values)], OverwritePolicy(), tmp_path)[0]


def test_enough_ram_is_no_word(with_ram, tmp_path):
    with_ram(100)
    assert ram_warning(plan_of(tmp_path, *T2V), on_cpu=False) is None


@pytest.mark.parametrize(
    ("words", "tries"),
    [
        (
            ("--offload",),
            "without --offload (about 1.2 GB), a float8 or GGUF file with --transformer, closing",
        ),
        (
            ("--offload", "--dtype", "float32"),
            "--dtype bfloat16, a float8 or GGUF file",
        ),
        (("--low_vram",), "a float8 or GGUF file with --transformer, closing other programs"),
    ],
)
def test_what_takes_less_ram_is_named(with_ram, tmp_path, words, tries):
    with_ram(20)
    said = ram_warning(plan_of(tmp_path, *T2V, *words), on_cpu=False)
    assert said.startswith("this takes about ")
    assert f" of RAM, and 20.0 GB are free; try {tries}" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (T2V, "--transformer, the smaller model --model_id Wan-AI/Wan2.2-TI2V-5B"),
        ((*T2V, "--model_id", "Wan-AI/Wan2.2-TI2V-5B"), "--transformer, closing other programs"),
        ((*T2V, "--model_id", "tiny"), "free; try closing other programs"),
        (("--task_type", "diffusion_forcing", *T2V[2:]), "--transformer, closing other programs"),
    ],
)
def test_only_a_model_that_is_smaller_is_named(with_ram, tmp_path, words, last):
    with_ram(0.001)
    assert ram_warning(plan_of(tmp_path, *words), on_cpu=True).endswith(last)


def test_the_plan_says_that_ram_is_short(cli, with_ram):
    with_ram(20)
    out = cli(*T2V, "--dry_run").out
    assert " GB on the CPU, 20.0 GB free: TOO LITTLE; try a float8 or GGUF file with --transformer, " in out


def test_who_cannot_set_options_reads_none(with_ram, tmp_path):
    with_ram(20)
    lines = plan_report.describe(plan_of(tmp_path, *T2V), advice=False).splitlines()
    memory, ram = (line for line in lines if line.startswith(("memory", "RAM")))
    assert memory.endswith(" GB on the GPU")
    assert ram.endswith("20.0 GB free: TOO LITTLE")
    assert "--" not in memory + ram


def test_a_run_warns_before_it_loads(cli, r2v, with_ram, tmp_path):
    with_ram(0.01)
    finished = cli(*r2v, "--output", tmp_path / "a.npy")
    assert finished.code == 0
    lines = finished.err.splitlines()
    (warning,) = (number for number, line in enumerate(lines) if "of RAM, and 10.0 MB are free; try " in line)
    assert lines[warning].startswith("warning: this takes about ")
    assert warning < next(number for number, line in enumerate(lines) if "a.npy: " in line)  # the last


def a_small_disk(monkeypatch, free):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": free})())


def test_a_disk_that_is_too_small_is_said_before_the_download(cli, monkeypatch, tmp_path):
    a_small_disk(monkeypatch, 50 * 10**9)
    monkeypatch.setitem(sys.modules, "videogen.engine.session", None)  # nothing of the run is imported
    finished = cli(*T2V, "--output", tmp_path / "a.mp4")
    assert finished.code == 3
    assert (
        "--model_id Skywork/SkyReels-V2-T2V-14B-540P: the download takes 69.0 GB and " in finished.complaint
    )
    assert finished.complaint.endswith(" has 50.0 GB free; set HF_HOME to a larger disk")
    said = cli(*T2V, "--dry_run")
    assert said.code == 0
    assert "69.0 GB to download, 50.0 GB free in " in said.out
    assert "(TOO LITTLE, set HF_HOME to a larger disk)" in said.out


def test_the_downloads_of_a_list_are_added_up(cli, monkeypatch, tmp_path):
    a_small_disk(monkeypatch, 100 * 10**9)
    listed = tmp_path / "a.jsonl"
    models = ("Skywork/SkyReels-V2-T2V-14B-540P", "Wan-AI/Wan2.2-TI2V-5B")
    listed.write_text("\n".join(json.dumps({"prompt": "x", "model_id": model}) for model in models * 2))
    finished = cli(*T2V[:2], "--device", "cpu", "--jobs", listed, "--output_dir", tmp_path)
    assert finished.code == 3
    assert f"--model_id {', --model_id '.join(models)}: the download takes 103." in finished.complaint


def test_models_that_write_prompts_count(cli, monkeypatch, make_video, tmp_path):
    a_small_disk(monkeypatch, 10**9)
    words = ("--task_type", "v2v-5B", "--input_video", make_video(), "--device", "cpu")
    finished = cli(*words, "--output", tmp_path / "a.mp4")
    assert finished.code == 3
    models = "--model_id Wan-AI/Wan2.2-TI2V-5B, --vlm_path OpenGVLab/InternVL3_5-8B-HF"
    assert f"{models}: the download takes 51.3 GB and " in finished.complaint
    out = cli(*words, "--dry_run").out
    assert "files     51.3 GB to download, " in out
    assert ", OpenGVLab/InternVL3_5-8B-HF 17.1 GB\n" in out
    tiny = cli(*words, "--model_id", "tiny", "--dry_run").out
    assert "files     17.1 GB to download, " in tiny


def test_a_model_of_unknown_size(cli):
    words = (*T2V[2:], "--task_type", "text_to_video", "--model_id", "someone/something-else")
    plan = json.loads(cli(*words, "--dry_run", "--json").out)
    assert plan["download"]["bytes"] is None
    assert plan["download"]["free_bytes"] > 0
    assert "sizes unknown to download, " in cli(*words, "--dry_run").out


def test_a_model_that_is_here_needs_no_download(cli):
    plan = json.loads(cli(*T2V, "--model_id", "tiny", "--dry_run", "--json").out)
    assert plan["download"] is None
    assert resources.find_resources([]) == []
