"""A process ends at once, and loses nothing by it."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

CODE = """
import atexit, sys, threading, time
from videogen.cli.process_end import end
atexit.register(lambda: print("cleaned up"))
def late():
    time.sleep(0.3)
    print("thread is done")
threading.Thread(target=late).start()
class Slow:
    def __del__(self):
        print("taken apart")
kept = Slow()
print("work is done")
sys.stderr.write("said")
end({code})
"""


@pytest.mark.parametrize("code", [0, 3])
def test_threads_and_cleaning_come_first(code):
    command = [sys.executable, "-c", CODE.format(code=code)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout.split("\n") == ["work is done", "thread is done", "cleaned up", ""]
    assert done.stderr == "said"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_output_that_cannot_be_written_is_told():
    code = "from videogen.cli.process_end import end; print('x'); end(0)"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=ROOT, env=buffered, stdout=full, check=False)
    assert done.returncode == 120
