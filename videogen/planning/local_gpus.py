"""NVIDIA's GPUs on this machine and what they cannot do, without torch, which takes seconds to import.

The driver's management library (NVML) names the GPUs; torch's files say for which it was built.
"""

import ctypes
import mmap
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from videogen.tasks import capabilities

NVML = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
LONGEST_TEXT = 96  # bytes that NVML's texts have at most
BUILT_FOR = re.compile(rb"sm_\d+[af]?(?: (?:sm|compute)_\d+[af]?)+")


class DriverError(Exception):
    """The driver does not answer; says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A GPU: its compute capability (major, minor), and bytes of memory."""

    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """The driver, the newest CUDA that it knows, and its GPUs."""

    version: str
    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchBuild:
    """What a torch was built for: its CUDA, or AMD's ROCm, and GPUs ("sm_90"; () where that is unknown)."""

    version: str
    cuda: str | None = None
    rocm: str | None = None
    architectures: tuple[str, ...] = ()

    @property
    def devices(self) -> str:
        """Return the devices that it was built for, in words."""
        if self.cuda or self.rocm:
            return f"CUDA {self.cuda}" if self.cuda else f"ROCm {self.rocm}"
        return "the CPU and Apple's GPUs" if sys.platform == "darwin" else "the CPU alone"


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class _Library:
    """NVML, with its errors as exceptions."""

    def __init__(self, name: str) -> None:
        try:
            self._functions = ctypes.CDLL(name)
        except OSError:
            raise DriverError(f"no NVIDIA driver ({name} cannot be opened)") from None
        self._functions.nvmlErrorString.restype = ctypes.c_char_p

    def call(self, name: str, *arguments: object) -> None:
        if code := getattr(self._functions, f"nvml{name}")(*arguments):
            why = self._functions.nvmlErrorString(code).decode(errors="replace")
            raise DriverError(f"the driver does not answer ({why})")

    def number(self, name: str, *arguments: object) -> int:
        value = ctypes.c_int()
        self.call(name, *arguments, ctypes.byref(value))
        return value.value

    def text(self, name: str, *arguments: object) -> str:
        value = ctypes.create_string_buffer(LONGEST_TEXT)
        self.call(name, *arguments, value, ctypes.c_uint(LONGEST_TEXT))
        return value.value.decode(errors="replace")

    def gpu(self, index: int) -> Gpu:
        handle, memory = ctypes.c_void_p(), _Memory()
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.call("DeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        self.call("DeviceGetMemoryInfo", handle, ctypes.byref(memory))
        self.call("DeviceGetCudaComputeCapability", handle, ctypes.byref(major), ctypes.byref(minor))
        return Gpu(
            name=self.text("DeviceGetName", handle),
            capability=(major.value, minor.value),
            total_bytes=memory.total,
            free_bytes=memory.free,
        )


def read_driver(library: str = NVML) -> Driver:
    """Ask NVIDIA's driver for its GPUs.

    Raises:
        DriverError: there is none, or it does not answer.
    """
    nvml = _Library(library)
    nvml.call("Init_v2")
    try:
        cuda = nvml.number("SystemGetCudaDriverVersion_v2")
        return Driver(
            version=nvml.text("SystemGetDriverVersion"),
            cuda=(cuda // 1000, cuda % 1000 // 10),
            gpus=tuple(nvml.gpu(index) for index in range(nvml.number("DeviceGetCount_v2"))),
        )
    finally:
        nvml.call("Shutdown")


def torch_build(folder: Path) -> TorchBuild:
    """Read what the torch in a folder was built for.

    Raises:
        OSError: its files cannot be read.
    """
    said = (folder / "version.py").read_text(encoding="utf-8")
    names = ("__version__", "cuda", "hip")
    found = {name: re.search(rf"^{name}\b.*= '([^']+)'", said, re.MULTILINE) for name in names}
    version, cuda, rocm = (match and match[1] for match in found.values())
    return TorchBuild(
        version=version or "of unknown version",
        cuda=cuda,
        rocm=rocm,
        architectures=_architectures(folder) if cuda else (),
    )


def _architectures(folder: Path) -> tuple[str, ...]:
    """Return what torch.cuda.get_arch_list() would, from the library that holds it."""
    for file in (*folder.glob("lib/libtorch_python.so"), *folder.glob("lib/torch_python.dll")):
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if found := BUILT_FOR.search(content):
                return tuple(found[0].decode().split())
    return ()


def limits(gpu: Gpu, driver: Driver, torch: TorchBuild) -> Iterator[str]:
    """Yield what a GPU cannot do, and with this driver and this torch, each with the way out."""
    if torch.cuda is None:
        yield f"torch {torch.version} is built for {torch.devices}, not for it: install a CUDA build of torch"
    elif driver.cuda[0] < int(torch.cuda.partition(".")[0]):
        yield (
            f"the driver knows CUDA {driver.cuda[0]}.{driver.cuda[1]} and torch is built for {torch.cuda}: "
            "update the driver, or install a torch for the older CUDA"
        )
    if torch.architectures and not any(_runs(built, gpu.capability) for built in torch.architectures):
        newest = max(torch.architectures, key=_capability)
        age = "newer" if gpu.capability > _capability(newest) else "older"
        yield (
            f"it is {age} than torch {torch.version}, which is built for {' '.join(torch.architectures)}: "
            f"install a torch built for sm_{gpu.capability[0]}{gpu.capability[1]}"
        )
    if gpu.capability < capabilities.BFLOAT16:
        yield "it has no bfloat16 and torch no flash attention for it: give --dtype float16"
    if gpu.capability < capabilities.FLOAT8:
        yield "it does not multiply in float8 (--float8_matmul); float8 weights (--low_vram) work"


def _capability(architecture: str) -> tuple[int, int]:
    """Return (9, 0) of 'sm_90' or 'sm_90a'."""
    digits = re.sub(r"\D", "", architecture)
    return int(digits[:-1]), int(digits[-1])


def _runs(architecture: str, capability: tuple[int, int]) -> bool:
    """Return whether code for an architecture runs: from its own generation, or compiled by the driver."""
    built = _capability(architecture)
    if architecture.endswith("a"):
        return built == capability
    return built <= capability and (architecture.startswith("compute") or built[0] == capability[0])
