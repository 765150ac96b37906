"""Captions of videos: structural ones from a small random model of the real class, and captions in prose."""

import json
import random

import numpy as np
import pytest
import torch

from tests.tiny_chat import TEXT, tiny_captioner, tiny_chat_model
from videogen.errors import VideoGenError
from videogen.prompts import caption as captions
from videogen.prompts.chat import Chat
from videogen.prompts.chat_models import VIDEO_CHAT, find_model
from videogen.prompts.questions import ask

FLAG = "--enhancer_model"


SUBJECT = {
    "appearance": "red coat",
    "action": "waves",
    "expression": "smiles",
    "position": "left",
    "TYPES": {"type": "Human", "sub_type": "Woman"},
    "is_main_subject": True,
}


CAPTION = {
    "subjects": [SUBJECT],
    "shot_type": "close_up",
    "shot_angle": "eye_level",
    "shot_position": "front_view",
    "camera_motion": "the camera pans left",
    "environment": "a street",
    "lighting": "dusk",
}


class Certain(random.Random):
    """Draws one number for ever."""

    def __init__(self, number: float):
        super().__init__()
        self.number = number

    def random(self):
        return self.number


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_chat_model(tmp_path_factory.mktemp("chat") / "tiny-chat")


@pytest.fixture(scope="module")
def chat(folder):
    with Chat(find_model(FLAG, str(folder))) as chat:
        yield chat


@pytest.fixture
def captioner(tmp_path):
    with Chat(find_model("--captioner", str(tiny_captioner(tmp_path)), VIDEO_CHAT)) as chat:
        yield chat


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (16, 420, 360, 3), dtype=np.uint8)


def test_sample_indices():
    assert captions.sample_indices(17) == list(range(16))
    assert captions.sample_indices(1) == [0] * 16
    assert captions.sample_indices(97) == [0, 6, 12, 18, 24, 30, 36, 42, 48, 54, 60, 66, 72, 78, 84, 90]
    assert captions.sample_indices(9) == [0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6, 6, 6, 7, 8]  # halves to even


@pytest.mark.parametrize("size", [(420, 360), (100, 150)])
def test_patches_are_those_of_transformers(size):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    frames = np.random.default_rng(1).integers(0, 256, (4, *size, 3), dtype=np.uint8)
    ours = captions.video_inputs(frames)
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28})
    theirs = processor(list(frames), return_tensors="pt")
    grid = theirs["image_grid_thw"][0].tolist()
    assert ours["video_grid_thw"].tolist() == [[2, *grid[1:]]]
    # An image is a video of two equal frames: the first of each patch is taken here, from every frame.
    single = theirs["pixel_values"].reshape(2, 2, -1, 3, 2, 196)[..., 0, :]
    expected = single.permute(0, 2, 3, 1, 4).reshape(-1, 3 * 2 * 196)
    torch.testing.assert_close(ours["pixel_values_videos"], expected, atol=1e-5, rtol=0)
    assert ours["second_per_grid_ts"].tolist() == [1.0]


def test_the_captioner_sees_the_video_in_space_and_time(captioner, frames):
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Describe it."}]}]
    video = captions.video_inputs(frames)
    inputs = captioner.inputs(messages, video)
    pad = captioner.model.config.video_token_id
    assert (inputs["input_ids"] == pad).sum() == (inputs["mm_token_type_ids"] == 2).sum() == 8 * 15 * 13
    text = captioner.tokenizer.decode(inputs["input_ids"][0])
    assert text.startswith("<|im_start|>user\n<|vision_start|><|video_pad|>")
    assert text.endswith("<|video_pad|><|vision_end|>Describe it.<|im_end|>\n<|im_start|>assistant\n")
    reply = captioner.reply(inputs, max_new_tokens=12, temperature=0.05, seed=0)
    positions, delta = captioner.model.model.get_rope_index(
        **{name: inputs[name] for name in ("input_ids", "mm_token_type_ids", "video_grid_thw")},
        second_per_grid_ts=inputs["second_per_grid_ts"],
    )
    assert torch.equal(captioner.model.model.rope_deltas, delta)
    assert delta.item() == 15 - 8 * 15 * 13  # a video takes as many positions as its longer side
    seen = positions[0, 0][inputs["input_ids"][0] == pad]
    assert torch.equal((seen - seen[0]).unique(), torch.arange(8) * 4)  # 4 positions a second
    dark = captioner.inputs(messages, captions.video_inputs(np.zeros_like(frames)))
    assert reply != captioner.reply(dark, max_new_tokens=12, temperature=0.05, seed=0)


def test_a_template_for_text_alone_gives_the_same_tokens(captioner, frames):
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Describe it."}]}]
    video = captions.video_inputs(frames[:2])
    expected = captioner.inputs(messages, video)["input_ids"]
    for template in (TEXT, TEXT.replace("m['content'] }}", "m['content'] + '' }}")):
        captioner.tokenizer.chat_template = template
        assert torch.equal(captioner.inputs(messages, video)["input_ids"], expected)


def test_a_reply_that_is_not_json_is_quoted(captioner, frames):
    with pytest.raises(VideoGenError, match=r"reply is not the JSON asked for \(\S{10,}"):
        ask(captions.question(frames, captioner), captioner, seed=0)
    with pytest.raises(VideoGenError) as caught:
        captions.parse("no " * 400)
    assert "no n…); give" in str(caught.value) and len(str(caught.value)) < 300


