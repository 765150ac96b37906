"""Fixtures of the tests of media: small videos, made once for every test module."""

from functools import partial

import pytest

from tests.media import videos
from videogen.media.download import Fetcher
from videogen.media.video_reader import read_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def make(folder):
    """Path of one of ``videos.FILES``, or of whatever ffmpeg makes of the words given."""
    return partial(videos.make, folder)


@pytest.fixture
def read(make, tmp_path):
    return lambda name, *words: read_video("--input_video", str(make(name, *words)), Fetcher(folder=tmp_path))
