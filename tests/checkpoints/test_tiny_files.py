"""--model_id tiny:FILE.yaml: a tiny model with the sizes of a user's own file."""

import json

import pytest
import yaml

from tests.conftest import REFS, ROOT


@pytest.fixture
def run(cli, tmp_path, monkeypatch):
    """Return a function that writes a changed copy of a built-in config and runs a command with it."""
    monkeypatch.chdir(tmp_path)

    def change(name, change=lambda content: content, *more):
        content = yaml.safe_load((ROOT / f"configs/tiny/{name}.yaml").read_text(encoding="utf-8"))
        changed = change(content)
        text = changed if isinstance(changed, str) else yaml.safe_dump(content)
        (tmp_path / "own.yaml").write_text(text)
        size = ("--height", 32, "--width", 32, "--num_frames", 5, "--num_inference_steps", 2)
        return cli(
            *("--task_type", "text_to_video", "--model_id", "tiny:own.yaml", "--prompt", "a swan"),
            *(*size, "--device", "cpu", "--seed", 1, "--output", "swan.mp4", *more),
        )

    return change


def wider(content):
    content["transformer"]["ffn_dim"] = 128


@pytest.mark.parametrize(
    ("name", "boundary"), [("skyreels-v2-t2v", None), ("wan22-t2v-a14b", 0.875), ("wan22-5b", None)]
)
def test_the_family_follows_from_the_file(run, cli, tmp_path, name, boundary):
    finished = run(name, wider)
    assert finished.code == 0, finished.err
    record = json.loads((tmp_path / "swan.json").read_text())
    assert record["model"]["id"] == record["request"]["model_id"] == "tiny:own.yaml"
    again = cli("--from_metadata", "swan.json", "--output", "again.mp4", "--device", "cpu", "--dry_run")
    assert again.code == 0, again.err
    assert json.loads((tmp_path / "swan.json").read_text())["request"].get("boundary") == boundary


def test_another_file_of_the_same_name_is_another_model(run):
    plans = [
        json.loads(run("skyreels-v2-t2v", change, "--dry_run", "--json").out) for change in (wider, dict)
    ]
    assert plans[0]["plan_hash"] != plans[1]["plan_hash"]


BAD = {
    "no width": (
        lambda c: c["transformer"].pop("num_attention_heads"),
        "lacks transformer.num_attention_heads",
    ),
    "too much": (lambda c: c["vae"].update(depth=2), "has vae.depth, which nothing reads"),
    "a word": (lambda c: c["vae"].update(base_dim="8"), "vae.base_dim is '8', and must be like 8"),
    "nothing": (lambda c: c["transformer"].update(num_layers=0), "num_layers is 0, and must be at least 1"),
    "odd": (lambda c: c["transformer"].update(attention_head_dim=7), "head_dim is 7, and must be even"),
    "two widths": (lambda c: c["text_encoder"].update(d_model=40), "they must be equal"),
    "sizes": (lambda c: c.update(sizes="mine"), "sizes is 'mine', and must be 'tiny'"),
    "a list": (lambda _: "- a\n- b\n", "must be 'name: value' lines"),
    "not YAML": (lambda _: "a: [", "is not YAML"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_file(run, case):
    change, message = BAD[case]
    finished = run(
        "skyreels-v2-t2v", lambda c: out if isinstance(out := change(c), str) else None, "--dry_run"
    )
    assert finished.code == 3
    assert finished.complaint.startswith("error: --model_id tiny:own.yaml: ")
    assert message in finished.complaint


def test_sizes_of_which_no_model_can_be_made(cli, tmp_path):
    text = (ROOT / "configs/tiny/hunyuan.yaml").read_text(encoding="utf-8")
    (tmp_path / "own.yaml").write_text(text.replace("norm_num_groups: 4", "norm_num_groups: 3"))
    finished = cli(
        *("--task_type", "hunyuan_image_to_video", "--model_id", f"tiny:{tmp_path / 'own.yaml'}"),
        *("--prompt", "x", "--input_image", REFS / "balloon.png", "--output", tmp_path / "x.mp4"),
    )
    assert finished.code == 3
    assert "--model_id tiny:own.yaml: no model can be made of it" in finished.complaint


def test_no_such_file(cli):
    finished = cli(
        "--task_type", "text_to_video", "--model_id", "tiny:nowhere.yaml", "--prompt", "x", "--dry_run"
    )
    assert finished.code == 3
    assert "tiny:nowhere.yaml: cannot be read" in finished.complaint
