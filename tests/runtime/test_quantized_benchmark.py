"""``python -m benchmarks.quantized``: that it runs, with one row."""

import re

import pytest
import torch

from benchmarks import quantized

ROW = r"^\| {label} \| [\d,]+ \| (?P<share>[\d.]+) \| (?P<error>[\d.e-]+) \| (?P<large>[\d.]+) \| [\d.]+ \|$"


@pytest.fixture
def same_threads():
    """Give this process its number of threads back; the benchmark uses one."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("same_threads")
def test_one_row(capsys, monkeypatch):
    pytest.importorskip("gguf")
    monkeypatch.setattr(quantized, "SMALL_VIDEO", ("--height", "32", "--width", "32", "--num_frames", "5"))
    monkeypatch.setattr("sys.argv", ["quantized", "--only", "GGUF Q8_0", "--steps", "1"])
    quantized.main()
    rows = capsys.readouterr().out
    plain, made = (
        re.search(ROW.format(label=label), rows, re.MULTILINE) for label in ("bfloat16", "GGUF Q8_0")
    )
    assert float(plain["error"]) == 0 < float(made["error"]) < 0.1
    assert float(made["share"]) < 0.8
    assert float(made["large"]) / float(plain["large"]) == pytest.approx(8.5 / 16, abs=0.05)
