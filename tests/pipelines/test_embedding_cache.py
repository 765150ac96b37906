"""Encoded prompts on disk: used where they fit, never believed where they do not."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import videogen
from tests.conftest import REFS
from videogen.pipelines.embedding_cache import get_or_compute


def make(made=None):
    def encode():
        if made is not None:
            made.append(1)
        return torch.arange(6, dtype=torch.bfloat16).view(2, 3)

    return encode


def test_made_once(tmp_path):
    made: list = []
    results = [get_or_compute(tmp_path / "new", {"said": "x"}, make(made)) for _ in range(3)]
    get_or_compute(tmp_path / "new", {"said": "y"}, make(made))
    assert len(made) == 2
    assert all(torch.equal(one, make()()) and one.dtype == torch.bfloat16 for one in results)
    assert len(list((tmp_path / "new").iterdir())) == 2


def other_tensor(file):
    save_file({"embedding": torch.zeros(2, 3)}, file)


def other_name(file):
    get_or_compute(file.parent, {"said": "y"}, lambda: torch.zeros(1))
    (other,) = set(file.parent.iterdir()) - {file}
    other.replace(file)


def flipped(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_text("not a tensor file at all"),
        lambda file: save_file({"what": torch.zeros(1)}, file),
        flipped,
        other_tensor,
        other_name,
    ],
)
def test_damaged_and_foreign_files_are_written_anew(tmp_path, damage):
    get_or_compute(tmp_path, {"said": "x"}, make())
    (file,) = tmp_path.iterdir()
    damage(file)
    made: list = []
    assert torch.equal(get_or_compute(tmp_path, {"said": "x"}, make(made)), make()())
    assert torch.equal(get_or_compute(tmp_path, {"said": "x"}, make(made)), make()())
    assert len(made) == 1


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert torch.equal(get_or_compute(tmp_path / "file", {"said": "x"}, make()), make()())
    assert "--embedding_cache" in caplog.text


@pytest.mark.parametrize("task", ["reference_to_video", "hunyuan_image_to_video"])
def test_known_prompts_need_no_encoder(cli, monkeypatch, tmp_path, task):
    image = "--ref_imgs" if task == "reference_to_video" else "--input_image"
    words = [
        *("--task_type", task, "--model_id", "tiny", image, REFS / "robot.png", "--device", "cpu"),
        *("--height", 32, "--width", 32, "--num_frames", 5, "--num_inference_steps", 1, "--seed", 1),
        *("--embedding_cache", tmp_path / "kept"),
    ]
    assert cli(*words, "--prompt", "x", "--output", tmp_path / "a.npy").code == 0
    files = {file: load_file(file)["embedding"] for file in (tmp_path / "kept").iterdir()}
    assert len(files) == (1 if task == "reference_to_video" else 2)

    original, spied = videogen.engine.load.load_pipeline, []

    def load(*arguments):
        pipeline = original(*arguments)
        for name in ("text_encoder", "text_encoder_2"):
            if hasattr(pipeline, name):
                getattr(pipeline, name).register_forward_pre_hook(lambda *_: spied.append(1))
        return pipeline

    monkeypatch.setattr(videogen.engine.load, "load_pipeline", load)
    assert cli(*words, "--prompt", "x", "--output", tmp_path / "b.npy").code == 0
    assert not spied
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert cli(*words, "--prompt", "y", "--dtype", "float32", "--output", tmp_path / "c.npy").code == 0
    assert spied


def test_no_folder_is_said_at_once(cli, r2v, tmp_path):
    (tmp_path / "file").write_text("")
    finished = cli(*r2v, "--embedding_cache", tmp_path / "file", "--output", tmp_path / "a.mp4")
    assert finished.code == 2
    assert "is not a folder" in finished.complaint
