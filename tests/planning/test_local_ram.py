"""RAM as Linux says it, with and without containers."""

import sys

import psutil
import pytest

from videogen.planning import local_ram


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Write the files of a machine with 64 GB free; returns a function that writes more."""
    monkeypatch.setattr(local_ram, "PROC", tmp_path / "proc")
    monkeypatch.setattr(local_ram, "CGROUPS", tmp_path / "cgroup")

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    write(**{"proc/meminfo": "MemTotal: 99000000 kB\nMemAvailable:   64000000 kB\n"})
    return write


def test_the_ram_of_a_machine(machine):
    assert local_ram.available_ram() == 64_000_000 * 1024
    assert local_ram.total_ram() == 99_000_000 * 1024


def test_the_limit_of_a_container_counts(machine):
    machine(**{
        "proc/self/cgroup": "0::/docker/abc\n",
        "cgroup/docker/abc/memory.max": "max\n",
        "cgroup/docker/abc/memory.current": "5\n",
        "cgroup/docker/memory.max": "9000\n",
        "cgroup/docker/memory.current": "5000\n",
        "cgroup/docker/memory.stat": "anon 1\ninactive_file 1000\nactive_file 200\n",
    })  # fmt: skip
    assert local_ram.available_ram() == 9000 - 5000 + 1200
    assert local_ram.total_ram() == 9000


def test_the_limit_of_an_older_container_counts(machine):
    machine(**{
        "proc/self/cgroup": "9:cpu:/\n4:memory:/job\n",
        "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "cgroup/memory/memory.usage_in_bytes": "7000\n",
        "cgroup/memory/job/memory.limit_in_bytes": "8000\n",
        "cgroup/memory/job/memory.usage_in_bytes": "7000\n",
        "cgroup/memory/job/memory.stat":
            "inactive_file 1\nactive_file 2\ntotal_inactive_file 30\ntotal_active_file 40\n",
    })  # fmt: skip
    assert local_ram.available_ram() == 1070
    assert local_ram.total_ram() == 8000


def test_a_container_that_is_over_its_limit_has_none_left(machine):
    machine(**{
        "proc/self/cgroup": "0::/a\n",
        "cgroup/a/memory.max": "10\n",
        "cgroup/a/memory.current": "20\n",
    })  # fmt: skip
    assert local_ram.available_ram() == 0


def test_psutil_answers_where_linux_does_not_and_without_it_nobody(machine, monkeypatch):
    machine(**{"proc/self/cgroup": "no colons\n", "proc/meminfo": "\n"})
    assert local_ram.total_ram() == psutil.virtual_memory().total
    assert 0 < local_ram.available_ram() < local_ram.total_ram()
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert (local_ram.available_ram(), local_ram.total_ram()) == (None, None)
