"""--caption_only --jobs: a table of captions, whose models are loaded once."""

import csv
import json
import re
import shutil

import pytest

from tests.tiny_chat import tiny_captioner, tiny_chat_model
from videogen.prompts import chat
from videogen.prompts.chat import Chat

CAPTION = {
    "subjects": [{"action": "moves", "TYPES": {"type": "Object", "sub_type": "Square"}}],
    "shot_type": "close-up shot",
    "environment": "a field,\nwith grass",
    "camera_motion": "the camera is static",
}


@pytest.fixture(scope="session")
def writers(tmp_path_factory):
    """A chat model and a captioner, tiny and random."""
    folder = tmp_path_factory.mktemp("writers")
    return tiny_chat_model(folder / "chat"), tiny_captioner(folder / "captioner")


@pytest.fixture
def words(tmp_path, make_video, writers):
    """The command for a table of three videos."""
    names = [shutil.copy(make_video(), tmp_path / f"{name}.mp4") for name in ("a", "b", "c")]
    (tmp_path / "videos.csv").write_text("input_video\n" + "".join(f"{name}\n" for name in names))
    models = ("--vlm_path", writers[1], "--prompt_enhancer", writers[0])
    return ("--caption_only", "--jobs", tmp_path / "videos.csv", *models, "--device", "cpu")


@pytest.fixture
def spoken(monkeypatch):
    """What the captioner says of a video is put in its mouth, but for the second; counts loaded models."""
    replies, load, loads, asked = Chat.replies, chat._load, [], []

    def speak(self, inputs, **options):
        if "video_grid_thw" not in inputs[0]:
            return replies(self, inputs, **options)
        asked.extend(inputs)
        first = len(asked) - len(inputs) + 1
        return ["no" if index == 2 else json.dumps(CAPTION) for index in range(first, len(asked) + 1)]

    monkeypatch.setattr(Chat, "replies", speak)
    monkeypatch.setattr(chat, "_load", lambda *args: (loads.append(1), load(*args))[1])
    return loads


def rows(table):
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_of_captions_goes_on_where_it_failed(cli, words, spoken, tmp_path):
    table = tmp_path / "out" / "captions.csv"
    finished = cli(*words, "--output", table)
    assert finished.code == 1
    assert finished.paths == [table]
    assert "line 3: --vlm_path: the reply is not the JSON asked for" in finished.err
    assert "3 videos: 2 made, 0 skipped, 1 failed in " in finished.err
    assert len(spoken) == 2  # models
    first, third = rows(table)
    assert (first["input_video"], third["input_video"]) == tuple(str(tmp_path / f"{n}.mp4") for n in "ac")
    assert first["shot_type"] == "close-up shot"
    assert first["environment"] == "a field, with grass"
    assert json.loads(first["subjects"])[0]["action"] == "moves"
    assert first["t2v_fusion_caption"].endswith("The camera is static.")
    assert first["i2v_fusion_caption"]
    with table.open("a") as file:
        file.write('"cut of')  # by a crash
    again = cli(*words, "--output", table, "--resume")
    assert again.code == 0, again.err
    assert "3 videos: 1 made, 2 skipped, 0 failed in " in again.err
    assert [row["input_video"][-5] for row in rows(table)] == ["a", "c", "b"]


def test_a_video_that_cannot_be_read_is_left_out(cli, words, spoken, tmp_path):
    (tmp_path / "b.mp4").write_bytes(b"no video")
    finished = cli(*words, "--output", tmp_path / "c.csv", "--caption_batch", 3)
    assert finished.code == 1
    assert re.search(r"line 3: --input_video \S+b.mp4: is not a video", finished.err)
    assert (
        "3 videos: 1 made, 0 skipped, 2 failed in " in finished.err
    )  # the other is the second that is asked
    assert [row["input_video"][-5] for row in rows(tmp_path / "c.csv")] == ["a"]
    plan = cli(*words, "--output", tmp_path / "d.csv", "--dry_run")
    assert plan.code == 2
    assert re.search(r"line 3: --input_video \S+b.mp4: is not a video", plan.complaint)


def test_shares_of_a_table(cli, words, spoken, tmp_path):
    for share in ("0/3", "2/3"):
        finished = cli(*words, "--output", tmp_path / "c.csv", "--resume", "--shard", share)
        assert finished.code == (1 if share == "2/3" else 0)  # the second reply
    assert len(rows(tmp_path / "c.csv")) == 1


def test_tables_that_cannot_be(cli, words, tmp_path, make_video):
    (tmp_path / "c.csv").write_text("other\n")
    (tmp_path / "texts.txt").write_text("a cat\n")
    (tmp_path / "own.csv").write_text(f"input_video,vlm_path\n{make_video()},x\n")
    for more, said in (
        ((), "--caption_only: writes a table with --jobs; add --output captions.csv"),
        (("--output", tmp_path / "c.mp4"), "must end in .csv; try"),
        (("--output", tmp_path / "c.csv"), "exists already; add --resume or --overwrite"),
        (("--output", tmp_path / "c.csv", "--resume"), "has other columns than input_video, shot_type"),
        (("--output", tmp_path / "d.csv", "--jobs", tmp_path / "texts.txt"), "line 1: names no video"),
        (("--output", tmp_path / "d.csv", "--jobs", tmp_path / "own.csv"), "--vlm_path: is the same for all"),
        (("--output", tmp_path / "d.csv", "--prompt", "x"), "--prompt: is not for captions of a list"),
        (("--output", tmp_path / "d.csv", "--jobs", "-"), "reads no lines from stdin"),
    ):
        finished = cli(*words, *more)
        assert finished.code == 2
        assert said in finished.complaint
    plan = json.loads(cli(*words, "--output", tmp_path / "d.csv", "--dry_run").out)
    assert (plan["videos"], plan["captioner"]) == (3, "captioner")
    assert not (tmp_path / "d.csv").exists()
