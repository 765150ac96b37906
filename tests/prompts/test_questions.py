"""Questions in batches: each gets the answer that it gets alone. Small random models of the real classes."""

from functools import partial

import numpy as np
import pytest
import torch

from tests.conftest import GOLDEN
from tests.tiny_chat import tiny_captioner, tiny_chat_model
from videogen.errors import OutOfMemoryError, VideoGenError
from videogen.media.frames import FrameArray
from videogen.prompts import caption, internvl
from videogen.prompts.chat import Chat
from videogen.prompts.chat_models import FRAMES_CHAT, VIDEO_CHAT, find_model
from videogen.prompts.questions import Question, ask, ask_in_batches

ABOUT = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Describe it."}]}]
SIZES = ((4, 56, 84), (2, 420, 360), (6, 90, 30))  # frames, height, width


def video(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def text_question(chat, words):
    inputs = chat.inputs([{"role": "user", "content": words}])
    return Question(inputs=inputs, options={"max_new_tokens": 40, "temperature": 0.7}, read=str)


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    with Chat(find_model("--prompt_enhancer", str(tiny_chat_model(tmp_path_factory.mktemp("chat"))))) as chat:
        yield chat


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    found = find_model("--vlm_path", str(tiny_captioner(tmp_path_factory.mktemp("vlm"))), VIDEO_CHAT)
    with Chat(found) as chat:
        yield chat


@pytest.mark.parametrize("temperature", [0, 0.05, 2.0])
def test_videos_of_several_lengths_and_sizes(captioner, temperature):
    inputs = [captioner.inputs(ABOUT, caption.video_inputs(video(size))) for size in SIZES]
    assert len({one["input_ids"].shape for one in inputs}) == 3
    how = {"max_new_tokens": 16, "temperature": temperature, "seed": 3}
    alone = [captioner.reply(one, **how) for one in inputs]
    assert len(set(alone)) == 3
    state = torch.get_rng_state()
    assert captioner.replies(inputs, **how) == alone
    assert captioner.replies(inputs[::-1], **how) == alone[::-1]
    assert torch.equal(torch.get_rng_state(), state)


@torch.no_grad()
def test_the_logits_of_a_batch_are_those_of_each_alone(captioner, monkeypatch):
    inputs = [captioner.inputs(ABOUT, caption.video_inputs(video(size))) for size in SIZES]
    seen = []
    generate = captioner.model.generate

    def watched(**options):
        seen.append(generate(**options, return_dict_in_generate=True, output_logits=True))
        return seen[-1].sequences

    monkeypatch.setattr(captioner.model, "generate", watched)
    how = {"max_new_tokens": 4, "temperature": 0, "seed": 0}
    captioner.replies(inputs, **how)
    for row, one in enumerate(inputs):
        captioner.reply(one, **how)
        for together, alone in zip(seen[0].logits, seen[-1].logits, strict=False):
            torch.testing.assert_close(together[row], alone[0], atol=2e-5, rtol=1e-5)


def test_frames_for_internvl(monkeypatch):
    monkeypatch.setattr(internvl, "MAX_TOKENS", 24)
    with Chat(find_model("--vlm_path", str(GOLDEN / "wan22/checkpoint-internvl-hf"), FRAMES_CHAT)) as chat:
        sources = [FrameArray(video(size)) for size in SIZES]
        questions = [partial(internvl.question, source, chat) for source in sources]
        alone = [ask(question(), chat, seed=0) for question in questions]
        assert len(set(alone)) == 3
        assert list(ask_in_batches(questions, chat, size=2, seed=0)) == alone


def test_texts_end_where_they_end_alone(chat):
    inputs = [
        chat.inputs([{"role": "user", "content": words}]) for words in ("a", "a cat runs", "hello " * 9)
    ]
    how = {"max_new_tokens": 40, "temperature": 0.7, "seed": 2}
    alone = [chat.reply(one, **how) for one in inputs]
    assert len({len(text) for text in alone}) == 3
    assert chat.replies(inputs, **how) == alone
    stop = alone[1][4:6]
    cut = [text.partition(stop)[0].strip() for text in alone]
    assert (
        chat.replies(inputs, **how, stop=stop) == [chat.reply(one, **how, stop=stop) for one in inputs] == cut
    )


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_an_error_or_a_known_answer_is_that_of_its_own_place(chat, size):
    def unreadable():
        raise VideoGenError("not this one")

    def refused():
        def refuse(text):
            raise VideoGenError("not this reply")

        question = text_question(chat, "c")
        return Question(inputs=question.inputs, options=question.options, read=refuse)

    good = [partial(text_question, chat, words) for words in ("a", "bb", "ccc")]
    alone = [ask(question(), chat, seed=0) for question in good]
    mixed = (good[0], unreadable, lambda: "-", good[1], refused, good[2])
    answers = list(ask_in_batches(mixed, chat, size=size, seed=0))
    assert [answers[index] for index in (0, 3, 5)] == alone
    assert answers[2] == "-"
    assert [str(answers[index]) for index in (1, 4)] == ["not this one", "not this reply"]
    (answer,) = ask_in_batches([unreadable], chat, size=size, seed=0)
    assert isinstance(answer, VideoGenError)


def test_batches_are_halved_until_they_fit(chat, monkeypatch, caplog):
    questions = [partial(text_question, chat, "a" * count) for count in range(1, 8)]
    alone = [ask(question(), chat, seed=0) for question in questions]
    generate, tried = chat.model.generate, []

    def limited(**options):
        tried.append(len(options["input_ids"]))
        if tried[-1] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(**options)

    monkeypatch.setattr(chat.model, "generate", limited)
    limit = 2
    assert list(ask_in_batches(questions, chat, size=6, seed=0)) == alone
    assert tried == [6, 3, 2, 2, 2, 1]
    assert "out of memory; asked in batches of 2 from here on" in caplog.text
    limit = 0
    with pytest.raises(OutOfMemoryError, match="give a smaller model"):
        list(ask_in_batches(questions, chat, size=2, seed=0))
