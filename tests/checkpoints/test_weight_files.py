"""Which files of a folder are read, and what files are that hold something else than their name says."""

import argparse
import json

import pytest
import torch
from safetensors.torch import save_file

from videogen.checkpoints.json_files import read_json
from videogen.checkpoints.tensor_headers import check, tensor_infos, tensor_shapes
from videogen.checkpoints.weight_files import find
from videogen.errors import CheckpointError

WHOLE = "diffusion_pytorch_model"


def write(folder, *names, tensor="w"):
    for name in names:
        save_file({tensor: torch.zeros(2)}, folder / name)


def write_index(folder, shards, stem=WHOLE, suffix=".safetensors"):
    table = {f"t{number}": shard for number, shard in enumerate(shards)}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"weight_map": table}))


def shards(count, stem=WHOLE, suffix=".safetensors"):
    return [f"{stem}-{number:05}-of-{count:05}{suffix}" for number in range(1, count + 1)]


def names(found):
    return [path.name for path in found.files]


def test_an_index_is_obeyed(tmp_path):
    write(tmp_path, *shards(2), "stray.safetensors")
    write_index(tmp_path, shards(2))
    found = find(tmp_path)
    assert names(found) == shards(2)
    assert found.passed_over == (
        f"stray.safetensors is not read: {WHOLE}.safetensors.index.json does not list it",
    )


def test_a_stale_index_beside_a_whole_file(tmp_path):
    write(tmp_path, f"{WHOLE}.safetensors", shards(2)[0])
    write_index(tmp_path, shards(2))
    found = find(tmp_path)
    assert names(found) == [f"{WHOLE}.safetensors"]
    assert found.missing is None
    assert "out of date and not used" in found.passed_over[0]


@pytest.mark.parametrize("indexed", [True, False])
def test_a_lost_shard_is_missing(tmp_path, indexed):
    write(tmp_path, shards(3)[0])
    if indexed:
        write_index(tmp_path, shards(3))
    assert find(tmp_path).missing == f"{shards(3)[1]} and 1 more shards"


def test_a_left_over_shard_beside_a_whole_file(tmp_path):
    write(tmp_path, f"{WHOLE}.safetensors", shards(2)[0])
    found = find(tmp_path)
    assert names(found) == [f"{WHOLE}.safetensors"]
    assert shards(2)[0] in found.passed_over[0]


def test_pickles_of_save_pretrained(tmp_path):
    stem = "pytorch_model"
    for shard in shards(2, stem, ".bin"):
        torch.save({shard: torch.zeros(1)}, tmp_path / shard)
    write_index(tmp_path, shards(2, stem, ".bin"), stem, ".bin")
    assert names(find(tmp_path)) == shards(2, stem, ".bin")
    (tmp_path / shards(2, stem, ".bin")[1]).unlink()
    assert find(tmp_path).missing == shards(2, stem, ".bin")[1]


def test_two_files_with_one_tensor(tmp_path):
    write(tmp_path, "a.safetensors", "b.safetensors")
    with pytest.raises(CheckpointError, match=r"a.safetensors and b.safetensors both hold w, and no index"):
        tensor_infos(find(tmp_path).files)


def test_files_of_another_kind_are_named(tmp_path):
    write(tmp_path, "a.safetensors")
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    torch.save({"w": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    found = find(tmp_path)
    assert names(found) == ["a.safetensors"]
    assert found.passed_over == ("b.gguf, pytorch_model.bin are not read: a.safetensors is",)
    assert found.strays == {tmp_path / "b.gguf", tmp_path / "pytorch_model.bin"}


def test_metadata_of_macos_is_passed_over(tmp_path):
    write(tmp_path, "a.safetensors")
    (tmp_path / "._a.safetensors").write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    found = find(tmp_path)
    assert names(found) == ["a.safetensors"]
    assert found.passed_over == ("._a.safetensors is macOS metadata and not read",)


@pytest.mark.parametrize(
    "name", ["a.safetensors.crdownload", "a.safetensors.part", "a.safetensors.incomplete"]
)
def test_a_download_that_did_not_finish(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    assert f"{name} is a download that did not finish" in find(tmp_path).missing


CONTENTS = {
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
    "page": (b"\n<!DOCTYPE html><html>Login</html>", "web page"),
    "xml": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "web page"),
    "macOS": (b"\x00\x05\x16\x07" + bytes(40), "macOS metadata"),
    "zeros": (bytes(1000), "begins with zeros"),
    "empty": (b"", "is empty"),
    "text": (b"Invalid username or password.\r\n", "is a text .'Invalid username or password"),
    "JSON": (b'{"error": "Entry not found"}', "is a text .*Entry not found.*download it again"),
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.bin", "w.gguf"])
def test_a_file_is_called_what_it_is(tmp_path, kind, name):
    content, message = CONTENTS[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        check(tmp_path / name)


def test_weights_under_the_suffix_of_others(tmp_path):
    save_file({"w": torch.zeros(2)}, tmp_path / "w.safetensors")
    torch.save({"w": torch.zeros(2)}, tmp_path / "w.pt")
    (tmp_path / "w.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(40))
    for kind, other in (("safetensors", "bin"), ("pt", "safetensors"), ("gguf", "safetensors")):
        file = tmp_path / f"renamed.{other}"
        file.write_bytes((tmp_path / f"w.{kind}").read_bytes())
        with pytest.raises(CheckpointError, match=rf"holds what belongs in a \.{kind} file; rename it"):
            check(file)
    (tmp_path / "w.pt").rename(tmp_path / "w.bin")
    check(tmp_path / "w.bin")


def test_a_config_that_is_a_pointer(tmp_path):
    (tmp_path / "config.json").write_bytes(CONTENTS["LFS"][0])
    with pytest.raises(CheckpointError, match="git lfs pull"):
        read_json(tmp_path / "config.json")


def test_a_truncated_file_says_how_much_is_there(tmp_path):
    save_file({"w": torch.zeros(1000)}, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(whole[:1500])
    with pytest.raises(CheckpointError, match=rf"1,500 of its {len(whole):,} bytes are there"):
        check(tmp_path / "w.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapper", ["state_dict", "model", None])
def test_headers_of_pickles(tmp_path, zipped, wrapper):
    tensors = {
        "w": torch.zeros(2, 3),
        "half": torch.zeros(4, dtype=torch.float16),
        "p": torch.nn.Parameter(torch.ones(1)),
    }
    content = {wrapper: tensors, "epoch": 3, "optimizer": {"state": {}}} if wrapper else tensors
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert tensor_shapes([tmp_path / "w.pt"]) == {"w": (2, 3), "half": (4,), "p": (1,)}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_by_its_header(tmp_path, zipped):
    """As the reader of its tensors does, which comes later."""
    content = {"w": torch.zeros(2), "args": argparse.Namespace(lr=1)}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="refused, because reading this pickle would run code"):
        tensor_shapes([tmp_path / "w.pt"])
