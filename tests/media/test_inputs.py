"""Input files: each kind has a reader, and none is imported before a file of its kind is read."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from videogen.errors import InputError
from videogen.media.download import Fetcher
from videogen.media.inputs import READERS, reader_of


def test_no_decoder_is_imported_while_there_is_no_input():
    heavy = {"av", "decord", "numpy", "PIL", "soundfile", "soxr", "pyloudnorm", "scipy", "torch"}
    code = (
        f"import sys, videogen.cli.main, videogen.planning.request; print(sorted({heavy} & {{*sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", READERS)
def test_every_kind_has_a_reader(kind, tmp_path):
    (tmp_path / "a").write_bytes(b"no file of any kind")
    with pytest.raises(InputError, match=f"--{kind} .*(is not|is no)"):
        reader_of(kind)(f"--{kind}", str(tmp_path / "a"), Fetcher(folder=tmp_path))
