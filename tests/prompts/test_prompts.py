"""Prompts written by chat models: small random models of the real classes, from disk like the large ones."""

import json
import random
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.tiny_chat import TEXT, tiny_captioner, tiny_chat_model
from videogen.errors import CheckpointError, OutOfMemoryError, VideoGenError
from videogen.prompts import caption as captions
from videogen.prompts.chat import Chat
from videogen.prompts.chat_models import TEXT_CHAT, VIDEO_CHAT, FoundModel, fetch, find_model
from videogen.prompts.enhance import enhance

FLAG = "--enhancer_model"
HELLO = [{"role": "user", "content": "hello"}]
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
    assert refusal(tmp_path / "x").startswith(f"{FLAG} {tmp_path / 'x'}: no such folder; give a folder with")
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


def test_replies_follow_the_seed_alone(chat):
    def reply(seed, temperature=None):
        return chat.reply(HELLO, max_new_tokens=8, temperature=temperature, seed=seed)

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
        return chat.reply(HELLO, max_new_tokens=max_new_tokens, temperature=None, seed=2, **options)

    long = reply(40)
    assert len(long) > 7 and reply(3) == long[:3]
    stop = long[5:7]
    assert reply(40, stop=stop) == long[: long.index(stop)]
    assert not any(token in long for token in ("hello", "<|im_start|>", "<pad>"))


def test_memory_is_given_back(folder):
    chat = Chat(find_model(FLAG, str(folder)))
    for _ in range(2):
        with chat as entered:
            entered.reply(HELLO, max_new_tokens=2, temperature=None, seed=0)
            model = weakref.ref(entered.model)
        assert model() is None
    assert chat.model is None


def test_memory_is_explained_when_it_is_short(chat, monkeypatch):
    def full(**_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(chat.model, "generate", full)
    with pytest.raises(OutOfMemoryError, match=f"^{FLAG} .*: out of memory on cpu; give a smaller model"):
        chat.reply(HELLO, max_new_tokens=2, temperature=None, seed=0)


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

    monkeypatch.setattr(chat, "reply", reply)
    assert enhance(" a {cat}\n", chat) == "A close-up of a cat. It purrs."
    (system, user), options = asked[0]
    assert "helpful assistant" in system["content"] and "[a {cat}]" in user["content"]
    assert options == {"max_new_tokens": 2048, "temperature": None, "seed": 0}
    monkeypatch.setattr(chat, "reply", lambda *_, **__: "")
    with pytest.raises(VideoGenError, match="replied with nothing"):
        enhance("a cat", chat)


def test_sample_indices():
    assert captions.sample_indices(17) == list(range(16))
    assert captions.sample_indices(1) == [0] * 16
    assert captions.sample_indices(97) == [0, 6, 12, 18, 24, 30, 36, 42, 48, 54, 60, 66, 72, 78, 84, 90]
    assert captions.sample_indices(9) == [0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6, 6, 6, 7, 8]  # halves to even


def test_sizes_are_those_of_transformers():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    limits = {"min_pixels": 128 * 28 * 28, "max_pixels": 768 * 28 * 28}
    for size in [(420, 360), (28, 28), (40, 4000), (1080, 1920), (2160, 3840), (301, 299), (14, 700)]:
        assert captions.smart_resize(*size) == smart_resize(*size, **limits)
    assert captions.smart_resize(420, 360) == (420, 364)


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
    inputs = captioner._inputs(messages, video)
    pad = captioner.model.config.video_token_id
    assert (inputs["input_ids"] == pad).sum() == (inputs["mm_token_type_ids"] == 2).sum() == 8 * 15 * 13
    text = captioner.tokenizer.decode(inputs["input_ids"][0])
    assert text.startswith("<|im_start|>user\n<|vision_start|><|video_pad|>")
    assert text.endswith("<|video_pad|><|vision_end|>Describe it.<|im_end|>\n<|im_start|>assistant\n")
    reply = captioner.reply(messages, max_new_tokens=12, temperature=0.05, seed=0, video=video)
    positions, delta = captioner.model.model.get_rope_index(
        **{name: inputs[name] for name in ("input_ids", "mm_token_type_ids", "video_grid_thw")},
        second_per_grid_ts=inputs["second_per_grid_ts"],
    )
    assert torch.equal(captioner.model.model.rope_deltas, delta)
    assert delta.item() == 15 - 8 * 15 * 13  # a video takes as many positions as its longer side
    seen = positions[0, 0][inputs["input_ids"][0] == pad]
    assert torch.equal((seen - seen[0]).unique(), torch.arange(8) * 4)  # 4 positions a second
    dark = captions.video_inputs(np.zeros_like(frames))
    assert reply != captioner.reply(messages, max_new_tokens=12, temperature=0.05, seed=0, video=dark)


def test_a_template_for_text_alone_gives_the_same_tokens(captioner, frames):
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Describe it."}]}]
    video = captions.video_inputs(frames[:2])
    expected = captioner._inputs(messages, video)["input_ids"]
    for template in (TEXT, TEXT.replace("m['content'] }}", "m['content'] + '' }}")):
        captioner.tokenizer.chat_template = template
        assert torch.equal(captioner._inputs(messages, video)["input_ids"], expected)


def test_a_reply_that_is_not_json_is_quoted(captioner, frames):
    with pytest.raises(VideoGenError, match=r"reply is not the JSON asked for \(\S{10,}"):
        captions.describe(frames, captioner, seed=0)
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


def test_fuse_writes_from_the_facts_and_adds_the_camera(chat, monkeypatch):
    fused = captions.fuse(CAPTION, "t2v", chat, seed=1)
    assert fused.endswith(" The camera pans left.") and fused == captions.fuse(CAPTION, "t2v", chat, seed=1)
    still = CAPTION | {"camera_motion": ""}
    assert captions.fuse(still, "t2v", chat, seed=1) + " The camera pans left." == fused
    assert captions.fuse(CAPTION | {"subjects": []}, "t2v", chat, seed=1) == "-"
    asked = []
    monkeypatch.setattr(
        chat, "reply", lambda messages, **options: asked.append((messages, options)) or "Text."
    )
    assert captions.fuse(CAPTION, "i2v", chat, seed=5) == "Text. The camera pans left."
    ((message,), options) = asked[0]
    assert (
        message["role"] == "system" and '"waves"' in message["content"] and "dusk" not in message["content"]
    )
    assert options == {"max_new_tokens": 512, "temperature": 0.1, "seed": 5, "stop": "\n\n"}
    monkeypatch.setattr(chat, "reply", lambda *_, **__: "")
    with pytest.raises(VideoGenError, match="replied with nothing"):
        captions.fuse(CAPTION, "t2v", chat, seed=1)
