"""Prompts longer than their encoder reads are cut with a line that quotes the first words lost."""

import json
import re

import pytest
import torch
from transformers import AutoTokenizer, CLIPTokenizer

import videogen
from tests.conftest import GOLDEN, REFS
from videogen.models.wan.text import encode_prompt
from videogen.tasks.prompt_text import clean_prompt

DF = GOLDEN / "skyreels_v2" / "checkpoint-SkyReels-V2-DF-1.3B-540P"
HUNYUAN = GOLDEN / "hunyuan" / "checkpoint-A"
WORDS = " ".join(f"word{number} &amp; more" for number in range(400))
SHORT = ("--num_frames", 5, "--height", 64, "--width", 64, "--num_inference_steps", 1, "--device", "cpu")


def warnings(err):
    return [line for line in err.splitlines() if line.startswith("warning: ")]


def lost(line):
    """What a line quotes, without the ellipsis."""
    return re.search(r"not '(.*)…'$", line)[1]


def test_what_is_quoted_is_what_the_encoder_does_not_see(cli):
    finished = cli(
        "--task_type", "diffusion_forcing", "--model_id", DF, "--prompt", WORDS, *SHORT, "--dry_run"
    )
    (line,) = warnings(finished.err)
    assert line.startswith("warning: --prompt is too long: the text encoder reads 511 of its ")
    text, tokenizer = clean_prompt(WORDS), AutoTokenizer.from_pretrained(DF / "google" / "umt5-xxl")
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, begin = encoded.input_ids, text.index(lost(line))
    assert begin <= encoded.offset_mapping[511][0] < begin + len("word99 ")  # from the word that is cut
    assert f"reads 511 of its {len(ids)} tokens" in line


class Ids(torch.nn.Module):
    """An encoder that returns its tokens."""

    def forward(self, ids, attention_mask):
        return type("Output", (), {"last_hidden_state": (ids * attention_mask)[..., None].float()})


@pytest.mark.parametrize(("count", "cut"), [(511, False), (512, True)])
def test_the_limit_is_the_encoders(cli, count, cut):
    """One token more, and the embedding is that of a shorter prompt."""
    tokenizer = AutoTokenizer.from_pretrained(DF / "google" / "umt5-xxl")
    text = ""
    while len(tokenizer(text, add_special_tokens=False).input_ids) < count:
        text += "ab "[len(text) % 3]
    text = text.strip()
    count = len(tokenizer(text, add_special_tokens=False).input_ids)
    whole = [encode_prompt(tokenizer, Ids(), said, torch.device("cpu")) for said in (text, text + "b")]
    if count > 511:
        assert torch.equal(*whole)
    finished = cli(
        "--task_type", "diffusion_forcing", "--model_id", DF, "--prompt", text, *SHORT, "--dry_run"
    )
    assert bool(warnings(finished.err)) is (count > 511) is cut


def test_every_prompt_of_a_file(cli, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text(f"a cat\n{WORDS}\n\na dog {WORDS}\n", encoding="utf-8")
    words = ("--roll_prompts", file, "--negative_prompt", f"blur {WORDS}", "--num_frames", 41)
    rolls = ("--base_num_frames", 17, "--overlap_history", 9, *SHORT[2:], "--dry_run", "--json")
    finished = cli("--task_type", "diffusion_forcing", "--model_id", DF, *words, *rolls)
    assert finished.code == 0, finished.err
    names = [re.match(r"warning: (--\w+(?: line \d)?) is too long", line) for line in warnings(finished.err)]
    assert [name[1] for name in names if name] == [
        "--negative_prompt", "--roll_prompts line 2", "--roll_prompts line 4"
    ]  # fmt: skip
    assert sum("is too long" in note for note in json.loads(finished.out)["notes"]) == 3


def test_a_file_of_jobs(cli, tmp_path):
    file = tmp_path / "jobs.txt"
    file.write_text(f"a cat\nfirst {WORDS}\nthe second {WORDS}\n", encoding="utf-8")
    finished = cli("--task_type", "diffusion_forcing", "--model_id", DF, "--jobs", file, *SHORT, "--dry_run")
    assert len({*map(lost, warnings(finished.err))}) == 2


def test_hunyuan_has_two_encoders(cli):
    words = ("--input_image", REFS / "robot.png", "--num_frames", 5, "--num_inference_steps", 1)
    finished = cli("--model_id", HUNYUAN, "--task_type", "hunyuan_image_to_video", "--prompt", WORDS, *words,
                   "--dry_run")  # fmt: skip
    (line,) = (line for line in warnings(finished.err) if "too long" in line)
    llava = AutoTokenizer.from_pretrained(HUNYUAN / "text_encoder_i2v")
    clip = CLIPTokenizer.from_pretrained(HUNYUAN / "text_encoder_2")
    for tokenizer, most, name in ((llava, 256, "the text encoder"), (clip, 75, "the second text encoder")):
        count = len(tokenizer(WORDS, add_special_tokens=False).input_ids)
        assert f"{name} reads {most} of its {count} tokens, and not '" in line


def test_the_sidecar_and_python_say_it_too(cli, tmp_path, caplog):
    output = tmp_path / "a.npy"
    finished = cli("--task_type", "text_to_video", "--model_id", "tiny", "--prompt", WORDS, *SHORT,
                   "--output", output)  # fmt: skip
    assert finished.code == 0, finished.err
    (line,) = warnings(finished.err)
    assert json.loads(output.with_suffix(".json").read_text())["warnings"] == [line.removeprefix("warning: ")]
    caplog.clear()
    pipeline = videogen.load("text_to_video", "tiny", dtype=torch.float32, device="cpu")
    size = {"height": 64, "width": 64, "num_frames": 5, "num_inference_steps": 1}
    pipeline(WORDS, **size, output_type="latent")
    assert "prompt= is too long: the text encoder reads 511 of its" in caplog.text
