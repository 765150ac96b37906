"""What Linux says of memory, containers and cards."""

import pytest

from videogen.planning import local_devices


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Write the files of a machine with 64 GB free; returns a function that writes more."""
    monkeypatch.setattr(local_devices, "PROC", tmp_path / "proc")
    monkeypatch.setattr(local_devices, "CGROUPS", tmp_path / "cgroup")

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    write(**{"proc/meminfo": "MemTotal: 99 kB\nMemAvailable:   64000000 kB\n"})
    return write


def test_the_ram_of_a_machine(machine):
    assert local_devices.available_ram() == 64_000_000 * 1024


def test_the_limit_of_a_container_counts(machine):
    machine(**{
        "proc/self/cgroup": "0::/docker/abc\n",
        "cgroup/docker/abc/memory.max": "max\n",
        "cgroup/docker/abc/memory.current": "5\n",
        "cgroup/docker/memory.max": "9000\n",
        "cgroup/docker/memory.current": "5000\n",
        "cgroup/docker/memory.stat": "anon 1\ninactive_file 1000\nactive_file 200\n",
    })  # fmt: skip
    assert local_devices.available_ram() == 9000 - 5000 + 1200


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
    assert local_devices.available_ram() == 1070


def test_a_container_that_is_over_its_limit_has_none_left(machine):
    machine(**{
        "proc/self/cgroup": "0::/a\n",
        "cgroup/a/memory.max": "10\n",
        "cgroup/a/memory.current": "20\n",
    })  # fmt: skip
    assert local_devices.available_ram() == 0


def test_files_that_say_nothing(machine, tmp_path):
    machine(**{"proc/self/cgroup": "no colons\n", "proc/meminfo": "\n"})
    assert local_devices.available_ram() is None


def test_names_of_cards(machine):
    assert local_devices.card_names() == set()
    about = "Model: \t\t NVIDIA H200\nIRQ:  \t 44\n"
    machine(**{f"proc/driver/nvidia/gpus/{place}/information": about for place in ("0000:18:00.0", "1")})
    assert local_devices.card_names() == {"NVIDIA H200"}
