"""A video described by InternVL: frames, tiles and tokens as published, replies from a tiny model."""

import json
import logging
import shutil
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import GOLDEN
from tests.tiny_chat import TEXT, tiny_chat_model
from videogen.errors import CheckpointError, VideoGenError, brief
from videogen.media.download import Fetcher
from videogen.media.frames import FrameArray
from videogen.media.video_reader import read_video, read_with_decord
from videogen.prompts import internvl
from videogen.prompts.chat import Chat
from videogen.prompts.chat_models import FRAMES_CHAT, TEXT_CHAT, fetch, find_model
from videogen.prompts.questions import ask

FLAG = "--vlm_path"
CHECKPOINT = GOLDEN / "wan22/checkpoint-internvl-hf"
INSTEAD = "use one in the transformers format: OpenGVLab/InternVL3_5-8B-HF"
ORIGINAL = {"architectures": ["InternVLChatModel"], "model_type": "internvl_chat"}
STEP = 1 / 255 / min(internvl.IMAGENET_DEFAULT_STD)  # one grey level in pixel values


@pytest.fixture(scope="module")
def chat():
    with Chat(find_model(FLAG, str(CHECKPOINT), FRAMES_CHAT)) as chat:
        yield chat


@pytest.fixture(scope="module")
def prompt(golden):
    return golden("wan22/v2v_vlm_prompt")


@pytest.fixture(scope="module")
def seen(golden):
    """The 8 frames that the published model was shown."""
    return np.load(golden("wan22/v2v_last_frame").folder / "v0_segments8.npy")


@pytest.fixture
def video(seen):
    """33 frames, all but those 8 black."""
    pictures = np.zeros((33, *seen.shape[1:]), np.uint8)
    pictures[internvl.segment_indices(33)] = seen
    return FrameArray(pictures)


def described(video, chat, seed=0):
    return ask(internvl.question(video, chat), chat, seed=seed)


def mp4(golden, name):
    folder = golden("wan22/v2v_last_frame").folder
    return read_video("--video", str(folder / name), Fetcher(folder=folder))


def test_segment_indices(golden):
    for row in golden("wan22/v2v_segment_indices").about["rows"]:
        assert internvl.segment_indices(row["n_frames"], row["num_segments"]) == row["indices"]
    assert internvl.segment_indices(7) == [0, 1, 2, 2, 3, 4, 4, 5]


def test_pixels_of_a_frame(golden):
    case = golden("wan22/v2v_dynamic_tiling")  # its first picture is one tile, as a frame is
    about = case.about["pixel_cases"][0]
    pixels = internvl.pixel_values(np.asarray(Image.open(case.folder / about["image"])), about["image_size"])
    torch.testing.assert_close(pixels, case.outputs["pixel_values0"], atol=1e-5, rtol=0)


def test_pixels_of_frames(video, prompt, golden):
    published = prompt.outputs["pixel_values"]
    pixels = internvl.frame_pixels(video, 56)
    torch.testing.assert_close(pixels, published, atol=1e-5, rtol=0)
    decoded = internvl.frame_pixels(mp4(golden, "v0.mp4"), 56)
    torch.testing.assert_close(decoded, published, atol=4 * STEP, rtol=0)


def test_tokens(chat, prompt):
    ids = internvl.prompt_tokens(chat, 8)
    assert torch.equal(ids[0], prompt.outputs["input_ids"])
    text = chat.tokenizer.decode(ids[0])
    assert text == prompt.about["prompt_text"].replace("<IMG_CONTEXT>x4", "<IMG_CONTEXT>" * 4)


def test_size_and_tokens_of_the_published_model():
    from transformers import InternVLConfig

    config = InternVLConfig(vision_config={"image_size": 448, "patch_size": 14})
    assert (internvl.image_size(config), internvl.tokens_per_frame(config)) == (448, 256)


