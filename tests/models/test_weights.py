"""Weight files: strict, mapped, cast one tensor at a time, and never a pickle that would run code."""

import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import GOLDEN
from videogen.errors import CheckpointError
from videogen.models.components import load_component
from videogen.models.weight_loader import _headers

R2V = GOLDEN / "skyreels_v3/checkpoint-r2v"
SHARD = "diffusion_pytorch_model-00001-of-00002.safetensors"


@pytest.fixture
def transformer(tmp_path):
    return shutil.copytree(R2V / "transformer", tmp_path / "transformer")


def edit(file, change):
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_missing_tensor(transformer):
    edit(transformer / SHARD, lambda tensors: tensors.pop("patch_embedding.bias"))
    with pytest.raises(CheckpointError, match=r"does not fit.*missing patch_embedding.bias"):
        load_component("transformer", transformer)


def test_unexpected_tensor(transformer):
    edit(transformer / SHARD, lambda tensors: tensors.update(extra=torch.zeros(1)))
    with pytest.raises(CheckpointError, match="unexpected extra"):
        load_component("transformer", transformer)


def test_wrong_shape_says_both(transformer):
    edit(transformer / SHARD, lambda tensors: tensors.update({"patch_embedding.bias": torch.zeros(3)}))
    with pytest.raises(CheckpointError, match=r"patch_embedding.bias is \[3\], expected \[56\]"):
        load_component("transformer", transformer)


def test_only_the_first_problems_are_listed(transformer):
    edit(transformer / SHARD, lambda tensors: [tensors.pop(key) for key in list(tensors)[:9]])
    with pytest.raises(CheckpointError, match="and 4 more"):
        load_component("transformer", transformer)


def test_a_lost_shard_is_not_a_smaller_model(transformer):
    (transformer / SHARD).unlink()
    with pytest.raises(CheckpointError, match="missing"):
        load_component("transformer", transformer)


def test_truncated_safetensors(transformer):
    file = transformer / SHARD
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="broken or truncated"):
        load_component("transformer", transformer)


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, new_format):
    file, marker = tmp_path / "Wan2.1_VAE.pth", tmp_path / "ran"
    torch.save({"w": Bomb(marker)}, file, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match="refused, because reading this pickle would run code"):
        load_component("vae", file)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1, 2])])
def test_not_a_state_dict(tmp_path, content):
    file = tmp_path / "Wan2.1_VAE.pth"
    file.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_component("vae", file)


def test_truncated_pickle(tmp_path):
    file = tmp_path / "Wan2.1_VAE.pth"
    file.write_bytes((GOLDEN / "skyreels_v3/checkpoint-v2v/Wan2.1_VAE.pth").read_bytes()[:50_000])
    with pytest.raises(CheckpointError, match="broken or truncated"):
        load_component("vae", file)


def test_names_of_another_model(tmp_path):
    save_file({"what.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="tensor names of no known model"):
        load_component("transformer", tmp_path)


def test_a_config_that_describes_nothing(transformer):
    (transformer / "config.json").write_text('{"num_attention_heads": 0}')
    with pytest.raises(CheckpointError, match="its config does not describe"):
        load_component("transformer", transformer)


def test_weights_are_mapped_not_copied():
    """Where the dtype fits, the tensors share the file's pages."""
    model = load_component("transformer", R2V / "transformer", torch.float32)
    maps = (f"/proc/{os.getpid()}/maps",)
    with open(maps[0]) as lines:  # noqa: PTH123 - a kernel file
        mapped = [line for line in lines if SHARD in line]
    assert mapped
    start, end = (int(part, 16) for part in mapped[0].split()[0].split("-"))
    assert start <= model.patch_embedding.weight.data_ptr() < end


@pytest.mark.parametrize("padding", [0, 3])
def test_files_of_other_writers_need_not_be_aligned(tmp_path, padding):
    """The header's length decides where the numbers begin."""
    tensors = {"patch": torch.arange(6, dtype=torch.float32).view(2, 3), "none": torch.zeros(0, 4)}
    file = tmp_path / "a.safetensors"
    save_file(tensors, file)
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length] + b" " * padding
    file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    found = {entry.key: entry.read() for entry in _headers(file)}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_bfloat16_keeps_float32_islands():
    model = load_component("transformer", R2V / "transformer", torch.bfloat16)
    kept = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.float32}
    assert any("time_embedder" in name for name in kept)
    assert any("time_proj" in name for name in kept)
    assert "blocks.0.scale_shift_table" in kept
    assert "blocks.0.norm2.weight" in kept
    rest = {parameter.dtype for name, parameter in model.named_parameters() if name not in kept}
    assert rest == {torch.bfloat16}
    assert load_component("vae", R2V / "vae", torch.bfloat16).dtype == torch.float32


def test_float16_text_encoder_is_bfloat16():
    assert load_component("text_encoder", R2V / "text_encoder", torch.float16).dtype == torch.bfloat16


def test_tied_embedding_under_either_name(tmp_path):
    folder = shutil.copytree(R2V / "text_encoder", tmp_path / "text_encoder")
    expected = load_component("text_encoder", folder).shared.weight

    def rename(tensors):
        tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")

    edit(folder / "model.safetensors", rename)
    loaded = load_component("text_encoder", folder)
    assert torch.equal(loaded.shared.weight, expected)
    assert loaded.encoder.embed_tokens.weight is loaded.shared.weight
