"""Prompts that models write: enhanced, and captions of videos."""

import json

import numpy as np
import pytest

from tests.conftest import REFS
from tests.tiny_chat import tiny_captioner, tiny_chat_model

ROBOT = REFS / "robot.png"


LONG = ("--num_frames", 29, "--base_num_frames", 17, "--overlap_history", 5)  # segments of 17 and 12 frames


@pytest.fixture(scope="session")
def writers(tmp_path_factory):
    """A chat model and a captioner, tiny and random."""
    folder = tmp_path_factory.mktemp("writers")
    return tiny_chat_model(folder / "chat"), tiny_captioner(folder / "captioner")


def test_an_enhanced_prompt(cli, forcing, writers, tmp_path):
    words = ("--prompt_enhancer", writers[0], "--output", tmp_path / "a.npy")
    finished = cli(*forcing(*words, task="text_to_video"))
    assert finished.code == 0, finished.err
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["prompts"]["given"] == "a square moves"
    assert record["prompts"]["models"] == {"enhancer": "chat"}
    written = record["prompts"]["prompt"]
    assert written
    assert record["request"]["prompt"] == written
    assert "prompt_enhancer" not in record["request"]
    assert str(writers[0]) not in (tmp_path / "a.json").read_text()
    again = cli(*forcing("--prompt", written, "--output", tmp_path / "b.npy", task="text_to_video"))
    assert again.code == 0, again.err
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    image = ("--input_image", ROBOT, "--prompt_enhancer", writers[0], "--dry_run")
    assert "not used with an image" in cli(*forcing(*image, task="image_to_video")).err


def test_prompts_of_all_segments_are_enhanced(cli, forcing, writers, tmp_path):
    (tmp_path / "prompts.txt").write_text("a square\na circle\n", encoding="utf-8")
    words = ("--roll_prompts", tmp_path / "prompts.txt", "--prompt_enhancer", writers[0], *LONG)
    finished = cli(*forcing(*words, "--output", tmp_path / "a.npy"))
    assert finished.code == 0, finished.err
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["prompts"]["given"] == ["a square", "a circle"]
    assert len(record["request"]["roll_prompts"]) == 2
    assert "prompt" not in record["request"]


def test_one_failed_caption_stops_no_other_video(cli, forcing, writers, make_video, tmp_path):
    source = {"input_video": str(make_video()), "overlap_history": 5}
    caption = {"captioner": True, "vlm_path": str(writers[1]), "prompt_enhancer": str(writers[0])}
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("\n".join(map(json.dumps, [{**source, **caption}, {**source, "prompt": "x"}])))
    finished = cli(*forcing("--captioner")[:-1], "--jobs", jobs, "--output_dir", tmp_path / "out")
    assert finished.code == 1
    assert "video 1 of 2 failed: --vlm_path: the reply is not the JSON asked for" in finished.err
    assert [path.name for path in finished.paths] == ["2_1.mp4"]


def test_caption_only(cli, writers, make_video):
    chat, captioner = writers
    prompt = cli("--caption_only", "--prompt", "a cat", "--prompt_enhancer", chat, "--device", "cpu")
    assert prompt.code == 0, prompt.err
    assert json.loads(prompt.out)["enhanced_prompt"]
    video = cli("--caption_only", "--input_video", make_video(), "--vlm_path", captioner, "--device", "cpu")
    assert video.code == 1  # a random model does not speak JSON
    assert "--vlm_path: the reply is not the JSON asked for" in video.complaint
    words = ("--caption_only", "--input_video", make_video(), "--vlm_path", captioner, "--dry_run")
    assert json.loads(cli(*words).out) == {"captioner": "captioner"}
    assert "--caption_only: needs --input_video, or" in cli("--caption_only").complaint
    mistyped = cli("--caption_only", "--task_type", "v2v-14", "--input_video", make_video())
    assert mistyped.code == 2 and "nearest v2v-14B" in mistyped.complaint
    wrong = cli("--caption_only", "--input_video", make_video(), "--vlm_path", chat)
    assert wrong.code == 3
    assert "not a Qwen2.5-VL model" in wrong.complaint


def test_a_caption_becomes_the_prompt(cli, forcing, writers, make_video, tmp_path, monkeypatch):
    """What the captioner replied is put in its mouth; everything around it is real."""
    from videogen.prompts.chat import Chat

    caption = {
        "subjects": [{"action": "moves", "TYPES": {"type": "Object", "sub_type": "Square"}}],
        "camera_motion": "the camera is static",
    }
    replies = Chat.replies

    def spoken(self, inputs, **options):
        of_video = "video_grid_thw" in inputs[0]
        return [json.dumps(caption)] if of_video else replies(self, inputs, **options)

    monkeypatch.setattr(Chat, "replies", spoken)
    source = ("--input_video", make_video(), "--overlap_history", 5, "--num_frames", 9)
    models = ("--captioner", "--vlm_path", writers[1], "--prompt_enhancer", writers[0])
    finished = cli(*forcing(*source, *models, "--output", tmp_path / "a.npy"))
    assert finished.code == 0, finished.err
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["prompts"]["structural_caption"]["subjects"][0]["action"] == "moves"
    assert record["request"]["prompt"].endswith("The camera is static.")
    said = json.loads(
        cli("--caption_only", "--input_video", make_video(), *models[1:], "--device", "cpu").out
    )
    assert said["t2v_fusion_caption"] == record["request"]["prompt"]
