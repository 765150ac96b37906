"""GPUs without torch: what the driver says, what torch's files say, and what does not go together."""

import shutil
import subprocess

import pytest

from videogen.planning.local_gpus import (
    Driver,
    DriverError,
    Gpu,
    TorchBuild,
    limits,
    read_driver,
    torch_build,
)

# The functions of NVIDIA's management library that are called, for a driver with two GPUs.
LIBRARY = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
static int gpus[2] = {0, 1}, started = 0;
int nvmlInit_v2(void) { started = 1; return BROKEN; }
int nvmlShutdown(void) { started = 0; return 0; }
const char *nvmlErrorString(int code) { return code == 18 ? "Driver/library version mismatch" : "?"; }
int nvmlSystemGetCudaDriverVersion_v2(int *v) { *v = 12080; return !started; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "570.86.10", length); return 0; }
int nvmlDeviceGetCount_v2(int *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **handle) { *handle = &gpus[i]; return i > 1; }
int nvmlDeviceGetName(void *h, char *text, unsigned length) {
  strncpy(text, *(int *)h ? "NVIDIA T4" : "NVIDIA H200", length); return 0; }
int nvmlDeviceGetMemoryInfo(void *h, memory_t *m) {
  m->total = *(int *)h ? 16000000000ull : 150000000000ull; m->free = m->total / 2; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *h, int *major, int *minor) {
  *major = *(int *)h ? 7 : 9; *minor = *(int *)h ? 5 : 0; return 0; }
"""


def library(folder, broken=0):
    """Compile the library; it stands for a driver that this machine need not have."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    (folder / "nvml.c").write_text(LIBRARY.replace("BROKEN", str(broken)))
    built = folder / f"nvml{broken}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, folder / "nvml.c"], check=True)
    return str(built)


H200 = Gpu(name="NVIDIA H200", capability=(9, 0), total_bytes=150 * 10**9, free_bytes=75 * 10**9)
T4 = Gpu(name="NVIDIA T4", capability=(7, 5), total_bytes=16 * 10**9, free_bytes=8 * 10**9)
NEW = Driver(version="580.1", cuda=(13, 0), gpus=(H200,))
BUILT = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")


def test_a_driver_with_two_gpus(tmp_path):
    driver = read_driver(library(tmp_path))
    assert driver == Driver(version="570.86.10", cuda=(12, 8), gpus=(H200, T4))


def test_drivers_that_do_not_answer(tmp_path):
    with pytest.raises(DriverError, match=r"no NVIDIA driver \(libnowhere.so cannot be opened\)"):
        read_driver("libnowhere.so")
    with pytest.raises(DriverError, match="does not answer"):
        read_driver(library(tmp_path, broken=18))


def torch_folder(folder, version, cuda="None", hip="None"):
    (folder / "lib").mkdir()
    lines = [f"__version__ = {version!r}", f"cuda: Optional[str] = {cuda}", f"hip: Optional[str] = {hip}"]
    (folder / "version.py").write_text("\n".join(lines))
    noise = b"\x7fELF sm_70\0" + b"x" * 5000 + b"\0" + " ".join(BUILT).encode() + b"\0invalid argument\0"
    (folder / "lib/libtorch_python.so").write_bytes(noise)
    return torch_build(folder)


def test_what_torch_was_built_for(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    cuda = torch_folder(tmp_path / "a", "2.13.0+cu130", cuda="'13.0'")
    assert cuda == TorchBuild(version="2.13.0+cu130", cuda="13.0", architectures=BUILT)
    assert cuda.devices == "CUDA 13.0"
    assert torch_folder(tmp_path / "b", "2.13.0+rocm6.4", hip="'6.4.43482'").devices == "ROCm 6.4.43482"
    assert torch_folder(tmp_path / "c", "2.13.0+cpu").cuda is None
    with pytest.raises(OSError, match="nowhere"):
        torch_build(tmp_path / "nowhere")


def test_the_torch_that_is_here_says_what_it_says_when_imported():
    from pathlib import Path

    import torch

    found = torch_build(Path(torch.__file__).parent)
    assert (found.version, found.cuda, found.rocm) == (
        torch.__version__,
        torch.version.cuda,
        torch.version.hip,
    )
    assert list(found.architectures) == torch.cuda.get_arch_list()


def said(capability, driver=NEW, architectures=BUILT, cuda="13.0"):
    gpu = Gpu(name="x", capability=capability, total_bytes=1, free_bytes=1)
    return " ".join(limits(gpu, driver, TorchBuild(version="2.13.0", cuda=cuda, architectures=architectures)))


def test_what_gpus_cannot_do():
    assert said((9, 0)) == ""
    assert said((12, 1)) == ""  # code of its generation runs
    assert "it does not multiply in float8" in said((8, 6))
    assert "bfloat16" not in said((8, 6))
    assert "it has no bfloat16" in said((7, 5))
    assert "it is newer than torch 2.13.0" in said((13, 0))
    assert "install a torch built for sm_130" in said((13, 0))
    assert said((13, 0), architectures=(*BUILT, "compute_120")) == ""  # the driver compiles it
    assert "it is older than torch" in said((6, 1))
    assert "newer" in said((10, 3), architectures=("sm_90", "sm_90a"))
    assert "than torch" not in said((10, 3), architectures=())  # unknown is not accused


def test_a_torch_for_other_devices_and_a_driver_too_old():
    assert "is built for the CPU alone, not for it: install a CUDA build" in said((9, 0), cuda=None)
    old = Driver(version="550.1", cuda=(12, 4), gpus=())
    assert "the driver knows CUDA 12.4 and torch is built for 13.0: update the driver" in said((9, 0), old)
    assert said((9, 0), old, cuda="12.8") == ""  # minor versions go together
