"""Finding the models that write prompts: small models of the real classes, in folders and the cache."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.tiny_chat import tiny_captioner, tiny_chat_model
from videogen.errors import CheckpointError, brief
from videogen.prompts.chat_models import TEXT_CHAT, VIDEO_CHAT, FoundModel, fetch, find_model

FLAG = "--enhancer_model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_chat_model(tmp_path_factory.mktemp("chat") / "tiny-chat")


def test_judging_a_model_imports_nothing_heavy(folder):
    code = (
        "import sys; from videogen.prompts import chat_models, roles;"
        f"chat_models.find_model('{FLAG}', {str(folder)!r}); chat_models.find_model('{FLAG}', 'owner/name');"
        "sys.exit(str({'torch', 'transformers', 'diffusers', 'PIL', 'einops'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stderr.strip() == "set()"


def refusal(path, kind=TEXT_CHAT):
    with pytest.raises(CheckpointError) as caught:
        find_model(FLAG, str(path), kind)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_path_must_be_a_whole_model_folder(folder, tmp_path):
    assert refusal(tmp_path / "x").startswith(
        f"{FLAG} {brief(tmp_path / 'x')}: no such folder; give a folder with"
    )
    assert refusal(folder.parent / "tiny-chot").endswith(f"no such folder; nearest {folder}")
    assert "no such folder" in refusal("./owner/name")
    assert "is a file" in refusal(folder / "config.json")
    assert "has no config.json" in refusal(tmp_path)
    assert refusal("").startswith(f"{FLAG} '': ")
    for word in ("Qwen2.5-32B-Instruct", "a b/c", "https://hf.co/a/b"):
        assert refusal(word).endswith("(default Qwen/Qwen2.5-32B-Instruct)")


def test_an_incomplete_or_broken_folder_is_refused(tmp_path):
    folder = tiny_chat_model(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    assert "missing tokenizer.json; download it again" in refusal(folder)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    assert "missing model-1.safetensors and 1 more shards" in refusal(folder)
    index.unlink()
    tiny_chat_model(folder)
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "model.safetensors: is a Git LFS pointer" in refusal(folder)
    (folder / "model.safetensors").unlink()
    assert "missing *.safetensors" in refusal(folder)


def test_a_model_of_another_kind_is_refused(folder, tmp_path):
    captioner = tiny_captioner(tmp_path)
    assert "is a Qwen2ForCausalLM, not a Qwen2.5-VL model" in refusal(folder, VIDEO_CHAT)
    assert "is a Qwen2_5_VLForConditionalGeneration, not a text chat model" in refusal(captioner)
    assert find_model(FLAG, str(captioner), VIDEO_CHAT).folder == captioner


def test_a_hub_model_comes_from_the_cache_or_is_explained_away(folder, tmp_path, monkeypatch):
    found = find_model(FLAG, "owner/name")
    assert found == FoundModel(flag=FLAG, name="owner/name", kind=TEXT_CHAT)
    with pytest.raises(CheckpointError, match=rf"^{FLAG} owner/name: not in the cache, and HF_HUB_OFFLINE"):
        fetch(found)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit, repository = "0" * 40, tmp_path / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    assert find_model(FLAG, "owner/name").folder is None  # interrupted download
    tiny_chat_model(snapshot)
    found = find_model(FLAG, "owner/name")
    assert (found.folder, found.revision) == (snapshot, commit)
