"""What is recorded of a video, and making it again from that."""

import json
import shutil

import av
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import GOLDEN, REFS, ROOT
from videogen.tasks.table import VARIANTS


def test_metadata_reproduces_the_result(cli, r2v, tmp_path, monkeypatch):
    """From the sidecar and from the MP4's own comment, run where relative inputs are found."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "robot.png").write_bytes((REFS / "robot.png").read_bytes())
    words = [word if not word.endswith("robot.png") else "robot.png" for word in r2v]
    assert cli(*words, "--seed", 5, "--output", "a.mp4", "--save_latents", "a.safetensors").code == 0
    for source in ("a.json", "a.mp4"):
        finished = cli(
            *(
                "--from_metadata",
                source,
                "--output",
                "b.npy",
                "--save_latents",
                "b.safetensors",
                "--overwrite",
            )
        )
        assert finished.code == 0, finished.err
        one, two = (load_file(tmp_path / name)["latents"] for name in ("a.safetensors", "b.safetensors"))
        assert (one == two).all()
        hashes = {json.loads((tmp_path / name).read_text())["plan_hash"] for name in ("a.json", "b.json")}
        assert len(hashes) == 1


def test_metadata_keeps_no_private_paths(cli, r2v, tmp_path):
    golden = str(GOLDEN / "skyreels_v3/checkpoint-r2v")
    words = [word if word != "tiny" else golden for word in r2v]
    assert cli(*words, "--output", tmp_path / "a.mp4").code == 0
    sidecar = (tmp_path / "a.json").read_text()
    with av.open(str(tmp_path / "a.mp4")) as container:
        comment = container.metadata["comment"]
    for text in (sidecar, comment):
        assert str(tmp_path) not in text
        assert str(ROOT) not in text
    assert json.loads(comment)["request"]["prompt"] == "a robot waves"
    record = json.loads(sidecar)
    assert record["request"]["ref_imgs"] == ["robot.png"]
    assert set(record) >= {
        "seed",
        "model",
        "versions",
        "seconds",
        "peak_memory",
        "plan_hash",
        "inputs",
        "device",
    }
    finished = cli("--from_metadata", tmp_path / "a.json", "--output", tmp_path / "b.mp4")
    assert finished.code == 2
    assert "made with the local model 'checkpoint-r2v'; add --model_id" in finished.complaint


def test_a_changed_input_is_noticed(cli, r2v, tmp_path, monkeypatch):
    (tmp_path / "ref.png").write_bytes((REFS / "robot.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    words = [*r2v, "--ref_imgs", "ref.png"]
    words.remove(str(REFS / "robot.png"))
    words.remove("--ref_imgs")
    assert cli(*words, "--output", "a.npy").code == 0
    again = ("--from_metadata", "a.npy", "--output", "b.npy", "--dry_run")
    assert "ref.png" not in cli(*again).err
    (tmp_path / "ref.png").write_bytes((REFS / "hills.png").read_bytes())
    assert "warning: ref.png is not the file that a.npy was made from" in cli(*again).err


@pytest.mark.parametrize(
    ("task", "row"),
    [(name, row) for name, rows in VARIANTS.items() for row in rows],
    ids=lambda v: getattr(v, "family", v),
)
def test_every_family_repeats_from_its_metadata(cli, make_video, speech, tmp_path, monkeypatch, task, row):
    monkeypatch.chdir(make_video().parent)
    shutil.copy(REFS / "robot.png", "robot.png")
    shutil.copy(speech, "speech.wav")
    given = {"image": "robot.png", "video": "source.mp4", "audio": "speech.wav"}
    inputs = [f"--{name}={given[files.kind]}" for name, files in row.inputs.items() if files.fewest]
    lengths = {"talking_avatar": ("--num_frames", 29)}
    length = ("--duration", 2) if "extension" in task else lengths.get(task, ("--num_frames", 5))
    made = cli(
        *(
            "--task_type",
            task,
            "--model_id",
            f"tiny:{next(iter(row.tiny))}",
            "--prompt",
            "x",
            "--device",
            "cpu",
        ),
        *("--height", 32, "--width", 64, "--num_inference_steps", 1, *length, *inputs),
        *("--output", tmp_path / "a.npy"),
    )
    assert made.code == 0, made.err
    again = cli("--from_metadata", tmp_path / "a.json", "--output", tmp_path / "b.npy", "--device", "cpu")
    assert again.code == 0, again.err
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    hashes = [json.loads((tmp_path / f"{name}.json").read_text())["plan_hash"] for name in "ab"]
    assert hashes[0] == hashes[1]


def test_a_folder_of_frames_is_an_input_that_is_there(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for number in range(25):
        Image.new("RGB", (48, 32)).save(tmp_path / f"in/{number:06}.png")
    request = {"task_type": "single_shot_extension", "model_id": "tiny", "prompt": "x", "input_video": ["in"]}
    (tmp_path / "a.json").write_text(json.dumps({"schema": 1, "request": request}))
    finished = cli("--from_metadata", "a.json", "--dry_run", "--output", "b.mp4")
    assert finished.code == 0, finished.err
