"""Which devices this machine has, as far as that is known without importing torch."""

import os
import re
import sys
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

from videogen.errors import InputError
from videogen.tasks.options import OPTIONS, Options

# What the drivers of NVIDIA, of AMD, and of a GPU under WSL leave there.
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/proc/driver/nvidia")
GPU_FILES = Path("/proc/driver/nvidia/gpus")


def check_device_exists(options: Options) -> None:
    """Refuse a kind of device that is not here, with --dry_run too.

    Raises:
        InputError: there is none.
    """
    for name in (option.name for option in OPTIONS.values() if option.names_device):
        asked = str(getattr(options, name) or "")
        why = {"cuda": _without_cuda, "mps": _without_mps}.get(asked.partition(":")[0], lambda: None)()
        if why is not None:
            raise InputError(
                f"--{name}", asked, f"there are 0 such devices here ({why})", f"try --{name} cpu"
            )


def _without_cuda() -> str | None:
    """Return why there is no CUDA device; None if there may be one."""
    if (torch := sys.modules.get("torch")) is not None:
        return None if torch.cuda.is_available() else "torch finds none"
    return _missing_cuda(os.environ.get("CUDA_VISIBLE_DEVICES"))


@cache
def _missing_cuda(visible: str | None) -> str | None:
    if visible is not None and visible.strip() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides them"
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None  # said when torch is imported
    if version.endswith("+cpu"):
        return f"torch {version} is for the CPU alone"
    if sys.platform == "linux" and not any(Path(path).exists() for path in DRIVERS):
        return "there is no driver for one"
    return None


def _without_mps() -> str | None:
    return None if sys.platform == "darwin" else "they are Apple's"


def is_on_cpu(device: str) -> bool:
    """Return whether a value of --device means the CPU on this machine."""
    return device == "cpu" or (device == "auto" and bool(_without_cuda()) and bool(_without_mps()))


def gpu_names() -> set[str]:
    """Return the names of NVIDIA's GPUs here, as Linux' driver lists them; empty where it does not."""
    names = set()
    for file in GPU_FILES.glob("*/information"):
        with suppress(OSError):
            names |= set(re.findall(r"^Model:\s*(.+?)\s*$", file.read_text(errors="replace"), re.MULTILINE))
    return names


def cpu_name() -> str:
    """Return what the CPU is called beside a measured speed: the number of cores that a process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"cpu, {usable} cores"
