"""The script for a lent GPU works from end to end: every check, at tiny sizes, on Card."""

import os
import subprocess
import sys

import pytest

from benchmarks.first_hour import CHECKS, Check, Row, outcome, table
from tests.conftest import ROOT
from tests.simulated.guard import has_compiler


@pytest.mark.slow
@pytest.mark.timeout(2500)
@pytest.mark.skipif(not has_compiler(), reason="needs g++ for the device guard")
def test_every_check_on_the_pretend_card(tmp_path):
    done = subprocess.run(
        [ROOT / "benchmarks" / "first_hour.sh", "--dry"],
        env={**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        timeout=2400,
    )
    written = (tmp_path / "FIRST_HOUR.md").read_text()
    assert done.returncode == 0, written + done.stderr[-2000:]
    assert "**no**" not in written
    for check in CHECKS:
        assert written.count(f"| {check.name} |") >= 2, written


def test_a_check_that_fails_or_hangs_is_a_row():
    failed, took = outcome(Check("no_such_check", 60), 60, dry=True)
    assert (failed.good, took.what) == (False, "seconds")
    assert "no_such_check" in failed.found
    hangs, _ = outcome(CHECKS[0], 0.2, dry=True)
    assert (hangs.good, hangs.found) == (False, "not finished in 0 s")
    lines = list(table({"attention": [Row("one", "a|b", "c", good=True), hangs]}))
    assert "| attention | one | a/b | c | ok |" in lines
    assert lines[-1].endswith("| **no** |")
