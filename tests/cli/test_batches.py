"""Several videos in one run, and what is said and done when one fails."""

import json
import re
import shutil

import numpy as np

from tests.conftest import GOLDEN
from videogen.cli.parser import parse
from videogen.planning.request import Item, make_plans
from videogen.results.output_paths import OverwritePolicy


def test_several_seeds_load_the_model_once(cli, r2v, tmp_path, monkeypatch):
    from videogen.engine import load

    loads = []
    original = load.load_pipeline
    monkeypatch.setattr(load, "load_pipeline", lambda *args: (loads.append(1), original(*args))[1])
    finished = cli(*r2v, "--seed", "1,2,3", "--output_dir", tmp_path / "out", "--json")
    assert finished.code == 0, finished.err
    records = [json.loads(line) for line in finished.out.splitlines()]
    assert [record["seed"] for record in records] == [1, 2, 3]
    assert [record["output"] for record in records] == ["1_1.mp4", "2_2.mp4", "3_3.mp4"]
    assert all((tmp_path / "out" / record["output"]).is_file() for record in records)
    assert len(loads) == 1
    single = cli(*r2v, "--seed", 2, "--output", tmp_path / "two.npy")
    assert single.code == 0
    assert cli(*r2v, "--seed", "1,2", "--output", tmp_path / "s{seed}.npy").code == 0
    assert np.array_equal(np.load(tmp_path / "two.npy"), np.load(tmp_path / "s2.npy"))
    assert not np.array_equal(np.load(tmp_path / "s1.npy"), np.load(tmp_path / "s2.npy"))


