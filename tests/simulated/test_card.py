"""Everything that needs a GPU runs on Card, and Card itself is as strict as a GPU."""

import os
import re
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT
from tests.simulated.card import pretend_card
from tests.simulated.guard import has_compiler

pytestmark = pytest.mark.skipif(not has_compiler(), reason="needs g++ for the device guard")

CUDA = torch.device("cuda:0")


def on_card(*words: str) -> subprocess.CompletedProcess:
    """Run tests with Card as a plugin, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.simulated.card", "-n", "0", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=3000
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_needs_a_gpu_runs_on_the_card():
    done = on_card("tests/runtime/test_gpu.py")
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 50
    assert "skipped" not in done.stdout


@pytest.fixture
def card():
    with pretend_card() as card:
        yield card


def test_numbers_are_there_and_devices_are_not_mixed(card):
    x = torch.arange(6.0, device=CUDA).view(2, 3)
    assert x.is_cuda
    assert (x @ x.T).cpu().tolist() == [[5, 14], [14, 50]]
    assert (x + 1).sum().item() == 21
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(2, 3)
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()
    x[0] = 7
    assert x[0, :2].tolist() == [7, 7]


def test_copies_on_a_side_stream_are_late(card):
    source, stream = torch.ones(4).pin_memory(), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        moved = source.to(CUDA, non_blocking=True)
        into = torch.empty(4, device=CUDA)
        into.copy_(source, non_blocking=True)
        event = stream.record_event()
        third = source.to(CUDA, non_blocking=True)
    assert moved.cpu().isnan().all()
    torch.cuda.current_stream().wait_event(event)
    assert (moved + into).tolist() == [2, 2, 2, 2]
    assert third.cpu().isnan().all()  # queued behind the event
    source.fill_(3)  # it is read when the copy is made
    torch.cuda.current_stream().wait_stream(stream)
    assert third.tolist() == [3, 3, 3, 3]


def test_float8_weights_leave_and_come_back(card):
    from torchao.quantization import Float8WeightOnlyConfig, quantize_

    layer = torch.nn.Linear(32, 32, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    x = torch.randn(2, 32, dtype=torch.bfloat16)
    wanted = layer(x)
    module = torch.nn.Sequential(layer).to(CUDA)
    quantize_(module, Float8WeightOnlyConfig())
    for device in ("cuda", "cpu", "cuda"):
        module.to(device)
        weight = module[0].weight
        assert {weight.device.type, weight.qdata.device.type, weight.scale.device.type} == {device}
    assert torch.allclose(module(x.to(CUDA)).cpu(), wanted, atol=0.1)
    with pytest.raises(RuntimeError, match="cannot pin"):
        module[0].weight.pin_memory()
    assert module.to("cpu")[0].weight.pin_memory().is_pinned()


def test_nothing_is_left_behind():
    with pytest.raises(ZeroDivisionError), pretend_card():
        assert torch.cuda.is_available()
        raise ZeroDivisionError
    assert not torch.cuda.is_available()
    assert torch.Generator is torch._C.Generator
    assert torch.tensor([1.0]).device.type == "cpu"
    with pytest.raises((AssertionError, RuntimeError)):
        torch.ones(1, device=CUDA)
