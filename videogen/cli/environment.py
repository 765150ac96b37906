"""What --env says: versions, the commit, disk, RAM, GPUs and what they cannot do.

It answers within two seconds, so nothing heavy is imported: versions come from the packages' metadata, GPUs
from the driver. With -v every package is imported, which alone shows whether it works.
"""

import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path

import videogen
from videogen.cli.installed import ROOT, Package, dependencies, optional, with_problems
from videogen.errors import first_line
from videogen.files import cache_root, free_bytes
from videogen.planning.local_gpus import Driver, DriverError, TorchBuild, limits, read_driver, torch_build
from videogen.planning.local_ram import available_ram, total_ram
from videogen.results.formatting import format_bytes

GIT_TIMEOUT = 1.0  # seconds for git
DESCRIBE = ("describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=, changed")


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskSpace:
    """A folder, and the bytes that its disk has free; None where it cannot be asked."""

    folder: str
    free_bytes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuReport:
    """A GPU, and what it cannot do."""

    name: str
    capability: str
    total_bytes: int
    free_bytes: int
    limits: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """All that --env says; ``cuda`` says what there is of it, or why there is none."""

    videogen: str
    source: str
    python: str
    platform: str
    packages: Mapping[str, Package]
    optional: Mapping[str, Package]
    threads: int | None
    ram_bytes: int | None
    ram_free_bytes: int | None
    disk: Mapping[str, DiskSpace]
    cuda: str
    gpus: list[GpuReport]
    imported: bool

    def to_json(self) -> dict[str, object]:
        """Return it as JSON data."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yield it for people."""
        yield f"videogen {self.videogen}, {self.source}, python {self.python}, {self.platform}"
        yield from (f"{name} {package}" for name, package in self.packages.items())
        yield from (f"{name} {package}" for name, package in self.optional.items())
        yield f"RAM: {_size(self.ram_free_bytes)} of {_size(self.ram_bytes)} free, {self.threads} CPU threads"
        for what, space in self.disk.items():
            yield f"disk for {what} ({space.folder}): {_size(space.free_bytes)} free"
        yield f"cuda: {self.cuda}"
        for index, gpu in enumerate(self.gpus):
            memory = f"{_size(gpu.free_bytes)} of {_size(gpu.total_bytes)} free"
            yield f"GPU {index}: {gpu.name}, compute capability {gpu.capability}, {memory}"
            yield from (f"GPU {index}: {limit}" for limit in gpu.limits)
        if not self.imported:
            yield "packages were looked up, not imported: --env -v imports them all (some 20 s)"


def _size(number: int | None) -> str:
    return "unknown" if number is None else format_bytes(number)


def environment(*, imports: bool = False) -> Environment:
    """Collect what --env says; ``imports``: also import every package."""
    torch, built = _torch()
    cuda, gpus = _gpus(torch, built)
    packages, others = dict(dependencies()), dict(optional(torch))
    if imports:
        packages, others = with_problems(packages), with_problems(others)
    return Environment(
        videogen=videogen.__version__,
        source=_source(),
        python=platform.python_version(),
        platform=platform.platform(),
        packages=packages,
        optional=others,
        threads=os.cpu_count(),
        ram_bytes=total_ram(),
        ram_free_bytes=available_ram(),
        disk={
            "models": _disk_space(_hub_cache()),
            "videogen's cache": _disk_space(cache_root()),
            "results": _disk_space(Path("result")),
        },
        cuda=cuda,
        gpus=gpus,
        imported=imports,
    )


def _source() -> str:
    """Return the commit of the checkout, or of the repository that the package was installed from."""
    if (ROOT / ".git").exists():
        try:
            done = subprocess.run(
                ["git", "-C", str(ROOT), *DESCRIBE],
                env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # leaves the checkout as it is
                capture_output=True,
                text=True,
                timeout=GIT_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            why = "no git" if isinstance(error, OSError) else "git takes long"
            return f"commit unknown ({why})"
        if done.returncode:
            return f"commit unknown ({' '.join(done.stderr.split())})"
        return f"commit {done.stdout.strip()}"
    try:
        origin = metadata.distribution("videogen").read_text("direct_url.json") or ""
    except metadata.PackageNotFoundError:
        return "a copy of the files, without git"
    commit = re.search(r'"commit_id":\s*"(\w+)"', origin)
    return f"commit {commit[1][:12]}, installed" if commit else "installed as a package"


def _torch() -> tuple[TorchBuild | None, str]:
    """Return what torch was built for, also in words; None where it is not here or broken."""
    found = util.find_spec("torch")
    if found is None or found.origin is None:
        return None, "torch is not installed"
    try:
        torch = torch_build(Path(found.origin).parent)
    except OSError as error:
        return None, f"torch is broken ({first_line(error)}): install it anew"
    return torch, f"torch {torch.version} is built for {torch.devices}"


def _gpus(torch: TorchBuild | None, built: str) -> tuple[str, list[GpuReport]]:
    """Return what is to be said of CUDA, and the GPUs that the driver knows."""
    try:
        driver = read_driver()
    except DriverError as error:
        return f"not available: {error}; {built}", []
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    only = f"; CUDA_VISIBLE_DEVICES leaves {hidden or 'none'}" if hidden is not None else ""
    said = f"driver {driver.version} for up to {driver.cuda[0]}.{driver.cuda[1]}; {built}{only}"
    return said, [_report(index, driver, torch) for index in range(len(driver.gpus))]


def _report(index: int, driver: Driver, torch: TorchBuild | None) -> GpuReport:
    gpu = driver.gpus[index]
    return GpuReport(
        name=gpu.name,
        capability=f"{gpu.capability[0]}.{gpu.capability[1]}",
        total_bytes=gpu.total_bytes,
        free_bytes=gpu.free_bytes,
        limits=list(limits(gpu, driver, torch)) if torch is not None else [],
    )


def _hub_cache() -> Path:
    try:
        from huggingface_hub import constants  # noqa: PLC0415 - may be missing
    except ImportError:
        return Path("~/.cache/huggingface").expanduser()
    return Path(constants.HF_HUB_CACHE)


def _disk_space(folder: Path) -> DiskSpace:
    """Return the free bytes where a folder is or will be."""
    try:
        return DiskSpace(folder=str(folder), free_bytes=free_bytes(folder))
    except (OSError, RuntimeError):
        return DiskSpace(folder=str(folder), free_bytes=None)