@torch.no_grad()
def test_the_model_hears_what_the_published_one_heard(chat, video, prompt):
    inputs = {
        "input_ids": internvl.prompt_tokens(chat, 8),
        "pixel_values": internvl.frame_pixels(video, 56),
    }
    logits = chat.model(**inputs).logits[0, -1]
    torch.testing.assert_close(logits, prompt.outputs["last_logits"], atol=1e-4, rtol=0)
    reply = chat.reply(inputs, max_new_tokens=24, temperature=0, seed=0)
    generated = chat.tokenizer.decode(prompt.outputs["generated_ids"], skip_special_tokens=True)
    assert reply == generated.strip() == prompt.about["decoded"].strip()


def test_describe(chat, video, prompt, golden, monkeypatch):
    monkeypatch.setattr(internvl, "MAX_TOKENS", 24)
    state = torch.get_rng_state()
    text = described(video, chat)
    assert text == " ".join(prompt.about["decoded"].split()) and "\n" not in text
    assert text == described(video, chat, seed=1)
    assert text != described(FrameArray(video.pictures[::-1]), chat)
    assert described(mp4(golden, "v1.mp4"), chat)
    assert described(FrameArray(video.pictures[2:3]), chat)  # a single frame
    assert torch.equal(torch.get_rng_state(), state)


def test_greedy_whatever_the_model_would_like(tmp_path, video, prompt, monkeypatch, recwarn, caplog):
    shutil.copytree(CHECKPOINT, tmp_path / "model")
    config = tmp_path / "model" / "generation_config.json"
    likes = {"do_sample": True, "temperature": 9.0, "top_p": 0.9, "top_k": 7, "repetition_penalty": 1.3}
    config.write_text(json.dumps(json.loads(config.read_text()) | likes))
    monkeypatch.setattr(internvl, "MAX_TOKENS", 24)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with Chat(find_model(FLAG, str(tmp_path / "model"), FRAMES_CHAT)) as chat:
        assert described(video, chat) == " ".join(prompt.about["decoded"].split())
    assert not recwarn.list and not caplog.records


def test_half_precision(tmp_path, video, monkeypatch):
    shutil.copytree(CHECKPOINT, tmp_path / "model")
    with Chat(find_model(FLAG, str(CHECKPOINT), FRAMES_CHAT)) as chat:
        chat.model.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    monkeypatch.setattr(internvl, "MAX_TOKENS", 4)
    with Chat(find_model(FLAG, str(tmp_path / "model"), FRAMES_CHAT)) as chat:
        assert chat.model.dtype == torch.bfloat16
        assert described(video, chat)


def test_frames_are_read_one_at_a_time_and_no_more_than_needed():
    alive, read = [], []

    class Source:
        def count(self):
            return 81

        def frames(self):
            for index in range(81):
                assert sum(frame() is not None for frame in alive) <= 1
                read.append(index)
                picture = np.full((8, 8, 3), index, np.uint8)
                alive.append(weakref.ref(picture))
                yield picture

    pixels = internvl.frame_pixels(Source(), 28)
    grey = pixels[:, 0, 0, 0] * internvl.IMAGENET_DEFAULT_STD[0] + internvl.IMAGENET_DEFAULT_MEAN[0]
    assert (grey * 255).round().int().tolist() == [5, 15, 25, 35, 45, 55, 65, 75]
    assert read[-1] == 75


def test_replies_are_tidied(chat, video):
    assert internvl.tidy("\n<think>\nhm\n</think>\n\n A cat\r\nruns.  It <think>s</think>. ") == (
        "A cat runs. It <think>s</think>."
    )
    assert internvl.tidy("<think></think>A cat.") == "A cat."
    question = internvl.question(video, chat)
    assert question.options == {"max_new_tokens": 1024, "temperature": 0}
    with pytest.raises(VideoGenError, match=f"^{FLAG} {CHECKPOINT}: described the video with nothing; give"):
        question.read(" <think>a cat runs, and so on without an end")


