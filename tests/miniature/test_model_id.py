"""``--model_id miniature``: its weights, and what is said of it."""

import shutil

import pytest

from videogen.checkpoints import resolve
from videogen.errors import CheckpointError
from videogen.tasks import config
from videogen.tasks.table import TASKS

LARGEST = 25_000_000  # bytes


def test_its_weights_are_small_and_say_how_they_were_made():
    folder = config.weights_folder()
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < LARGEST
    made = (folder / "MADE.md").read_text(encoding="utf-8")
    assert all(word in made for word in ("commit", "seed", "loss", "minutes"))


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        ("minature", "text_to_video", "nearest 'miniature'"),
        (
            "miniature",
            "v2v-5B",
            r"is for reference_to_video, .*; use --model_id tiny for v2v-5B",
        ),
        ("tiny:miniature", "text_to_video", None),
    ],
)
def test_what_is_said_of_it(model, task, message):
    if message is None:
        assert resolve.locate(model, None, TASKS[task]).name == "miniature"
        return
    with pytest.raises(CheckpointError, match=message):
        resolve.locate(model, None, TASKS[task])


def test_other_sizes_than_those_of_the_training_are_said(cli):
    words = ("--task_type", "text_to_video", "--model_id", "miniature", "--prompt", "x", "--dry_run")
    refused = cli(*words, "--resolution", "720P")
    assert refused.code == 2
    assert "--resolution 720P: this model has TINY" in refused.err
    warned = cli(*words, "--height", "128", "--width", "96")
    assert warned.code == 0
    assert "was trained at 96x64 and 64x96, not 96x128" in warned.err
    assert "was trained" not in cli(*words, "--height", "96", "--width", "64").err


@pytest.mark.parametrize(("task", "missing"), [("text_to_video", "vae"), ("talking_avatar", "with_image")])
def test_weights_that_are_not_there_are_said(monkeypatch, tmp_path, task, missing):
    folder = tmp_path / "weights"
    shutil.copytree(config.weights_folder(), folder)
    monkeypatch.setattr(config, "weights_folder", lambda: folder)
    assert resolve.locate("miniature", None, TASKS[task]).name == "miniature"
    shutil.rmtree(folder / missing)
    with pytest.raises(CheckpointError, match=r"its weights are not in .*; install videogen again"):
        resolve.locate("miniature", None, TASKS[task])
