"""Devices: choice of one, and its memory."""

import platform
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from videogen.errors import InputError
from videogen.planning.local_ram import available_ram, total_ram


def choose_device(name: str, flag: str = "--device") -> torch.device:
    """Return the device of a name; 'auto' is the first accelerator, else the CPU.

    Raises:
        InputError: a device this machine or this torch does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(flag, name, "is no device", "give auto, cpu, cuda, cuda:N or mps") from None
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(
        device.type, 1
    )
    if (device.index or 0) >= count:
        raise InputError(flag, name, f"there are {count} such devices here", f"try {flag} cpu")
    if device.type == "cuda" and device.index is None:  # with its index, because new threads start on GPU 0
        device = torch.device("cuda", torch.cuda.current_device())
    return device


def free_memory(device: torch.device) -> int:
    """Return the bytes that can be allocated now, including those that torch holds in reserve."""
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    return _known(available_ram())


def total_memory(device: torch.device) -> int:
    """Return the bytes that a device has in all."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return _known(total_ram())


def _known(ram: int | None) -> int:
    assert ram is not None  # psutil, which is imported here, knows it everywhere
    return ram


def reset_peak(device: torch.device) -> None:
    """Start a new measurement of ``peak_memory``."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak of resident memory
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return peak bytes: of this process in RAM, and of torch on the GPU."""
    peaks = {"ram": psutil.Process().memory_info().rss}
    with suppress(OSError):  # Linux; getrusage's peak would include the parent process
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            peaks["ram"] = int(found[1]) * 1024
    if device.type == "cuda":
        peaks["gpu"] = torch.cuda.max_memory_allocated(device)
    return peaks


def device_name(device: torch.device) -> str:
    """Return the name of the device for the metadata."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    """Return the versions of everything that a result depends on."""
    names = ("torch", "diffusers", "transformers", "accelerate", "safetensors")
    return {"python": platform.python_version()} | {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
