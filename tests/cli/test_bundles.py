"""Bundles: packed results are made again elsewhere, and hostile zip files are refused."""

import json
import shutil
import stat
import zipfile

import numpy as np
import pytest

from tests.conftest import REFS


def test_a_bundle_is_made_again_elsewhere(cli, r2v, tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    for name in ("robot.png", "hills.png"):
        shutil.copy(REFS / name, here / name)
    monkeypatch.chdir(here)
    words = [word if not word.endswith("robot.png") else f"{here}/robot.png" for word in r2v]
    lines = [{"prompt": "a", "seed": 1}, {"prompt": "b", "seed": 2, "ref_imgs": ["robot.png", "hills.png"]}]
    (here / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = ("--output", here / "{seed}.npy", "--bundle", there / "b.zip")
    finished = cli(*words, "--jobs", "jobs.jsonl", *out)
    assert finished.code == 0, finished.err
    assert "b.zip: 2 results, " in finished.err
    with zipfile.ZipFile(there / "b.zip") as bundle:
        names = bundle.namelist()
        text = b"".join(bundle.read(name) for name in names if name.endswith((".json", ".jsonl")))
    assert {name.partition("/")[0] for name in names} == {"inputs", "results", "jobs.jsonl"}
    assert sum(name.startswith("inputs/") for name in names) == 2
    assert {"results/1/1.npy", "results/1/1.json", "results/2/2.npy"} <= set(names)
    assert str(tmp_path).encode() not in text
    again = cli(*words, "--jobs", "jobs.jsonl", *out[:3], there / "c.zip", "--resume")
    assert again.code == 0, again.err
    with zipfile.ZipFile(there / "c.zip") as bundle:
        assert bundle.namelist() == names
    kept = {seed: (here / f"{seed}.npy").read_bytes() for seed in (1, 2)}
    hashes = [json.loads((here / f"{seed}.json").read_text())["plan_hash"] for seed in (1, 2)]
    shutil.rmtree(here)
    monkeypatch.chdir(there)
    finished = cli("--from_metadata", "b.zip", "--device", "cpu", "--output", "{index}.npy", "--json")
    assert finished.code == 0, finished.err
    assert [(there / f"{seed}.npy").read_bytes() for seed in (1, 2)] == [kept[1], kept[2]]
    records = [json.loads(line) for line in finished.out.splitlines()]
    assert [record["plan_hash"] for record in records] == hashes
    assert len((there / "results.jsonl").read_text().splitlines()) == 2
    one = cli("--from_metadata", "b.zip:2", "--device", "cpu", "--output", "two.npy", "--prompt", "c")
    assert one.code == 0, one.err
    assert not np.array_equal(np.load("two.npy"), np.load("2.npy"))
    assert "has 2 results; nearest b.zip:2" in cli("--from_metadata", "b.zip:3").complaint
    listed = cli("--from_metadata", "b.zip", "--jobs", "x.txt")
    assert "is a list of videos itself; leave --jobs out" in listed.complaint


def line(**more):
    return json.dumps({"task_type": "reference_to_video", "model_id": "tiny", "prompt": "x", **more})


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


BAD = {
    "climbs": ({"../x": b"", "jobs.jsonl": line()}, "has a path that leads out of it ('../x')"),
    "climbs within": ({"inputs/../../x": b""}, "has a path that leads out of it"),
    "absolute": ({"/etc/x": b""}, "has a path that leads out of it ('/etc/x')"),
    "of Windows": ({"inputs\\..\\x": b""}, "has a path that leads out of it"),
    "link": ({link("inputs/x.png"): "/etc/passwd"}, "has a link in it ('inputs/x.png')"),
    "bomb": ({"inputs/x.png": bytes(200_000_000), "jobs.jsonl": line()}, "would grow from "),
    "no list": ({"x": b""}, "has no jobs.jsonl; ask for it again"),
    "no lines": ({"jobs.jsonl": ""}, "has no results"),
    "no JSON": ({"jobs.jsonl": "{"}, "is not a readable bundle ("),
    "no object": ({"jobs.jsonl": "[1]"}, "line 1 of its jobs.jsonl is not a JSON object"),
    "input of the host": ({"jobs.jsonl": line(ref_imgs=["/etc/passwd"])}, "names '/etc/passwd', which is no"),
    "input by URL": ({"jobs.jsonl": line(ref_imgs=["ftp://x/a.p"])}, "names 'ftp://x/a.p', which is no"),
    "missing input": ({"jobs.jsonl": line(ref_imgs=["inputs/a.png"])}, "names 'inputs/a.png', which is no"),
    "no names": ({"jobs.jsonl": line(ref_imgs="inputs/a.png")}, "line 1: ref_imgs must be a list of names"),
    "a local model": ({"jobs.jsonl": line(model_id="local:mine")}, "made with the local model 'mine'"),
    "about the run": ({"jobs.jsonl": line(overwrite=True)}, "is about the whole run"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_bundles_are_one_line(cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    entries, said = BAD[name]
    with zipfile.ZipFile("b.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
        for entry, content in entries.items():
            bundle.writestr(entry, content)
    finished = cli("--from_metadata", "b.zip", "--output_dir", "out")
    assert finished.code == 2, finished.err
    assert finished.complaint.startswith("error: --from_metadata b.zip")
    assert said in finished.complaint
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]


def test_what_is_no_zip(cli, tmp_path):
    (tmp_path / "b.zip").write_bytes(b"PK no")
    assert "is not a readable bundle" in cli("--from_metadata", tmp_path / "b.zip").complaint
    assert "no such file" in cli("--from_metadata", tmp_path / "c.zip").complaint


def test_a_bundle_that_cannot_be_written(cli, r2v, tmp_path):
    (tmp_path / "b.zip").write_bytes(b"")
    for target, said in (("b.tar", "must end in .zip; try"), ("b.zip", "exists already; add --overwrite")):
        words = ("--output", tmp_path / "a.npy", "--bundle", tmp_path / target)
        finished = cli(*r2v, *words)
        assert finished.code == 2
        assert said in finished.complaint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.zip"]
