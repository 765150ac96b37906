"""Paths, folders, streams and inputs that fail from outside: one line each, and no lost work."""

import shutil
import subprocess
import sys

import pytest

from tests.conftest import REFS, ROOT
from videogen.cli import main as command_line
from videogen.cli.parser import parse
from videogen.errors import CheckpointError, InputError, VideoGenError
from videogen.tasks.option_types import file_path, folder, lora, path, paths, prompts
from videogen.tasks.options import OPTIONS

LONG = "a" * 300
PATHS = [
    option.name
    for option in OPTIONS.values()
    if option.parse in (path, file_path, folder, paths, prompts, lora)
]
RESULTS = [option.name for option in OPTIONS.values() if option.parse is file_path]


def test_every_flag_that_takes_a_file_is_checked():
    assert len(PATHS) == 24
    assert RESULTS == ["output", "save_latents", "save_last_frame", "bundle", "from_metadata", "status"]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("value", [LONG, f"{LONG}.mp4", f"x/{LONG}/y.png", "x/" * 2500, "~nosuchuser/x"])
def test_a_path_that_cannot_be_is_refused(name, value):
    with pytest.raises(InputError, match=r"255 bytes|no user ~nosuchuser"):
        parse([f"--{name}", value])


@pytest.mark.parametrize("name", PATHS)
def test_links_in_a_circle_are_refused(name, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for value in (tmp_path / "loop", tmp_path / "loop/a.mp4"):
        with pytest.raises(InputError, match=r"lead in a circle|cannot be read"):
            parse([f"--{name}", str(value)])


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("value", [".", "/", "..", "x/.."])
def test_a_result_needs_a_name(name, value):
    with pytest.raises(InputError, match="names no file"):
        parse([f"--{name}", value])


def test_a_cache_that_cannot_be_used_names_its_variable(cli, r2v, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for given in (tmp_path / "file", "~nosuchuser/cache"):
        monkeypatch.setenv("VIDEOGEN_CACHE", str(given))
        finished = cli(*r2v, "--output", tmp_path / "a.mp4")
        assert finished.code == 3
        assert f"the cache folder {given}" in finished.complaint
        assert "set VIDEOGEN_CACHE to" in finished.complaint


def test_a_full_cache_names_its_variable(cli, r2v, tmp_path, monkeypatch):
    from videogen.cli import own_folders
    from videogen.models import tiny

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("VIDEOGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tiny, "build", full)
    monkeypatch.setattr(own_folders, "FEW_BYTES", 1 << 62)
    finished = cli(*r2v, "--output", tmp_path / "a.mp4")
    assert finished.code == 3
    assert "No space left on device; set VIDEOGEN_CACHE to" in finished.complaint


def test_a_temporary_folder_that_is_missing_names_its_variable(cli, r2v, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    finished = cli(*r2v, "--dry_run")
    assert finished.code == 3
    assert "set TMPDIR to" in finished.complaint


def test_a_cache_of_models_that_cannot_be_written_names_its_variable():
    from huggingface_hub import constants

    error = CheckpointError("--model_id a/b: could not be downloaded")
    error.__context__ = OSError(30, "Read-only file system", f"{constants.HF_HOME}/hub/models--a--b")
    assert command_line.verdict(error) == (
        3,
        f"the cache folder of models {constants.HF_HOME}: Read-only file system; "
        "set HF_HOME to a folder with space that can be written",
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full and a shell")
@pytest.mark.parametrize(
    ("streams", "code", "says"),
    [
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        (">&-", 0, ""),
        (">/dev/full", 1, "error: stdout cannot be written"),
    ],
)
def test_closed_and_full_streams(r2v, streams, code, says):
    words = [sys.executable, ROOT / "generate_video.py", *r2v, "--dry_run"]
    line = f"{' '.join(repr(str(word)) for word in words)} {streams}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert says in done.stderr


def test_work_goes_on_where_stdout_fails(monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    made = []
    monkeypatch.setattr("builtins.print", full)
    with pytest.raises(VideoGenError, match="stdout cannot be written"):
        command_line.say(str(made.append(index)) for index in range(3))
    assert made == [0, 1, 2]


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_an_input_that_changes_during_the_run_is_one_line(cli, r2v, tmp_path, monkeypatch, change):
    from videogen.engine import session

    image, plain = tmp_path / "in.png", session.set_up

    def set_up(plan, reporter):
        image.unlink() if change == "removed" else image.write_bytes(b"x")
        return plain(plan, reporter)

    shutil.copy(REFS / "robot.png", image)
    monkeypatch.setattr(session, "set_up", set_up)
    finished = cli(*r2v, "--ref_imgs", image, "--output", tmp_path / "a.mp4")
    assert finished.code == 2
    assert {"removed": "cannot be read any more", "replaced": "was replaced during the run"}[change] in (
        finished.complaint
    )
    assert not (tmp_path / "a.mp4").exists()
