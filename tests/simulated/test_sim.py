"""The simulated card itself: what it refuses, what it counts, and that it leaves nothing behind."""

import sys
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.simulated.attention import choose, possible
from tests.simulated.gpus import GPUS
from tests.simulated.guard import has_compiler
from tests.simulated.ledger import ROOT
from tests.simulated.roofline import select, total, work_by
from tests.simulated.sim import Sim, simulate

pytestmark = pytest.mark.skipif(not has_compiler(), reason="needs g++ for the device guard")

CUDA = torch.device("cuda:0")
GIGABYTE = 10**9


@pytest.fixture
def sim() -> Iterator[Sim]:
    with simulate("H100") as sim:
        yield sim


def on_card(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=CUDA)


def counted(sim: Sim, function: Callable[[], Any]) -> list[tuple[str, float, int]]:
    """Return name, FLOPs and traffic of the kernels that a function launches."""
    sim.ledger.kernels.clear()
    function()
    return [(k.name, k.flops, k.traffic) for k, count in sim.ledger.kernels.items() for _ in range(count)]


def test_tensors_of_different_devices_are_refused(sim):
    with pytest.raises(RuntimeError, match="same device"):
        on_card(4, 4) + torch.ones(4, 4)


def test_products_of_different_dtypes_are_refused(sim):
    with pytest.raises(RuntimeError, match="one dtype"):
        functional.linear(on_card(2, 8, dtype=torch.float32), on_card(8, 8))


