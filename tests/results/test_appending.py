"""Files that several processes append to."""

import subprocess
import sys

from tests.conftest import ROOT
from videogen.results.appending import append, keep_lines

WRITER = """
import sys
from pathlib import Path
from videogen.results.appending import append
for number in range(60):
    append(Path(sys.argv[1]), f"{sys.argv[2]} {number} {'x' * 20_000}\\n", header="head\\n")
"""


def test_lines_are_appended_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    append(path, "one\n", header="head\n")
    append(path, "two\n", header="head\n")
    path.write_text(path.read_text() + "cut")
    append(path, "three\n", header="head\n")
    assert path.read_text().splitlines() == ["head", "one", "two", "cut", "three"]


def test_processes_do_not_mix_their_lines(tmp_path):
    path = tmp_path / "a.txt"
    command = [sys.executable, "-c", WRITER, path]
    writers = [subprocess.Popen([*command, name], cwd=ROOT) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    head, *lines = path.read_text().splitlines()
    assert head == "head"
    assert sorted(line[:-20_000] for line in lines) == sorted(f"{n} {i} " for n in "abc" for i in range(60))


def test_what_is_removed_takes_no_line_that_is_appended_meanwhile(tmp_path):
    path = tmp_path / "a.txt"
    link = tmp_path / "link.txt"
    link.symlink_to(path)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, link, name], cwd=ROOT) for name in "ab"]
    number = 0
    while any(writer.poll() is None for writer in writers):
        append(path, f"cut {number}\n", header="head\n")
        keep_lines(link, lambda line: not line.startswith("cut"))
        number += 1
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert number > 1
    assert link.is_symlink()
    head, *lines = path.read_text().splitlines()
    assert head == "head"
    assert sorted(line[:-20_000] for line in lines) == sorted(f"{n} {i} " for n in "ab" for i in range(60))
