"""--contact_sheet of a run; --show, --diff, --sheet and --report of what is there."""

import json
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.review.results import write_result
from videogen.results.digest import digest


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Two results, in the folder where commands run."""
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        write_result(tmp_path, f"{seed}.mp4", request={"seed": seed, "shift": 3.0})
    return tmp_path


def test_a_contact_sheet_is_part_of_the_result(cli, r2v, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # messages shorten long paths
    assert cli(*r2v, "--output", tmp_path / "a.npy", "--contact_sheet", "--seed", 1).code == 0
    sheet, record = tmp_path / "a.sheet.png", json.loads((tmp_path / "a.json").read_text())
    assert record["files"]["sheet"] == digest(sheet)
    assert "contact_sheet" not in record["request"]
    frames, picture = np.load(tmp_path / "a.npy"), np.asarray(Image.open(sheet))
    assert len(frames) == 5
    assert picture.shape[1] > 2 * 96, "three columns, scaled up"
    again = cli(*r2v, "--output", tmp_path / "a.npy", "--contact_sheet", "--seed", 1)
    assert "a.npy: exists already; add --overwrite" in again.complaint
    (tmp_path / "b.sheet.png").write_bytes(b"mine")
    finished = cli(*r2v, "--output", "b.mp4", "--contact_sheet", 3)
    assert (finished.code, "b.sheet.png: exists already" in finished.complaint) == (2, True)
    assert cli(*r2v, "--output", tmp_path / "b", "--contact_sheet", 1, "--overwrite", "--seed", 1).code == 0
    assert Image.open(tmp_path / "b.sheet.png").size == (112, 64 + 36), "one frame of 96x64 with its time"
    resumed = cli(*r2v, "--output", tmp_path / "b", "--contact_sheet", 1, "--resume", "--seed", 1)
    assert (resumed.code, "loading" in resumed.err) == (0, False), resumed.err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_failure_leaves_no_contact_sheet(cli, r2v, tmp_path, monkeypatch):
    from videogen.pipelines.wan import WanPipeline

    monkeypatch.setattr(WanPipeline, "velocity", lambda self, segments, *_: segments[0].latents * np.nan)
    assert cli(*r2v, "--output", tmp_path / "a.mp4", "--contact_sheet").code == 1
    assert not list(tmp_path.iterdir())


def test_no_framework_is_needed(results):
    code = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers'): sys.modules[name] = None\n"
        "from videogen.cli.main import main\n"
        "for words in (['--show', '1.mp4'], ['--diff', '1.mp4', '2.mp4', '--output', 'side.mp4'],\n"
        "              ['--sheet', '.', '--columns', 'seed'], ['--report', '.']):\n"
        "    assert main(words) == 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("side.mp4", "sheet_seed.png", "report.html", "results.csv"):
        assert (results / name).stat().st_size > 0
        assert name in done.stdout


def test_show(cli, results):
    shown = cli("--show", "1.mp4")
    lines = dict(line.split(maxsplit=1) for line in shown.out.splitlines() if "option" not in line)
    assert lines["prompt"] == "a robot waves"
    assert lines["size"] == "64x48, 5 frames at 16 fps (0.312 s)"
    assert lines["time"] == "12 s, 0.5 s/step"
    assert lines["memory"] == "1.5 GB of RAM"
    assert "option     --shift 3 (default 8)" in shown.out.splitlines()
    assert shlex.split(lines["again"])[2:4] == ["--from_metadata", "1.mp4"]
    told = json.loads(cli("--show", "1.json", "--json").out)
    assert told["changed_options"]["shift"] == {"value": 3.0, "default": 8.0}
    assert (told["path"], told["record"], told["seconds"]["total"]) == ("1.mp4", "1.json", 12.5)


def test_what_show_says_makes_it_again(cli, results):
    *_, command = cli("--show", "1.mp4").out.splitlines()
    words = shlex.split(command.partition(" ")[2])[2:]
    finished = cli(*words, "--dry_run", "--json")
    assert finished.code == 0, finished.err
    plan = json.loads(finished.out)
    assert (plan["request"]["seed"], plan["request"]["shift"]) == (1, 3.0)
    assert plan["output"] == "1_again.mp4"


def test_diff(cli, results):
    finished = cli("--diff", "1.mp4", "2.json", "--json")
    told = json.loads(finished.out)
    assert told["options"] == {"seed": [1, 2]}
    assert told["frames"] == 5
    assert 0 < told["ssim"]["min"] <= told["ssim"]["mean"] < 1
    assert cli("--diff", "1.mp4", "1.json").out.splitlines() == [
        "options    all are equal",
        "frames     all 5 are equal",
    ]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--show none.mp4", "--show none.mp4: no such file; give a result of videogen"),
        ("--show text.txt", "--show text.txt: is no result of videogen, or its record is gone; give"),
        ("--diff 1.mp4", "--diff 1.mp4: compares two results, and 1 are named; for example --diff a.mp4"),
        ("--diff 1.mp4 text.txt", "--diff text.txt: is no result of videogen"),
        ("--diff 1.mp4 2.mp4 --output x.txt", "--output x.txt: must end in .mp4, .mov"),
        ("--diff 1.mp4 2.mp4 --output 1.mp4", "--output 1.mp4: is one of the results themselves"),
        ("--diff 1.mp4 2.mp4 --output text.mp4", "--output text.mp4: exists already; add --overwrite"),
        ("--diff gone.json 2.mp4", "--diff gone.mp4: its record is there, but the video is gone"),
        ("--sheet .", "--sheet .: needs options to arrange by; give --rows or --columns"),
        ("--sheet . --rows shfit", "--rows shfit: is not an option; nearest shift"),
        (
            "--sheet . --rows output",
            "--rows output: is not recorded with results; these results differ in seed",
        ),
        ("--sheet . --columns audio", "--columns audio: none of these results has it"),
        ("--sheet . --rows seed --output a.txt", "--output a.txt: must end in .png, .mp4"),
        ("--sheet none --rows seed", "--sheet none: no such folder"),
        ("--sheet 1.mp4 --rows seed", "--sheet 1.mp4: is not a folder"),
        ("--rows seed", "--rows: arranges a sheet; add --sheet, or leave it out"),
        ("--report empty", "--report empty: holds no results of videogen"),
        ("--report . --output page.pdf", "--output page.pdf: must end in .html; try page.html"),
        ("--report . --prompt x", "--prompt x: is not used by --report; leave it out"),
        ("--show 1.mp4 --diff 1.mp4 2.mp4", "--diff 1.mp4,2.mp4: is not used by --show; leave it out"),
        ("--show 1.mp4 --overwrite", "--overwrite: is not used by --show; leave it out"),
    ],
)
def test_bad_input(cli, results, words, complaint):
    (results / "text.txt").write_text("no result")
    (results / "text.mp4").write_text("mine")
    (results / "empty").mkdir()
    write_result(results, "gone.mp4").unlink()
    finished = cli(*words.split())
    assert finished.code == 2
    assert complaint in finished.complaint


def test_what_the_sheet_leaves_out_is_said(cli, results):
    write_result(results, "3.mp4", request={"seed": 1, "shift": 5.0})
    finished = cli("--sheet", ".", "--rows", "flow-shift", "--columns", "seed", "--json")
    told = json.loads(finished.out)
    assert told == {"path": "sheet_shift_seed.png", "values": {"shift": ["3", "5"], "seed": ["1", "2"]}}
    assert "no result for shift 5, seed 2" in finished.err
