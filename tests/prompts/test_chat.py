"""Replies of chat models, and enhanced prompts: small random models of the real classes, from disk."""

import json
import weakref

import pytest
import torch

from tests.tiny_chat import TEXT, tiny_chat_model
from videogen.errors import CheckpointError, OutOfMemoryError, VideoGenError
from videogen.prompts.chat import Chat
from videogen.prompts.chat_models import TEXT_CHAT, find_model
from videogen.prompts.enhance import enhance

FLAG = "--enhancer_model"


HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_chat_model(tmp_path_factory.mktemp("chat") / "tiny-chat")


@pytest.fixture(scope="module")
def chat(folder):
    with Chat(find_model(FLAG, str(folder))) as chat:
        yield chat


def test_replies_follow_the_seed_alone(chat):
    def reply(seed, temperature=None):
        return chat.reply(chat.inputs(HELLO), max_new_tokens=8, temperature=temperature, seed=seed)

    state = torch.get_rng_state()
    replies = [reply(seed) for seed in range(4)]
    assert len(set(replies)) == 4
    torch.manual_seed(7)
    assert [reply(seed) for seed in range(4)] == replies
    torch.set_rng_state(state)
    reply(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert len({reply(seed, 1e-4) for seed in range(4)}) == 1 < len({reply(seed, 9.0) for seed in range(4)})


def test_only_the_new_text_is_given_back(chat):
    def reply(max_new_tokens, **options):
        return chat.reply(
            chat.inputs(HELLO), max_new_tokens=max_new_tokens, temperature=None, seed=2, **options
        )

    long = reply(40)
    assert len(long) > 7 and reply(3) == long[:3]
    stop = long[5:7]
    assert reply(40, stop=stop) == long[: long.index(stop)]
    assert not any(token in long for token in ("hello", "<|im_start|>", "<pad>"))


def test_memory_is_given_back(folder):
    chat = Chat(find_model(FLAG, str(folder)))
    for _ in range(2):
        with chat as entered:
            entered.reply(entered.inputs(HELLO), max_new_tokens=2, temperature=None, seed=0)
            model = weakref.ref(entered.model)
        assert model() is None
    assert chat.model is None


def test_memory_is_explained_when_it_is_short(chat, monkeypatch):
    def full(**_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(chat.model, "generate", full)
    with pytest.raises(OutOfMemoryError, match=f"^{FLAG} .*: out of memory on cpu; give a smaller model"):
        chat.reply(chat.inputs(HELLO), max_new_tokens=2, temperature=None, seed=0)


def failure(folder, kind=TEXT_CHAT):
    with pytest.raises(CheckpointError) as caught, Chat(find_model(FLAG, str(folder), kind)):
        pass
    return str(caught.value)


def test_models_that_cannot_chat_are_refused(tmp_path):
    folder = tiny_chat_model(tmp_path, template=None)
    assert "its tokenizer has no chat template" in failure(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEXT}))
    with Chat(find_model(FLAG, str(folder))) as chat:
        assert enhance("a cat", chat)
    strict = tiny_chat_model(tmp_path / "strict", template="{{ raise_exception('no system role') }}")
    with (
        Chat(find_model(FLAG, str(strict))) as chat,
        pytest.raises(CheckpointError, match=r"does not take these messages \(no system role"),
    ):
        enhance("a cat", chat)


def test_weights_that_do_not_fit_are_refused(tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    folder = tiny_chat_model(tmp_path, tied=True)
    with Chat(find_model(FLAG, str(folder))) as chat:  # the tied head has no tensor of its own
        assert enhance("a cat", chat)
    tensors = load_file(folder / "model.safetensors")
    capsys.readouterr()
    norm = tensors.pop("model.norm.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "1 tensors are missing or of another shape (model.norm.weight)" in failure(folder)
    tensors["model.norm.weight"] = norm[:-1].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "1 tensors are missing or of another shape (model.norm.weight)" in failure(folder)
    assert capsys.readouterr().err == ""
    (folder / "tokenizer.json").write_text("{}")
    assert "cannot be loaded (" in failure(folder)


def test_enhance_asks_for_the_stripped_prompt_and_answers_in_one_line(chat, monkeypatch):
    caption = enhance("  a {cat} \n", chat, seed=3)
    assert caption == enhance("a {cat}", chat, seed=3) != enhance("a dog", chat, seed=3)
    asked = []

    def reply(messages, **options):
        asked.append((messages, options))
        return "A close-up\nof a  cat.\n\nIt purrs."

    monkeypatch.setattr(chat, "inputs", lambda messages: messages)
    monkeypatch.setattr(chat, "reply", reply)
    assert enhance(" a {cat}\n", chat) == "A close-up of a cat. It purrs."
    (system, user), options = asked[0]
    assert "helpful assistant" in system["content"] and "[a {cat}]" in user["content"]
    assert options == {"max_new_tokens": 2048, "temperature": None, "seed": 0}
    monkeypatch.setattr(chat, "reply", lambda *_, **__: "")
    with pytest.raises(VideoGenError, match="replied with nothing"):
        enhance("a cat", chat)
