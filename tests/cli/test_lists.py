"""Lists as a queue: order, shares of several runs, results.jsonl, and one more try."""

import json
import threading

import numpy as np
import pytest
import torch

from tests.commands import T2V
from videogen.engine import load, queue, session
from videogen.engine.outcome import LOG
from videogen.errors import brief
from videogen.planning.request import Item, make_plans
from videogen.results.output_paths import OverwritePolicy
from videogen.results.progress import Progress, Reporter
from videogen.tasks.list_options import Shard, of_array
from videogen.tasks.option_types import Reject


@pytest.fixture
def jobs(tmp_path):
    """Return a function that writes a list."""

    def write(*lines):
        path = tmp_path / "jobs.jsonl"
        path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
        return path

    return write


def logged(folder):
    return [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]


def test_models_are_loaded_once_and_the_log_says_what_became_of_every_line(cli, jobs, tmp_path, monkeypatch):
    loads, original = [], load.load_pipeline
    monkeypatch.setattr(load, "load_pipeline", lambda *args: (loads.append(1), original(*args))[1])
    one, other = {"prompt": "a", "dtype": "float32"}, {"prompt": "b", "dtype": "bfloat16"}
    file = jobs(one, other, one, other)
    out = tmp_path / "sorted"
    words = (*T2V, "--jobs", file, "--seed", 5)
    finished = cli(*words, "--output", out / "{index}.npy")
    assert finished.code == 0, finished.err
    assert [path.name for path in finished.paths] == ["1.npy", "3.npy", "2.npy", "4.npy"]
    assert len(loads) == 2
    assert "4 videos: 4 made, 0 skipped, 0 failed in " in finished.err
    first, *_ = records = logged(out)
    assert [record["index"] for record in records] == [1, 3, 2, 4]
    sidecar = json.loads((out / "1.json").read_text())
    assert first == {
        "index": 1,
        "line": f"--jobs {file} line 1",
        "status": "made",
        "path": str(out / "1.npy"),
        "seed": 5,
        "plan_hash": sidecar["plan_hash"],
        "seconds": first["seconds"],
        "exit_code": 0,
    }
    assert first["seconds"] >= sidecar["seconds"]["denoise"]
    loads.clear()
    kept = cli(*words, "--output", tmp_path / "kept" / "{index}.npy", "--keep_order")
    assert [path.name for path in kept.paths] == ["1.npy", "2.npy", "3.npy", "4.npy"]
    assert len(loads) == 4
    for name in ("1.npy", "2.npy"):
        assert (tmp_path / "kept" / name).read_bytes() == (out / name).read_bytes()


def test_the_log_goes_on_over_failures_and_resumed_runs(cli, jobs, tmp_path, monkeypatch):
    original = session.write

    def fail_once(plan, *args, **kwargs):
        if plan.index == 1:
            raise RuntimeError("boom\nat once")
        return original(plan, *args, **kwargs)

    monkeypatch.setattr(session, "write", fail_once)
    words = (*T2V, "--jobs", jobs({"prompt": "a"}, {"prompt": "b"}), "--output_dir", tmp_path / "out")
    finished = cli(*words, "--seed", 5)
    assert finished.code == 1
    assert "2 videos: 1 made, 0 skipped, 1 failed in " in finished.err
    monkeypatch.undo()
    assert cli(*words, "--seed", 5, "--resume").code == 0
    records = logged(tmp_path / "out")
    assert [(record["index"], record["status"]) for record in records] == [
        (1, "failed"),
        (2, "made"),
        (1, "made"),
        (2, "skipped"),
    ]
    assert (records[0]["error"], records[0]["exit_code"]) == ("RuntimeError: boom at once", 1)


def test_shares_make_what_one_run_makes(cli, jobs, tmp_path):
    file = jobs({"prompt": "a", "seed": [1, 2]}, {"prompt": "b", "seed": 3})
    assert cli(*T2V, "--jobs", file, "--output", tmp_path / "one" / "{index}_{seed}.npy").code == 0
    names = []
    for share in ("0/2", "1/2", "3/4"):
        words = ("--output", tmp_path / "two" / "{index}_{seed}.npy", "--shard", share)
        finished = cli(*T2V, "--jobs", file, *words)
        assert finished.code == 0, finished.err
        names.append([path.name for path in finished.paths])
    assert names == [["1_1.npy", "3_3.npy"], ["2_2.npy"], []]
    assert "--shard 3/4: the list has no video for it" in finished.err
    for name in names[0] + names[1]:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert [record["index"] for record in logged(tmp_path / "two")] == [1, 3, 2]
    again = cli(*T2V, "--jobs", file, *words[:2], "--shard", "0/2", "--resume")
    assert (again.code, [path.name for path in again.paths]) == (0, names[0])


