"""The pages of the manual, and the commands in them as bash sees them.

Every bash block is run by bash, with stand-ins for the programs that it starts (python, torchrun, pip, ...):
a stand-in writes down its arguments, and makes the file that the real one would print. So loops, variables
and files that a block writes are what they are for a reader; the tests then run what was written down.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
PROGRAMS = ("python3", "hf", "docker", "sbatch", "git")  # found by PATH
LOCAL = (
    ".venv/bin/python",
    ".venv/bin/pip",
    ".venv/bin/torchrun",
    ".venv/bin/videogen",
    "benchmarks/first_hour.sh",
)
OURS = ("generate_video.py", "generate_continuous.py")
SLURM = "deploy/slurm.sh"
MADE = "made by a stand-in"
STAND_IN = f"""#!/bin/bash
record=$(mktemp "$RECORD/XXXXXXXX")
printf '%s\\0' "${{0##*/}}" "$@" > "$record"
ln "$record" "$RECORD/$(date +%s%N).call"
while [ $# -gt 1 ]; do
  if [ "$1" = --output ]; then [ -e "$2" ] || echo "{MADE}" > "$2"; echo "$2"; fi
  shift
done
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; ``line`` is its first."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str) -> list[Block]:
    """Return the blocks of a language; pieces of the toy task (development.md) have a test of their own."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(rf"(<!-- toy \w+ -->\n)?```{language}\n(.*?)```", text, flags=re.DOTALL):
            if match[1] is None:
                found.append(Block(page, text.count("\n", 0, match.start()) + 1, language, match[2]))
    return found


@dataclass(frozen=True)
class Call:
    """A program that a block starts, its arguments, and the folder with the files that the block wrote."""

    program: str
    words: tuple[str, ...]
    folder: Path

    @property
    def script(self) -> str | None:
        """generate_video.py or generate_continuous.py, if that is what runs."""
        image = self.program == "docker" and self.words[0] == "run"
        if image or self.program == "videogen" or SLURM in self.words:
            return OURS[0]
        return next((name for name in OURS if name in self.words), None)

    @property
    def arguments(self) -> list[str]:
        """The arguments of our script."""
        mark = next((mark for mark in (SLURM, "videogen") if mark in self.words), self.script)
        words = list(self.words[self.words.index(mark) + 1 if mark in self.words else 0 :])
        shared = SLURM in self.words and self.ranks > 1
        return [word.replace("%a", "0") for word in words] + ["--use_usp"] * shared

    @property
    def ranks(self) -> int:
        """How many ranks torchrun or SLURM would start; 1 without them."""
        given = dict(word.lstrip("-").split("=", 1) for word in self.words if "=" in word)
        if SLURM in self.words:
            return int(given.get("ntasks-per-node", 8)) * int(given.get("nodes", 1))
        return int(given.get("nproc_per_node", 1)) * int(given.get("nnodes", 1))


def calls(block: Block, folder: Path) -> list[Call]:
    """Run a bash block with stand-ins in an empty folder; returns what it started, in order."""
    record, work = folder / "record", folder / "work"
    record.mkdir(parents=True)
    for name in (*LOCAL, *(f"bin/{name}" for name in PROGRAMS)):
        stand_in = work / name
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.write_text(STAND_IN)
        stand_in.chmod(0o755)
    for name in (*OURS, "requirements.txt", "pyproject.toml", "ref_imgs", "deploy", "configs"):
        if (ROOT / name).exists():
            (work / name).symlink_to(ROOT / name)
    path = f"{work / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "RECORD": str(record)}
    script = ["bash", "-c", f"set -e\n{block.text}"]
    done = subprocess.run(script, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block.name}: {done.stderr}"
    found = []
    for file in sorted(record.glob("*.call")):
        program, *words = file.read_text().split("\0")[:-1]
        found.append(Call(program, tuple(words), work))
    return found


def written_files(call: Call) -> list[Path]:
    """Return the files that a block itself wrote (lists of jobs, configs)."""
    return [
        file
        for file in call.folder.iterdir()
        if file.is_file() and not file.is_symlink() and file.read_text() != f"{MADE}\n"
    ]


def copy_written(call: Call, folder: Path) -> str:
    """Copy the files that a block wrote; returns their text."""
    files = written_files(call)
    for file in files:
        shutil.copy(file, folder)
    return "\n".join(file.read_text() for file in files)