def test_json_is_found_in_whatever_is_around_it():
    text = json.dumps(CAPTION)
    spread = json.dumps(CAPTION, indent=2).replace("red coat", "red\ncoat")
    assert captions.parse(text) == CAPTION
    assert captions.parse(f"Here {{it}} is:\n```json\n{text}\n```\nAnything else?") == CAPTION
    assert captions.parse(spread)["subjects"][0]["appearance"] == "red\ncoat"
    for broken in (text[:-20], "[]", "{}", '{"subjects": 3}', '{"subjects": ["a"]}', "", "{" * 3000):
        with pytest.raises(VideoGenError, match="not the JSON asked for"):
            captions.parse(broken)


def test_fields_must_have_the_right_type():
    subject = {"TYPES": {"type": None}, "extra": 1}
    parsed = captions.parse(json.dumps({"subjects": [subject], "lighting": None, "extra": 1}))
    assert parsed["lighting"] == parsed["shot_type"] == "" and "extra" not in parsed
    assert parsed["subjects"][0]["TYPES"] == {"type": "", "sub_type": ""}
    for wrong in (
        {"lighting": 3},
        {"subjects": [{"action": ["runs"]}]},
        {"subjects": [{"TYPES": "Human"}]},
        {"subjects": [{"is_main_subject": "yes"}]},
        {"subjects": [{"TYPES": {"type": 1}}]},
    ):
        with pytest.raises(VideoGenError, match="the reply has a "):
            captions.parse(json.dumps({"subjects": [], **wrong}))


def test_clean_for_text_to_video():
    kept = captions.clean(CAPTION, "t2v", Certain(0.1))
    woman = {"name": "Woman", "action": "waves", "expression": "smiles"}
    scene = {"shot_type": "close_up", "shot_angle": "eye_level", "shot_position": "front_view"}
    look = {"appearance": "red coat", "position": "left"}
    assert kept == {"subjects": [woman | look], **scene, "environment": "a street", "lighting": "dusk"}
    dropped = captions.clean(CAPTION, "t2v", Certain(0.09))
    assert dropped == {"subjects": [woman], **scene, "environment": "a street"}
    assert captions.clean(CAPTION | {"subjects": []}, "t2v", Certain(1)) is None
    assert CAPTION["subjects"][0] is SUBJECT and "TYPES" in SUBJECT  # nothing is changed in place


def test_a_detail_in_ten_is_dropped():
    rng, many = random.Random(0), CAPTION | {"subjects": [SUBJECT] * 2000}
    subjects = captions.clean(many, "t2v", rng)["subjects"]
    for part in ("appearance", "position"):
        assert 1740 < sum(part in subject for subject in subjects) < 1860
    assert captions.clean(many, "t2v", random.Random(0))["subjects"] == subjects


@pytest.mark.parametrize(
    ("kind", "name", "expression"),
    [
        ("Human", "Man", "smiles"),
        ("Animal", "Dog", "smiles"),
        ("Vehicle", "Car", ""),
        ("Human", "Accessory", ""),
    ],
)
def test_only_faces_have_an_expression(kind, name, expression):
    subject = SUBJECT | {"TYPES": {"type": kind, "sub_type": name}}
    kept = captions.clean(CAPTION | {"subjects": [subject]}, "t2v", Certain(1))
    assert (kept["subjects"][0]["name"], kept["subjects"][0]["expression"]) == (name, expression)


def test_clean_for_image_to_video():
    still = SUBJECT | {"action": "", "expression": ""}
    parked = still | {"expression": "grim", "TYPES": {"type": "Vehicle", "sub_type": "Car"}}
    calm = still | {"expression": "calm"}
    kept = captions.clean(CAPTION | {"subjects": [still, SUBJECT, parked, calm]}, "i2v", Certain(1))
    woman = {"name": "Woman", "action": "waves", "expression": "smiles"}
    assert kept == {"subjects": [woman, woman | {"action": "", "expression": "calm"}]}
    assert captions.clean(CAPTION | {"subjects": [still, parked]}, "i2v", Certain(1)) is None


def fused(caption, variant, chat, *, seed=1):
    question = captions.fusion(caption, variant, chat, seed=seed)
    return question if isinstance(question, str) else ask(question, chat, seed=seed)


def test_a_fused_caption_is_written_from_the_facts_and_adds_the_camera(chat):
    text = fused(CAPTION, "t2v", chat)
    assert text.endswith(" The camera pans left.") and text == fused(CAPTION, "t2v", chat)
    still = CAPTION | {"camera_motion": ""}
    assert fused(still, "t2v", chat) + " The camera pans left." == text
    assert fused(CAPTION | {"subjects": []}, "t2v", chat) == "-"
    question = captions.fusion(CAPTION, "i2v", chat, seed=5)
    asked = chat.tokenizer.decode(question.inputs["input_ids"][0])
    assert asked.startswith("<|im_start|>system\n") and '"waves"' in asked and "dusk" not in asked
    assert question.options == {"max_new_tokens": 512, "temperature": 0.1, "stop": "\n\n"}
    assert question.read("Text.") == "Text. The camera pans left."
    with pytest.raises(VideoGenError, match="replied with nothing"):
        question.read("")
