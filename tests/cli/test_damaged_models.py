"""Model folders whose files can be read and are not what the model needs: exit code 3, one line, no file."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.commands import R2V, command, everything_below


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def broken_model(folder: Path, change) -> Path:
    model = shutil.copytree(R2V, folder / "model")
    file = next((model / "transformer").glob("*00001*.safetensors"))
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    return model


DAMAGED = {
    "missing outside": (lambda one: one.pop("patch_embedding.bias"), "missing patch_embedding.bias"),
    "bias": (
        lambda one: one.update({"patch_embedding.bias": torch.zeros(2)}),
        "patch_embedding.bias is [2], expected [56]",
    ),
    "missing in a block": (
        lambda one: one.pop("blocks.0.attn1.to_k.bias"),
        "missing blocks.0.attn1.to_k.bias",
    ),
    "shape in a block": (
        lambda one: one.update({"blocks.1.attn1.norm_q.weight": torch.zeros(4)}),
        "blocks.1.attn1.norm_q.weight is [4], expected [56]",
    ),
    "many": (
        lambda one: [one.pop(name) for name in list(one) if name.startswith("blocks.0.attn")],
        "missing blocks.0.attn1.norm_k.weight; missing",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_plan_notices_what_does_not_fit(cli, tmp_path, case):
    change, message = DAMAGED[case]
    model = broken_model(tmp_path, change)
    next((model / "transformer").glob("*.index.json")).unlink()
    before = everything_below(tmp_path)
    finished = cli(*command({"model_id": model, "dry_run": True}))
    assert finished.code == 3
    assert message in finished.complaint
    assert finished.complaint.count(";") <= 6  # the first five, and what to do
    assert everything_below(tmp_path) == before


def test_a_tensor_too_many_is_noticed_by_the_loader(cli, tmp_path):
    model = broken_model(tmp_path, lambda tensors: tensors.update(surprise=torch.zeros(1)))
    before = everything_below(tmp_path)
    finished = cli(*command({"model_id": model}))
    assert finished.code == 3
    assert "unexpected surprise" in finished.complaint
    assert everything_below(tmp_path) == before


def test_a_config_of_more_blocks_than_there_are(cli, tmp_path):
    model = shutil.copytree(R2V, tmp_path / "model")
    file = model / "transformer/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_layers": 3}))
    finished = cli(*command({"model_id": model, "dry_run": True}))
    assert finished.code == 3
    assert (
        "transformer: its tensors do not fit together: 2 of the 3 blocks that num_layers"
        in finished.complaint
    )


def test_an_index_that_names_more_than_there_is(cli, tmp_path):
    model = shutil.copytree(R2V, tmp_path / "model")
    file = next((model / "transformer").glob("*.index.json"))
    index = json.loads(file.read_text())
    index["weight_map"]["lost.weight"] = next(iter(index["weight_map"].values()))
    file.write_text(json.dumps(index))
    finished = cli(*command({"model_id": model, "dry_run": True}))
    assert finished.code == 3
    assert f"missing lost.weight, which {file.name} names" in finished.complaint


@pytest.mark.parametrize("flag", ["transformer", "text_encoder", "vae"])
def test_files_in_place_of_components(cli, tmp_path, flag):
    tensors = {}
    for file in sorted((R2V / flag).glob("*.safetensors")):
        tensors |= load_file(file)
    save_file(tensors, tmp_path / "whole.safetensors")
    finished = cli(*command({"model_id": R2V, flag: "whole.safetensors", "dry_run": True}))
    assert finished.code == 0, finished.err
    victim = next(
        name
        for name in tensors
        if re.search(r"up_blocks.*bias|\b1\.(layer\.0\.SelfAttention|attn1\.norm)", name)
    )
    tensors[victim] = torch.zeros(2, 2)
    save_file(tensors, tmp_path / "damaged.safetensors")
    finished = cli(*command({"model_id": R2V, flag: "damaged.safetensors", "dry_run": True}))
    assert finished.code == 3
    assert f"damaged.safetensors: its tensors do not fit together: {victim} is [2, 2]" in finished.complaint


def test_a_text_file_as_tokenizer(cli, tmp_path):
    model = shutil.copytree(R2V, tmp_path / "model")
    (model / "tokenizer/tokenizer.json").write_text("what?")
    finished = cli(*command({"model_id": model}))
    assert finished.code == 3
    assert "tokenizer.json: is no JSON, or not all of it; download it again" in finished.complaint
