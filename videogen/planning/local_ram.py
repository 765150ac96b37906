"""RAM of this machine, within the limits of its container. Needs no other package, so that --env may ask.

Containers are Linux' control groups, versions 1 and 2; where there is no Linux, psutil answers.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# Of a container: its limit and what it uses, as versions 2 and 1 of control groups call them.
LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def available_ram() -> int | None:
    """Return the bytes that a process can still take, within the limit of its container; None if unknown."""
    left = [free for _, free in _control_groups()]
    return min([*_machine_ram("MemAvailable", "available"), *left], default=None)


def total_ram() -> int | None:
    """Return the bytes of RAM of this machine, or the limit of the container; None if unknown."""
    limits = [limit for limit, _ in _control_groups()]
    return min([*_machine_ram("MemTotal", "total"), *limits], default=None)


def _machine_ram(linux_name: str, psutil_name: str) -> Iterator[int]:
    """Yield bytes of this machine's RAM: from Linux, else from psutil."""
    if known := re.search(rf"^{linux_name}:\s+(\d+) kB", _text(PROC / "meminfo"), re.MULTILINE):
        yield int(known[1]) * 1024
        return
    with suppress(ImportError):
        import psutil  # noqa: PLC0415 - --env answers without it

        yield getattr(psutil.virtual_memory(), psutil_name)


def _control_groups() -> Iterator[tuple[int, int]]:
    """Yield (limit, free) bytes of every control group around this process."""
    for line in _text(PROC / "self/cgroup").splitlines():
        _, controllers, place = (*line.split(":", 2), "", "")[:3]
        if controllers not in ("", "memory"):
            continue
        top = CGROUPS / controllers
        for folder in (top / place.strip("/"), *(top / place.strip("/")).parents):
            if folder.is_relative_to(top):
                yield from _limit_and_free(folder)


def _limit_and_free(folder: Path) -> Iterator[tuple[int, int]]:
    """Yield the limit of one control group and what is free of it; cached files count as free."""
    for names in LIMITS:
        limit, used = (_text(folder / name).strip() for name in names)
        if limit.isdigit() and used.isdigit():
            stat = _text(folder / "memory.stat")
            whole = "total_" if "total_inactive_file" in stat else ""  # with the groups inside, version 1
            cached = re.findall(rf"^{whole}(?:in)?active_file (\d+)$", stat, re.MULTILINE)
            yield int(limit), max(0, int(limit) - int(used) + sum(map(int, cached)))


def _text(file: Path) -> str:
    """Return what a file of the kernel holds; nothing where there is none."""
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
