"""--ray: a list on a Ray cluster of this machine, whose GPUs are only numbers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from tests.processes import Running
from videogen.cli.main import main

WORDS = ("--task_type", "text_to_video", "--model_id", "tiny", "--device", "cpu", "--num_frames", "9")
STEPS = 50  # so that there is time to kill and to interrupt
LINES = 4


@pytest.fixture(scope="module")
def cluster():
    """Address of a cluster with two places, and the folder that tells its processes from others."""
    pytest.importorskip("ray")
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets have short names
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    resources = ["--num-cpus", "2", "--num-gpus", "2", "--object-store-memory", "100000000"]
    quiet = ["--include-dashboard", "false", "--disable-usage-stats", "--temp-dir", str(folder)]
    start = [*ray, "start", "--head", "--port", "0", *resources, *quiet]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    subprocess.run(start, check=True, capture_output=True, env=environment)
    yield (folder / "ray_current_cluster").read_text().strip(), folder
    own = [process for process in psutil.process_iter(["cmdline"]) if _is_of(process, folder)]
    for process in own:
        process.kill()
    psutil.wait_procs(own)
    shutil.rmtree(folder, ignore_errors=True)


def _is_of(process, folder):
    return any(str(folder) in word for word in process.info["cmdline"] or ())


def workers(folder):
    """Return the processes that make videos on the cluster."""
    found = []
    for raylet in psutil.process_iter(["cmdline", "name"]):
        if raylet.info["name"] == "raylet" and _is_of(raylet, folder):
            found += [child for child in raylet.children() if child.name().startswith("ray::Worker")]
    return found


def in_work(running):
    """Return how many videos are being made."""
    return running.stderr.count('"event": "video"') - running.stderr.count('"event": "saved"')


def jobs(folder, *, lines=LINES, steps=STEPS):
    file = folder / "jobs.jsonl"
    entries = [{"prompt": f"swan {n}", "seed": n, "num_inference_steps": steps} for n in range(1, lines + 1)]
    file.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return [*WORDS, "--jobs", str(file)]


def into(folder):
    return ["--output_dir", str(folder), "--save_latents", str(folder / "{index}.safetensors")]


def outcomes(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def leftovers(folder):
    return [path.name for path in folder.rglob(".*")]


@pytest.mark.slow
def test_the_videos_of_a_killed_worker_go_to_another(cluster, tmp_path):
    address, folder = cluster
    words, made, serial = jobs(tmp_path), tmp_path / "made", tmp_path / "serial"
    running = Running(*words, *into(made), "--ray", address, "--progress", "json")
    running.wait_for(lambda: in_work(running) == 2)
    workers(folder)[0].kill()
    code, out, err = running.end()
    assert code == 0, err
    assert "its worker was lost" in err
    assert sorted(outcome["index"] for outcome in outcomes(made)) == list(range(1, LINES + 1))
    assert {outcome["status"] for outcome in outcomes(made)} == {"made"}
    assert sorted(out.split()) == [str(made / f"{n}_{n}.mp4") for n in range(1, LINES + 1)]
    assert not leftovers(made)
    events = [json.loads(line) for line in err.splitlines()]
    assert len([event for event in events if event["event"] == "saved"]) == LINES
    assert (events[-1]["event"], events[-1]["videos"], events[-1]["failed"]) == ("done", LINES, 0)

    assert Running(*words, *into(serial)).end()[0] == 0
    for n in range(1, LINES + 1):
        name = f"{n}.safetensors"
        assert (made / name).read_bytes() == (serial / name).read_bytes()
        records = [json.loads((place / f"{n}_{n}.json").read_text()) for place in (made, serial)]
        assert records[0]["plan_hash"] == records[1]["plan_hash"]


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_half_written_and_resume_goes_on(cluster, tmp_path):
    address, folder = cluster
    words, made = jobs(tmp_path), tmp_path / "made"
    running = Running(*words, *into(made), "--ray", address, "--progress", "json")
    running.wait_for(lambda: '"event": "saved"' in running.stderr and workers(folder))
    running.send(signal.SIGINT)
    code, out, err = running.end(60)
    assert code == 130, err
    assert '"event": "stopping"' in err
    assert "Traceback" not in err
    assert not leftovers(made)
    end = time.monotonic() + 30
    while workers(folder):
        assert time.monotonic() < end
    first = len(list(made.glob("*.mp4")))  # one may be complete that nobody has read of any more
    assert 0 < len(out.split()) <= first < LINES

    code, out, err = Running(*words, *into(made), "--ray", address, "--resume").end()
    assert code == 0, err
    assert f"{LINES} videos: {LINES - first} made, {first} skipped, 0 failed" in err
    assert sorted(out.split()) == [str(made / f"{n}_{n}.mp4") for n in range(1, LINES + 1)]


@pytest.mark.slow
def test_results_are_sent_to_the_machine_that_asked(cluster, tmp_path):
    words, made, serial = jobs(tmp_path, lines=2, steps=2), tmp_path / "made", tmp_path / "serial"
    names = ["--output", "{index}", "--save_latents", "latents/{index}.safetensors"]  # folders of pictures
    for folder, ray in ((made, ("--ray", cluster[0], "--fetch", "--gpus_per_job", "0")), (serial, ())):
        folder.mkdir()
        own = [str(folder / word) if "{" in word else word for word in names]
        code, out, err = Running(*words, *own, *ray).end()
        assert code == 0, err
        assert sorted(out.split()) == [str(folder / "1"), str(folder / "2")]
        assert not leftovers(folder)
    files = [
        path.relative_to(serial)
        for path in sorted(serial.rglob("*"))
        if path.suffix in (".png", ".safetensors")
    ]
    assert len(files) == 2 * (9 + 1)
    for file in files:
        assert (made / file).read_bytes() == (serial / file).read_bytes()
    record = json.loads((made / "1.json").read_text())
    assert record["output"] == "1"


@pytest.mark.slow
def test_several_ranks_make_a_video_on_one_worker(cluster, tmp_path):
    words, made, serial = jobs(tmp_path, lines=2, steps=2), tmp_path / "made", tmp_path / "serial"
    words = [*words, "--dtype", "float32"]
    code, _, err = Running(*words, *into(made), "--ray", cluster[0], "--gpus_per_job", "2", "--use_usp").end()
    assert code == 0, err
    assert Running(*words, *into(serial)).end()[0] == 0
    for n in (1, 2):
        one, other = (load_file(place / f"{n}.safetensors")["latents"] for place in (made, serial))
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)
        assert json.loads((made / f"{n}_{n}.json").read_text())["ranks"]["ulysses"] == 2


@pytest.mark.slow
def test_a_failing_video_and_too_many_gpus_are_a_line(cluster, tmp_path, monkeypatch):
    words, made = jobs(tmp_path, lines=2, steps=2), tmp_path / "made"
    code, out, err = Running(
        *words, *into(made), "--ray", cluster[0], "--gpus_per_job", "4", "--use_usp"
    ).end()
    assert (code, out) == (2, "")
    assert "--gpus_per_job 4: no machine of the cluster has as many GPUs; nearest 2" in err
    words += ["--attention_backend", "native", "--device", "cuda"]  # which workers find out
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray writes a token into the home folder
    code, out, err = Running(*words, *into(made), "--ray").end()  # a Ray of its own
    assert (code, out) == (1, "")
    assert [outcome["status"] for outcome in outcomes(made)] == ["failed", "failed"]
    assert "2 videos: 0 made, 0 skipped, 2 failed" in err


@pytest.mark.slow
def test_an_address_that_does_not_answer_is_a_line_within_ten_seconds(tmp_path):
    pytest.importorskip("ray")
    address = "127.0.0.1:1"
    started = time.monotonic()
    code, out, err = Running(*jobs(tmp_path), *into(tmp_path / "made"), "--ray", address).end()
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: --ray {address}: no Ray cluster answers there")
    assert time.monotonic() - started < 20  # with the start of two processes
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ray", "ray://head:10001"), "--ray ray://head:10001: a Ray Client cannot be used"),
        (("--ray", "head"), "--ray head: must be HOST:PORT, auto or local; nearest head:6379"),
        (("--fetch",), "--fetch: is about a Ray cluster; add --ray"),
        (("--gpus_per_job", "2"), "--gpus_per_job: is about a Ray cluster; add --ray"),
        (("--ray", "--caption_only"), "--ray: not together with --caption_only"),
    ],
)
def test_what_a_cluster_cannot_be_asked(tmp_path, capsys, words, message):
    assert main([*jobs(tmp_path), *into(tmp_path / "made"), *words]) == 2
    assert message in capsys.readouterr().err


def test_without_ray_the_line_says_how_to_install_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*jobs(tmp_path), *into(tmp_path / "made"), "--ray"]) == 2
    assert (
        "--ray: needs the package ray, not installed; pip install 'videogen[ray]'" in capsys.readouterr().err
    )
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.jsonl"]