def test_memory_is_live_until_freed_and_peaks_are_kept_by_phase(sim):
    with sim.ledger.phase("first"):
        kept = on_card(GIGABYTE)
        extra = on_card(GIGABYTE)
        view = extra[: GIGABYTE // 2]
        del extra
        assert sim.allocated() == pytest.approx(4 * GIGABYTE, abs=1024)  # the view holds it
        del view
    with sim.ledger.phase("second"):
        del kept
    assert sim.allocated() == 0
    peaks = {name: peak["cuda"] for name, peak in sim.ledger.peaks.items()}
    assert peaks["first"] == pytest.approx(4 * GIGABYTE, abs=1024)
    assert peaks["second"] == pytest.approx(2 * GIGABYTE, abs=1024)
    assert torch.cuda.max_memory_allocated() == peaks["first"]


def test_memory_ends():
    with simulate(capacity=GIGABYTE):
        kept = on_card(GIGABYTE // 4)
        free, room = torch.cuda.mem_get_info()
        assert (free, room) == (pytest.approx(GIGABYTE / 2, abs=1024), GIGABYTE)
        with pytest.raises(torch.OutOfMemoryError):
            on_card(GIGABYTE // 3)
        del kept
        on_card(GIGABYTE // 3)


def test_work_of_a_product(sim):
    x, weight = on_card(1000, 512), on_card(256, 512)
    ((name, flops, traffic),) = counted(sim, lambda: functional.linear(x, weight))
    assert name == "mm"
    assert flops == 2 * 1000 * 512 * 256
    assert traffic == 2 * (1000 * 512 + 256 * 512 + 1000 * 256)
    work = total(work_by(select(sim.ledger, "start"), GPUS["H100"]).values())
    assert work.seconds == pytest.approx(traffic / 3.35e12)  # too small for the products to count
    assert work.limit == pytest.approx(flops / 989e12)


def test_traffic_of_views_broadcasts_and_what_works_in_place(sim):
    x, row = on_card(100, 64), on_card(1, 64)
    assert counted(sim, lambda: x.view(64, 100).T.unsqueeze(0)) == []
    assert counted(sim, lambda: x + row.expand(100, 64)) == [("add", 0, 2 * (6400 + 64 + 6400))]
    assert counted(sim, lambda: x.add_(1)) == [("add_", 0, 2 * (6400 + 6400))]
    assert counted(sim, lambda: x.copy_(row.expand(100, 64))) == [("copy_", 0, 2 * (64 + 6400))]
    assert counted(sim, x.zero_) == [("zero_", 0, 2 * 6400)]


def test_an_operator_of_ours_is_one_kernel_that_reads_its_inputs_and_writes_its_outputs(sim):
    @torch.library.custom_op("videogen_test::blend", mutates_args=("kept",))
    def blend(x: Tensor, kept: Tensor, weight: float) -> Tensor:
        kept.add_(x, alpha=weight)
        return x * kept

    blend.register_fake(lambda x, kept, weight: torch.empty_like(x))
    x, kept = on_card(100, 64), on_card(100, 64)
    with torch.no_grad():
        (kernel,) = counted(sim, lambda: blend(x, kept, 0.5))
        assert kernel == ("blend", 0, 2 * 6400 * 4)  # x, kept in and out, result
        small = torch.ones(2, device=CUDA)
        assert blend(small, torch.ones(2, device=CUDA), 2.0).tolist() == [3, 3]  # decisions have numbers


HEADS = ((1, 4, 333, 128), (1, 4, 77, 128))


@pytest.mark.parametrize(
    ("gpu", "cudnn", "dtype", "masked", "kernel"),
    [
        ("H100", 91900, torch.bfloat16, False, "cudnn"),
        ("H100", 91500, torch.bfloat16, False, "flash"),
        ("A100", 91900, torch.bfloat16, False, "flash"),
        ("A100", 91900, torch.bfloat16, True, "efficient"),
        ("4090", 91900, torch.float32, False, "efficient"),
    ],
)
def test_the_attention_kernel_of_a_gpu(gpu, cudnn, dtype, masked, kernel):
    with simulate(gpu, cudnn=cudnn) as sim:
        query, key = (on_card(*shape, dtype=dtype) for shape in HEADS)
        mask = torch.ones(1, 1, 333, 77, dtype=torch.bool, device=CUDA) if masked else None
        out = functional.scaled_dot_product_attention(query, key, key, mask)
    assert out.shape == query.shape
    assert [event.what.split(":")[0] for event in sim.ledger.attention] == [kernel]


def test_attention_without_a_kernel_is_refused(sim):
    query = on_card(1, 4, 16, 512)
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.CUDNN_ATTENTION),
        pytest.raises(RuntimeError, match="No available kernel"),
    ):
        functional.scaled_dot_product_attention(query, query, query)
    assert choose((9, 0), 91900, possible(query, query, query, None, grouped=False)) == "efficient"


def test_copies_and_what_waits_for_them(sim):
    host, large, pinned = torch.ones(1000), torch.ones(20000), torch.empty(1000, pin_memory=True)
    host.to(CUDA)
    host.to(CUDA, non_blocking=True)  # so small that it does not wait
    large.to(CUDA, non_blocking=True)
    pinned.to(CUDA, non_blocking=True)
    with torch.cuda.stream(torch.cuda.Stream()):
        pinned.to(CUDA, non_blocking=True)
    on_card(1000).cpu()
    kinds = {event.what: size for event, size in sim.ledger.copies.items()}
    assert kinds == {
        "pinned on the host": 4000,
        "cpu to cuda, pageable": 4000,
        "cpu to cuda, pageable, non-blocking": 84000,
        "cpu to cuda, pinned, non-blocking": 4000,
        "cpu to cuda, pinned, non-blocking, on a side stream": 4000,
        "cuda to cpu, pageable": 2000,
    }
    waits = {event.what: count for event, count in sim.ledger.syncs.items()}
    assert waits == {
        "copy cpu to cuda, pageable": 1,
        "copy cpu to cuda, pageable, non-blocking": 1,
        "copy cuda to cpu, pageable": 1,
    }
    with pytest.raises(RuntimeError, match="cannot pin"):
        on_card(5).pin_memory()


def test_waits_have_their_place(sim):
    source = "def distinct(levels):\n    return levels.unique()\n"
    names: dict[str, Any] = {}
    exec(compile(source, f"{ROOT}videogen/example.py", "exec"), names)  # as if it were the project's
    assert names["distinct"](torch.tensor([2.0, 1.0, 2.0], device=CUDA)).tolist() == [1, 2]
    (event,) = [event for event in sim.ledger.syncs if event.what == "_unique2"]
    assert event.place == "videogen/example.py:2"
    x = torch.tensor([1.0, 2.0], device=CUDA)
    assert (x.sum().item(), x.tolist(), bool((x > 1).any())) == (3.0, [1.0, 2.0], True)
    assert x[x > 1].shape == (1,)


def test_small_fakes_keep_their_numbers_and_large_ones_do_not(sim):
    levels = torch.linspace(0, 1, 5).to(CUDA) * 4
    assert levels.cpu().numpy().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(levels, levels.clone())
    normed = functional.rms_norm(levels, (5,), torch.ones(5, device=CUDA), 0)
    assert normed.square().mean().item() == pytest.approx(1)
    random = torch.randn(8, 100, device=CUDA)
    assert torch.allclose(functional.softmax(random, -1).sum(-1), torch.ones(8, device=CUDA))
    large = torch.randn(1000, 1000, device=CUDA)
    large.isfinite().all().item()
    assert {event.what for event in sim.ledger.notes} == {"guessed a number"}


def everything() -> dict[tuple[str, str], Any]:
    """Return all functions, classes and properties of the libraries, by owner and name."""
    found: dict[tuple[str, str], Any] = {}
    callables = (FunctionType, type, property, staticmethod, classmethod)
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and name.startswith(
            ("torch", "videogen", "diffusers", "accelerate")
        ):
            for key, value in list(vars(module).items()):
                if isinstance(value, callables):
                    found[name, key] = value
                if isinstance(value, type) and value.__module__ == name:
                    attributes = list(vars(value).items())
                    found |= {(f"{name}.{key}", a): v for a, v in attributes if isinstance(v, callables)}
    return found


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_nothing_is_left_patched():
    with simulate():  # imports what it patches
        pass
    before, state = everything(), torch.get_rng_state()
    settings = (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
    with pytest.raises(ZeroDivisionError), simulate("A100"):
        assert torch.cuda.is_available()
        assert sum(value is not before.get(key) for key, value in everything().items()) > 20
        torch.set_float32_matmul_precision("high")
        torch.randn(3, device=CUDA)
        raise ZeroDivisionError
    after = everything()
    assert {key for key, value in before.items() if after.get(key) is not value} == set()
    assert {key for key in after.keys() - before.keys() if "simulated" in str(after[key])} == set()
    assert not torch.cuda.is_available()
    assert torch.equal(state, torch.get_rng_state())
    assert settings == (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
    assert not hasattr(torch.empty(2), "fake_mode")
