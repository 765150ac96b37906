"""Of two runs that would write one result, the second is refused at once, and leaves nothing."""

import json

import pytest

from videogen.cli.chain import main as continuous
from videogen.results.output_locks import OutputLocks


@pytest.fixture
def others(tmp_path):
    """Locks of another run."""
    with OutputLocks() as locks:
        yield locks


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("more", [(), ("--resume",), ("--overwrite",)])
@pytest.mark.parametrize("name", ["a.mp4", "a.npy", "a"])  # they share record and segments
def test_one_result(cli, r2v, tmp_path, others, name, more):
    assert others.acquire(tmp_path, "a") is None
    finished = cli(*r2v, "--output", tmp_path / name, *more)
    assert (finished.code, finished.out) == (2, "")
    assert "another run is writing it (" in finished.complaint
    assert names(tmp_path) == [".a.lock"]
    assert cli(*r2v, "--output", tmp_path / name, "--dry_run").code == 0


def test_latents(cli, r2v, tmp_path, others):
    assert others.acquire(tmp_path, "shared") is None
    words = ("--output", tmp_path / "new/b.mp4", "--save_latents", tmp_path / "shared.safetensors")
    finished = cli(*r2v, *words)
    assert finished.code == 2
    assert "--save_latents" in finished.complaint
    assert names(tmp_path) == [".shared.lock"]


def test_a_list_of_jobs(cli, r2v, tmp_path, others):
    folder, jobs = tmp_path / "out", tmp_path / "jobs.jsonl"
    assert others.acquire(folder, "2_5") is None
    jobs.write_text("\n".join(json.dumps({"seed": seed}) for seed in (4, 5)))
    finished = cli(*r2v, "--jobs", jobs, "--output_dir", folder)
    assert (finished.code, finished.out) == (2, "")
    assert "2_5.mp4: another run is writing it" in finished.complaint
    assert names(folder) == [".2_5.lock"]


def test_a_chain(tmp_path, make_video, others, capsys):
    folder = tmp_path / "chain"
    assert others.acquire(folder, "chain") is None
    words = ["--video", make_video(), "--ckpt_dir", "tiny", "--output_dir", folder, "--no_vlm"]
    words += ["--device", "cpu", "--frame_num", 5]
    for more in ([], ["--resume"], ["--overwrite"]):
        assert continuous([str(word) for word in (*words, *more)]) == 2
        assert "another run is writing it (" in capsys.readouterr().err
    assert names(folder) == [".chain.lock"]


def test_default_names_go_past_another_run(cli, r2v, tmp_path, others, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda *args: "2026-01-02_03-04-05")
    assert others.acquire(tmp_path / "result/reference_to_video", "42_2026-01-02_03-04-05") is None
    assert cli(*r2v).paths[0].name == "42_2026-01-02_03-04-05_2.mp4"


def test_nothing_is_left_after_an_error(cli, r2v, tmp_path, monkeypatch):
    def explode(*args):
        raise RuntimeError("boom")

    monkeypatch.setattr("videogen.engine.session.set_up", explode)
    assert cli(*r2v, "--output", tmp_path / "deep/folder/a.mp4").code == 1
    assert not list(tmp_path.iterdir())
