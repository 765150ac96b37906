"""The device guard that a CPU build of PyTorch lacks: compiled once, loaded once per process."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import torch

HERE = Path(__file__).parent
BUILT = HERE / ".build"  # not in git


def has_compiler() -> bool:
    """Return whether the guard can be compiled here, or is not needed."""
    return torch.backends.cuda.is_built() or shutil.which("g++") is not None


@cache
def load_guard() -> None:
    """Register a CUDA device guard that does nothing. It stays for the life of the process.

    With it ``torch.cuda.is_available()`` is still False; operators on tensors that only claim to be on a GPU
    no longer fail for want of one.
    """
    if torch.backends.cuda.is_built():  # it has a guard of its own
        return
    library = BUILT / f"guard-{torch.__version__}.so"
    source = HERE / "guard.cpp"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        _compile(source, library)
    torch.ops.load_library(str(library))


def _compile(source: Path, library: Path) -> None:
    """Compile to a name of this process and rename: several test processes may do so at once."""
    root = Path(torch.__file__).parent
    library.parent.mkdir(exist_ok=True)
    partial = library.with_suffix(f".{os.getpid()}")
    places = [f"-I{root / 'include'}", f"-L{root / 'lib'}"]
    words = [
        "g++",
        "-O1",
        "-std=c++20",
        "-shared",
        "-fPIC",
        str(source),
        *places,
        "-lc10",
        "-o",
        str(partial),
    ]
    subprocess.run(words, check=True)
    partial.replace(library)
