"""No damaged file of any kind ends a reader with a foreign error, a crash, a hang or gigabytes."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import GOLDEN, ROOT
from tests.faults import samples

MUTANTS = os.environ.get("VIDEOGEN_MUTANTS", "50")


@pytest.mark.slow
def test_damaged_files(tmp_path):
    samples.make(tmp_path, GOLDEN / "skyreels_v3/checkpoint-r2v")
    command = [sys.executable, "-m", "tests.faults.fuzz", str(tmp_path), "--mutants", MUTANTS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert len(report) >= 40
    wrong = {name: found for name, found in report.items() if found["examples"]}
    assert not wrong
