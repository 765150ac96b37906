"""Which packages are installed, in which version, and what is wrong with them (--env).

Nothing heavy is imported here: versions come from the packages' metadata. Whether a package works is
seen when it is imported, in a process of its own.
"""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata, util
from pathlib import Path

import videogen
from videogen.errors import first_line
from videogen.planning.local_gpus import TorchBuild

ROOT = Path(videogen.__file__).parent.parent
# Packages that are found on many machines and break others where they were built for another torch.
UNNEEDED = ("torchaudio", "torchvision")
REINSTALL = "install it anew, or uninstall it if it is not needed"
RESULT_PREFIX = "tried: "  # begins a line of try_imports
WITHOUT_IT = "torch's own kernels do without it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A package: its version (None: not installed), what is wrong with it, and what else is to be known."""

    version: str | None = None
    problem: str | None = None
    note: str | None = None

    def __str__(self) -> str:
        """Return it in one line."""
        said = [self.version or "not installed", self.problem or self.note]
        return ": ".join(part for part in said if part)


def dependencies() -> Iterator[tuple[str, Package]]:
    """Yield the packages that this one needs on this machine."""
    file = ROOT / "dependencies.txt"
    if file.is_file():
        lines: Iterable[str] = file.read_text(encoding="utf-8").splitlines()
    else:
        lines = metadata.requires("videogen") or ()
    for line in lines:
        needed = line.partition("#")[0].strip()
        if needed and _applies(needed):
            name = re.split(r"[^\w.-]", needed, maxsplit=1)[0]
            yield name, _dependency(name, needed)


def _applies(needed: str) -> bool:
    """Return whether a requirement is one on this machine, and not of an extra."""
    _, has_marker, marker = needed.partition(";")
    if not has_marker:
        return True
    try:
        from packaging.markers import Marker  # noqa: PLC0415 - may be missing
    except ImportError:
        return "extra" not in marker
    return Marker(marker).evaluate({"extra": ""})


def _dependency(name: str, needed: str) -> Package:
    version, install = _version(name), f"pip install '{needed.partition(';')[0].strip()}'"
    if version is None:
        return Package(problem=f"needed; {install}")
    try:
        from packaging.requirements import Requirement  # noqa: PLC0415 - may be missing
    except ImportError:
        return Package(
            version=version, problem="not compared with what is needed: packaging is not installed"
        )
    wanted = Requirement(needed).specifier
    if not wanted.contains(version, prereleases=True):
        return Package(version=version, problem=f"{wanted} is needed; {install}")
    return Package(version=version)


def optional(torch: TorchBuild | None) -> Iterator[tuple[str, Package]]:
    """Yield packages that nobody needs: attention kernels, and those that break others if they do not fit."""
    kernels: dict[str, str] = {}
    with suppress(ModuleNotFoundError):  # of PyYAML: nothing is installed
        from videogen.tasks.kernels import ATTENTION_KERNELS  # noqa: PLC0415

        kernels = {
            kernel.package.module: f"only for --attention_backend {kernel.option}; {WITHOUT_IT}"
            for kernel in ATTENTION_KERNELS.values()
            if kernel.package is not None
        }
    for name in (*kernels, *UNNEEDED):
        version = _version(name)
        if version is None and util.find_spec(name) is not None:
            version = "of unknown version"
        if version is None:
            yield name, Package(note=kernels.get(name, "not needed"))
            continue
        yield name, Package(version=version, problem=_other_torch(name, torch))


def _other_torch(name: str, torch: TorchBuild | None) -> str | None:
    """Return what is wrong with a package that was built for another torch."""
    with_torch = [line for line in metadata.requires(name) or () if re.match(r"torch\b(?![-.])", line)]
    exact = next((found[1] for line in with_torch if (found := re.search(r"==\s*([\w.]+)", line))), None)
    if torch is None or exact is None or torch.version.partition("+")[0] == exact.partition("+")[0]:
        return None
    return f"built for torch {exact}, and {torch.version} is here: uninstall it, or other packages break"


def with_problems(packages: Mapping[str, Package]) -> dict[str, Package]:
    """Import packages in a process of their own; returns them with what is wrong."""
    problems = _import_problems([name for name, package in packages.items() if package.version is not None])
    return {
        name: replace(package, problem=problems.get(name) or package.problem)
        for name, package in packages.items()
    }


def _import_problems(names: Sequence[str]) -> dict[str, str]:
    """Return what is wrong with packages that cannot be imported."""
    problems: dict[str, str] = {}
    code = f"from {__name__} import try_imports; try_imports()"
    left = list(names)
    while left:
        done = subprocess.run(
            [sys.executable, "-c", code, *left],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        tried = [line for line in done.stdout.splitlines() if line.startswith(RESULT_PREFIX)]
        problems |= dict(json.loads(line.removeprefix(RESULT_PREFIX)) for line in tried)
        if len(tried) < len(left):
            problems[left[len(tried)]] = (
                f"importing it ends Python (exit code {done.returncode}): {REINSTALL}"
            )
        left = left[len(tried) + 1 :]
    return {name: problem for name, problem in problems.items() if problem}


def try_imports() -> None:
    """Import the packages that are this process's arguments; writes a line for each."""
    distributions = metadata.packages_distributions()
    for name in sys.argv[1:]:
        normal = _normal(name)
        own = [module for module, others in distributions.items() if normal in map(_normal, others)]
        problem = ""
        try:
            same = [module for module in own if _normal(module) == normal]
            for module in same or [module for module in own if not module.startswith("_")] or [name]:
                importlib.import_module(module)
        except Exception as error:
            problem = f"does not import ({first_line(error)}): {REINSTALL}"
        sys.stdout.write(f"\n{RESULT_PREFIX}{json.dumps([name, problem])}\n")
        sys.stdout.flush()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