def test_a_template_or_tokenizer_that_loses_the_frames_is_refused(chat, monkeypatch):
    parts = "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}"
    monkeypatch.setattr(chat.tokenizer, "chat_template", TEXT.replace("{{ m['content'] }}", parts))
    with pytest.raises(CheckpointError, match=rf"^{FLAG} .* leave 0 of 32 picture tokens; download it again"):
        internvl.prompt_tokens(chat, 8)


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        find_model(FLAG, str(path), FRAMES_CHAT)
    return str(caught.value)


@pytest.mark.parametrize("part", ["architectures", "model_type"])
def test_the_original_format_is_refused(tmp_path, part):
    (tmp_path / "config.json").write_text(json.dumps({part: ORIGINAL[part]}))  # no weights needed to see it
    name = ORIGINAL[part] if part == "model_type" else ORIGINAL[part][0]
    assert refusal(tmp_path) == (
        f"{FLAG} {brief(tmp_path)}: is in its original format ({name}), which needs remote code; {INSTEAD}"
    )


def test_another_kind_of_model_is_refused(tmp_path):
    assert FRAMES_CHAT.default == "OpenGVLab/InternVL3_5-8B-HF"
    assert find_model(FLAG, str(CHECKPOINT), FRAMES_CHAT).folder == CHECKPOINT
    assert "is a Qwen2ForCausalLM, not an InternVL model (…" in refusal(tiny_chat_model(tmp_path / "qwen"))
    with pytest.raises(CheckpointError, match="is a InternVLForConditionalGeneration, not a text chat model"):
        find_model(FLAG, str(CHECKPOINT), TEXT_CHAT)


def test_a_download_begins_with_the_config(tmp_path, monkeypatch):
    """A stand-in for the hub, from which a repository in the wrong format is not downloaded."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(snapshot.name)
    asked = []

    def snapshot_download(name, *, allow_patterns, local_files_only=False, dry_run=False, **_):
        if dry_run:  # how much there is to download
            return []
        if not local_files_only:
            asked.append(allow_patterns)
            for pattern in allow_patterns:
                for file in served.glob(pattern):
                    shutil.copy(file, snapshot)
        return str(snapshot)

    monkeypatch.setattr("videogen.checkpoints.hub.snapshot_download", snapshot_download)
    served = tmp_path / "original"
    served.mkdir()
    (served / "config.json").write_text(json.dumps(ORIGINAL))
    found = find_model(FLAG, "owner/name", FRAMES_CHAT)
    assert found.folder is None and found.note == f"{FLAG}: owner/name will be downloaded"
    with pytest.raises(CheckpointError, match=rf"^{FLAG} owner/name: is in its original format .*{INSTEAD}"):
        fetch(found)
    assert asked == [["config.json"]]
    assert "is in its original format" in refusal("owner/name")  # by now in the cache
    served, asked[:] = CHECKPOINT, []
    assert fetch(found).folder == snapshot and len(asked) == 2
    assert find_model(FLAG, "owner/name", FRAMES_CHAT).folder == snapshot


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("i", [0, 1])
def test_last_frame(golden, i, decoder):
    case = golden("wan22/v2v_last_frame")
    about = case.about["rows"][i]
    video = mp4(golden, about["video"])
    assert (video.count(), video.width, video.height) == (about["frames"], about["width"], about["height"])
    assert internvl.segment_indices(video.count()) == about["segment8_indices"]
    if decoder == "decord":
        pytest.importorskip("decord")
        last = np.stack(read_with_decord(video, [video.count() - 1]))
    else:
        last = video.tail(1)
    published = np.asarray(Image.open(case.folder / about["last_frame"]).convert("RGB")).astype(int)
    assert last.shape == (1, *published.shape)
    assert abs(last[0] - published).max() <= case.about["tolerance"]["rgb uint8 max abs diff"]
