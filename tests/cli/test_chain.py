"""Chains of videos, each going on where the one before ended."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_tasks import decoded
from tests.conftest import GOLDEN
from tests.processes import kill_when
from videogen.cli.chain import main as continuous

VLM = GOLDEN / "wan22/checkpoint-internvl-hf"


@pytest.fixture
def chain(capsys, tmp_path, make_video):
    """Run generate_continuous.py in this process; returns (code, stdout, stderr)."""

    def run(*more, folder="chain", model="tiny", videos=3):
        words = ["--video", make_video(), "--ckpt_dir", model, "--num_videos", videos, "--base_seed", 7]
        words += ["--output_dir", tmp_path / folder, "--sample_steps", 2, "--frame_num", 5, "--device", "cpu"]
        words += more if {"--vlm_path", "--prompt"} & set(more) else [*more, "--no_vlm"]
        capsys.readouterr()
        code = continuous([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_chain(chain, tmp_path, make_video):
    code, out, err = chain("--vlm_path", VLM, "--concat")
    assert code == 0, err
    names = [f"video_0{index}_{7 + index}" for index in (1, 2, 3)]
    assert out.split() == [
        str(tmp_path / "chain" / name) for name in (*(f"{n}.mp4" for n in names), "continuous.mp4")
    ]
    log = (tmp_path / "chain/prompts_log.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in log] == [f"{name}.mp4" for name in names]
    assert all(": continue video, " in line for line in log)
    for index, name in enumerate(names):
        record = json.loads((tmp_path / f"chain/{name}.json").read_text())
        assert record["seed"] == 8 + index
        source, image = (record["inputs"][name] for name in ("input_video", "input_image"))
        assert Path(source[0]["name"]).name == (f"{names[index - 1]}.mp4" if index else "source.mp4")
        assert [Path(item["name"]).name for item in image] == ([f"{names[index - 1]}.png"] if index else [])
    film, _ = decoded(tmp_path / "chain/continuous.mp4")
    assert len(film) == 3 * 5 - 2


def test_a_chain_of_the_5b(chain, tmp_path):
    code, _, err = chain("--handover", "mp4", "--prompt", "a square", model="tiny:wan22-5b", videos=2)
    assert code == 0, err
    assert "v2v-5B" in (tmp_path / "chain/video_02_9.json").read_text()
    assert not list((tmp_path / "chain").glob("*.png"))
    assert (
        tmp_path / "chain/prompts_log.txt"
    ).read_text() == "video_01_8.mp4: a square\nvideo_02_9.mp4: a square\n"


@pytest.mark.slow
def test_a_killed_chain_goes_on_at_its_first_unfinished_link(chain, tmp_path, make_video):
    code, _, err = chain(folder="whole")
    assert code == 0, err
    words = ["--video", make_video(), "--ckpt_dir", "tiny", "--num_videos", 3, "--base_seed", 7, "--no_vlm"]
    words += ["--output_dir", tmp_path / "chain", "--sample_steps", 2, "--frame_num", 5, "--device", "cpu"]
    kill_when((tmp_path / "chain/video_01_8.json").exists, *words, program="videogen.cli.chain")
    assert not (tmp_path / "chain/video_03_10.json").exists()
    code, _, err = chain()
    assert code == 2
    assert "holds the files of a chain; --resume goes on with it" in err
    code, _, err = chain("--resume", "--sample_shift", 3)
    assert code == 2
    assert "was made with another shift" in err
    made = (tmp_path / "chain/video_01_8.mp4").stat().st_mtime_ns
    code, out, err = chain("--resume")
    assert code == 0, err
    assert len(out.split()) == 3
    assert (tmp_path / "chain/video_01_8.mp4").stat().st_mtime_ns == made
    for index in (1, 2, 3):
        name = f"video_0{index}_{7 + index}"
        ours, theirs = (Image.open(tmp_path / folder / f"{name}.png") for folder in ("chain", "whole"))
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
        ours, theirs = (decoded(tmp_path / folder / f"{name}.mp4")[0] for folder in ("chain", "whole"))
        assert np.array_equal(ours, theirs)


def test_a_chain_goes_on_with_what_changes_no_result(chain, tmp_path):
    """More videos, less memory; a damaged video is made again; the log keeps all."""
    assert chain(videos=2)[0] == 0
    first, second = (tmp_path / f"chain/video_0{index}_{7 + index}.mp4" for index in (1, 2))
    whole = decoded(second)[0]
    second.write_bytes(second.read_bytes()[:500])
    code, out, err = chain("--resume", "--offload")
    assert code == 0, err
    assert "video_02_9.mp4 is damaged, and made again" in err
    assert np.array_equal(decoded(second)[0], whole)
    assert len(out.split()) == 3
    code, out, err = chain("--resume", videos=1)
    assert out.split() == [str(first)]
    assert len((tmp_path / "chain/prompts_log.txt").read_text().splitlines()) == 3
    code, _, err = chain("--resume", "--base_seed", 8)
    assert code == 2
    code, _, err = chain("--overwrite", videos=1)
    assert code == 0, err
    assert "removed" in err
    assert not second.exists()
    assert first.exists()


@pytest.mark.parametrize(("given", "origin"), [(("--base_seed", "7"), r"8 \(flag\)"), ((), r"\d+ \(drawn\)")])
def test_the_plan_of_a_chain_says_where_its_seed_is_from(capsys, tmp_path, make_video, given, origin):
    words = ["--video", make_video(), "--ckpt_dir", "tiny", "--output_dir", tmp_path / "c", "--no_vlm"]
    assert continuous([*map(str, words), *given, "--dry_run"]) == 0
    assert re.search(rf"\nseed +{origin}\n", capsys.readouterr().out)


def test_a_chain_never_removes_its_own_input(chain, tmp_path, capsys):
    assert chain(videos=1)[0] == 0
    first = tmp_path / "chain/video_01_8.mp4"
    words = [
        "--video",
        first,
        "--ckpt_dir",
        "tiny",
        "--output_dir",
        tmp_path / "chain",
        "--no_vlm",
        "--overwrite",
    ]
    assert continuous([str(word) for word in words]) == 2
    assert "would remove the chain's own input" in capsys.readouterr().err
    assert first.exists()


BAD_CHAINS = {
    "output": (("--output", "x.mp4"), "--output: a chain names its own files"),
    "task": (("--task_type", "text_to_video"), "--task_type text_to_video: must be one of v2v-14B, v2v-5B"),
    "handover": (("--handover", "latents"), "--handover latents: must be frames or mp4"),
    "no_vlm": (("--no_vlm", "--prompt", "x"), "--no_vlm: not together with --prompt"),
    "seeds": (("--base_seed", "1,2"), "--base_seed 7,1,2: one for the whole chain"),
    "resume of nothing known": (("--resume",), None),
}


@pytest.mark.parametrize("name", BAD_CHAINS)
def test_bad_chains(chain, tmp_path, name):
    words, message = BAD_CHAINS[name]
    if message is None:
        (tmp_path / "chain").mkdir()
        (tmp_path / "chain/video_01_8.mp4").write_text("")
        message = "has no readable chain.json"
    code, out, err = chain(*words)
    assert code == 2
    assert out == ""
    assert re.search(message, err), err


def test_a_chain_needs_a_video_and_a_model(capsys):
    for words, message in (
        (["--ckpt_dir", "tiny"], "--video: none given"),
        (["--video", "x"], "--ckpt_dir: none given"),
    ):
        assert continuous(words) == 2
        assert message in capsys.readouterr().err


def test_help_of_a_chain(capsys, cli):
    assert continuous(["--help", "all"]) == 0
    text = capsys.readouterr().out
    for flag in ("--num_videos", "--handover", "--concat", "--no_vlm", "--vlm_device", "--color_match"):
        assert flag in text
    assert "--save_latents" not in text
    assert (
        "used by generate_continuous"
        in cli("--task_type", "v2v-14B", "--input_video", "x", "--num_videos", 3).complaint
    )