def test_models_of_one_name_in_two_folders_are_two_models(cli, r2v, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    from videogen.models import tiny

    for parent, factor in (("a", 1.0), ("b", 0.5)):
        model = shutil.copytree(
            tiny.build("skyreels-v3-r2v", tmp_path / f"made_{parent}"), tmp_path / parent / "m"
        )
        (weights,) = (model / "transformer").glob("*.safetensors")
        tensors = load_file(weights)
        tensors["proj_out.weight"] *= factor
        save_file(tensors, weights, metadata={"format": "pt"})
    lines = [json.dumps({"prompt": "x", "model_id": str(tmp_path / parent / "m")}) for parent in "ab"]
    (tmp_path / "jobs.jsonl").write_text("\n".join(lines))
    output = tmp_path / "{index}.npy"
    finished = cli(*r2v, "--jobs", tmp_path / "jobs.jsonl", "--output", output)
    assert finished.code == 0, finished.err
    first, second = (np.load(path) for path in finished.paths)
    assert not np.array_equal(first, second)


def test_jobs_of_prompts_and_of_json(cli, r2v, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red robot\n\na blue robot\n")
    finished = cli(*r2v, "--jobs", tmp_path / "prompts.txt", "--output", tmp_path / "p{index}.mp4", "--json")
    assert finished.code == 0, finished.err
    records = [json.loads(line) for line in finished.out.splitlines()]
    assert [record["request"]["prompt"] for record in records] == ["a red robot", "a blue robot"]
    assert [record["output"] for record in records] == ["p1.mp4", "p2.mp4"]

    jobs = [{"seed": [1, 2]}, {"prompt": "other", "num-frames": 9, "output": str(tmp_path / "own.npy")}]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    jobs[1]["seed"] = [3, 4]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    finished = cli(*r2v, "--jobs", tmp_path / "jobs.jsonl", "--output_dir", tmp_path / "out")
    assert finished.code == 2  # the job's own output would be that of several videos
    assert "line 2: --output" in finished.complaint
    del jobs[1]["seed"]
    jobs[1]["output"] = str(tmp_path / "own_{seed}.npy")
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    finished = cli(*r2v, "--jobs", tmp_path / "jobs.jsonl", "--output_dir", tmp_path / "out")
    assert finished.code == 0, finished.err
    assert [path.name for path in finished.paths] == ["1_1.mp4", "2_2.mp4", "own_42.npy"]
    assert np.load(tmp_path / "own_42.npy").shape[0] == 9


def test_a_failing_item_is_recorded_and_the_rest_goes_on(cli, r2v, tmp_path, monkeypatch):
    from videogen.engine import session

    original = session.write

    def fail_on_two(plan, *args, **kwargs):
        if plan.seed == 2:
            raise RuntimeError("boom")
        return original(plan, *args, **kwargs)

    monkeypatch.setattr(session, "write", fail_on_two)
    finished = cli(*r2v, "--seed", "1,2,3", "--output_dir", tmp_path)
    assert finished.code == 1
    assert [path.name for path in finished.paths] == ["1_1.mp4", "3_3.mp4"]
    assert "video 2 of 3 failed: RuntimeError: boom" in finished.err
    assert "Traceback" not in finished.err


def test_a_batch_survives_a_checkpoint_that_does_not_fit(cli, r2v, tmp_path):
    model = shutil.copytree(GOLDEN / "skyreels_v3/checkpoint-r2v", tmp_path / "model")
    (model / "tokenizer/tokenizer.json").write_text("{}")
    jobs = [{}, {"model_id": str(model)}, {"seed": 7}]
    lines = "\n".join(json.dumps({"prompt": "x", **job}) for job in jobs)
    (tmp_path / "jobs.jsonl").write_text(lines)
    finished = cli(*r2v, "--jobs", tmp_path / "jobs.jsonl", "--output_dir", tmp_path)
    assert finished.code == 1
    assert [path.name for path in finished.paths] == ["1_42.mp4", "3_7.mp4"]
    assert re.search("video 2 of 3 failed: .*not a tokenizer", finished.err)


def test_a_failed_video_holds_no_memory(cli, r2v, tmp_path, monkeypatch):
    """What failed must be gone before the next video needs its place."""
    import gc
    import weakref

    from videogen.engine import session

    held, alive = [], []

    def fail(plan, pipeline, *args, **kwargs):
        gc.collect()
        alive.append([tensor() is not None for tensor in held])
        latents = torch.ones(8)
        held.append(weakref.ref(latents))
        raise torch.OutOfMemoryError("CUDA out of memory")

    import torch

    monkeypatch.setattr(session, "write", fail)
    finished = cli(*r2v, "--seed", "1,2", "--output_dir", tmp_path)
    assert finished.code == 1
    assert "video 2 of 2 failed: out of memory; try a smaller" in finished.err
    assert alive == [[], [False]]


def test_other_memory_errors_are_not_out_of_memory(cli, r2v, tmp_path, monkeypatch):
    from videogen.engine import session

    def fail(*args, **kwargs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(session, "write", fail)
    finished = cli(*r2v, "--output", tmp_path / "a.mp4")
    assert finished.code == 1
    assert "illegal memory access was encountered more" in finished.complaint


def test_unexpected_errors_are_one_line_and_exit_1(cli, r2v, tmp_path, monkeypatch):
    from videogen.engine import load

    def explode(*args):
        raise RuntimeError("boom\nwith a second line")

    monkeypatch.setattr(load, "load_pipeline", explode)
    finished = cli(*r2v, "--output", tmp_path / "a.mp4")
    assert finished.code == 1
    assert "RuntimeError: boom with a second line" in finished.complaint
    assert "Traceback" in cli(*r2v, "--output", tmp_path / "a.mp4", "-v").err


def test_out_of_memory_says_what_to_try(cli, r2v, tmp_path, monkeypatch):
    import torch

    from videogen.engine import load, out_of_memory

    def explode(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(load, "load_pipeline", explode)
    finished = cli(*r2v, "--output", tmp_path / "a.mp4")
    assert finished.code == 4
    assert "try a smaller --resolution or fewer --num_frames" in finished.complaint

    plan = make_plans([Item(values=parse(r2v)[0])], OverwritePolicy(), tmp_path)[0]
    tries = out_of_memory.memory_suggestions(plan, on_gpu=True)
    assert re.fullmatch(r"--offload \(about .* MB\), --low_vram \(about .* MB\), a smaller .*", tries)
