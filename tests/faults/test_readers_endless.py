"""Files that have no end: a pipe that nobody writes to, and a device that always has more."""

import os
import time

import pytest

from videogen.checkpoints.json_files import read_json
from videogen.checkpoints.layouts import detect
from videogen.cli import jobs, sources
from videogen.errors import CheckpointError, InputError, brief
from videogen.media.audio import read_audio
from videogen.media.download import Fetcher
from videogen.media.image import read_image
from videogen.media.video_reader import read_video
from videogen.results import sidecar
from videogen.tasks.options import OPTIONS

FETCHER = Fetcher(folder=None)
READERS = {
    "--config": sources.from_config,
    "--jobs": lambda file: jobs.read_jobs(file, {}, {}),
    "--roll_prompts": OPTIONS["roll_prompts"].value,
    "--from_metadata": lambda file: sources.from_metadata(file, {}),
    "--input_image": lambda file: read_image("--input_image", file, FETCHER),
    "--input_video": lambda file: read_video("--input_video", file, FETCHER),
    "--input_audio": lambda file: read_audio("--input_audio", file, FETCHER),
}


@pytest.fixture(params=["/dev/zero", "pipe"])
def endless(request, tmp_path):
    if request.param == "pipe":
        os.mkfifo(tmp_path / "pipe")
        return tmp_path / "pipe"
    return tmp_path / request.param


@pytest.mark.parametrize("flag", READERS)
def test_inputs_without_end(endless, flag):
    started = time.monotonic()
    with pytest.raises(InputError) as refused:
        READERS[flag](str(endless))
    assert str(refused.value).startswith(f"{flag} {brief(endless)}: ")
    assert time.monotonic() - started < 1


def test_configs_without_end(endless):
    with pytest.raises(CheckpointError, match=str(endless)):
        read_json(endless)
    assert sidecar.read_record(endless) is None
    assert detect(endless) is None


def test_a_config_that_is_too_large(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"#" * 500_001)
    with pytest.raises(InputError, match=r"larger than 0\.5 MB"):
        sources.from_config(str(tmp_path / "a.yaml"))