def test_shares_draw_one_seed(cli, jobs, tmp_path):
    file = jobs(*({"prompt": str(number)} for number in range(4)))
    seeds = set()
    for share, device in (("0/2", "cpu"), ("1/2", "auto")):
        words = ("--shard", share, "--device", device, "--output_dir", tmp_path, "--dry_run", "--json")
        out = cli(*T2V, "--jobs", file, *words).out
        plans = [json.loads(line) for line in out.splitlines()]
        seeds |= {plan["request"]["seed"] for plan in plans}
        assert len(plans) == 2
    assert len(seeds) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--shard", "4/4"), "--shard 4/4: shares of 4 are numbered from 0 to 3; nearest 3/4"),
        (("--shard", "1/0"), "--shard 1/0: must be of at least one share; nearest 0/1"),
        (("--shard", "-1/4"), "--shard -1/4: must be I/N, or auto in a SLURM array; for example 0/4"),
        (("--shard", "auto"), "--shard auto: this is no job of a SLURM array; give I/N"),
        (("--shard", "0/2"), "--shard: needs names that stay the same; give --output or --output_dir"),
        (("--shard", "0/2", "--bundle", "b.zip"), "--bundle: not together with --shard"),
        (("--retry", "low_vram"), "--retry low_vram: must be one of offload"),
    ],
)
def test_shares_that_cannot_be(cli, jobs, words, said, monkeypatch):
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    finished = cli(*T2V, "--jobs", jobs({"prompt": "a"}), *words)
    assert finished.code == 2
    assert said in finished.complaint


def test_options_of_lists_need_a_list(cli):
    for words in (("--shard", "0/2"), ("--keep_order",)):
        finished = cli(*T2V, "--prompt", "x", *words)
        assert (finished.code, "is about a list of videos; add --jobs" in finished.complaint) == (2, True)
    assert "have no shares" in cli(*T2V, "--jobs", "-", "--shard", "0/2").complaint


def test_shares_of_a_slurm_array():
    def array(number, first, last, count, **more):
        given = {"ID": number, "MIN": first, "MAX": last, "COUNT": count, **more}
        return of_array({f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in given.items()})

    assert [array(i, 0, 7, 8) for i in (0, 7)] == [Shard(0, 8), Shard(7, 8)]
    assert array(3, 1, 4, 4) == Shard(2, 4)
    assert array(20, 10, 30, 3, STEP=10) == Shard(1, 3)
    with pytest.raises(Reject, match="has gaps"):
        array(5, 1, 7, 3)


def test_two_videos_never_share_a_file_also_in_two_shares(cli, jobs, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("a.npy", "link/a.npy"):
        lines = [
            {"prompt": "a", "output": f"{tmp_path}/b.npy"},
            {"prompt": "b", "output": f"{tmp_path}/a.npy"},
            {"prompt": "c", "output": f"{tmp_path}/{name}"},
        ]
        file = jobs(*lines)
        for more in ((), ("--shard", "0/2")):
            finished = cli(*T2V, "--jobs", file, *more)
            assert finished.code == 2
            what = f"{brief(tmp_path / name)}: --jobs {file} line 2 has this name too; give each its own"
            assert f"{file} line 3: --output {what}" in finished.complaint
    finished = cli(*T2V, "--jobs", jobs({"prompt": ["a", "b"], "output": f"{tmp_path}/a.npy"}))
    assert "line 1: --output" in finished.complaint
    assert "two videos would get this name; use {seed} and {index} in it" in finished.complaint


def test_no_second_try_where_it_would_change_nothing(cli, jobs, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(session, "write", fail)
    file = jobs({"prompt": "a"}, {"prompt": "b"})
    finished = cli(*T2V, "--jobs", file, "--output_dir", tmp_path / "out", "--retry", "offload")
    assert finished.code == 1
    assert finished.err.count("(--retry offload: not tried, it would change nothing here)") == 2
    assert [record["exit_code"] for record in logged(tmp_path / "out")] == [4, 4]


def test_a_video_is_cancelled_and_the_next_is_made(tmp_path):
    """As a server does: the queue in one thread, the wish to stop from another."""
    values = {"task_type": "text_to_video", "model_id": "tiny", "prompt": "a", "seed": (1, 2)}
    values |= {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 3, "device": "cpu"}
    item = Item(values={**values, "output": f"{tmp_path}/{{seed}}.npy"})
    plans = make_plans([item], OverwritePolicy(), tmp_path)
    stopped = []

    def render(report):
        if isinstance(report.event, Progress) and report.event.stage == "denoise" and report.index == 1:
            thread = threading.Thread(target=lambda: stopped.append(made.cancel(1)))
            thread.start()
            thread.join()

    made = queue.Queue(Reporter(render))
    first, second = (made.make(plan) for plan in plans)
    made.close()
    assert stopped[0] and not made.cancel(2)
    assert (first.status, first.record()["error"], first.record()["exit_code"]) == (
        "failed",
        "cancelled",
        130,
    )
    assert second.status == "made"
    assert np.load(tmp_path / "2.npy").shape == (5, 32, 48, 3)
    assert not (tmp_path / "1.npy").exists()
