"""Attention kernels: what they are given, and how one is chosen."""

import logging

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

from videogen.errors import InputError
from videogen.models import attention
from videogen.models.attention import AttentionProcessor, attend
from videogen.runtime import apply

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _nothing_remembered():
    yield
    for function in (apply._problem, apply._say):
        function.cache_clear()


def tokens(*lengths):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, length, 3, 16, generator=generator) for length in lengths]


@pytest.mark.parametrize("name", ["native", "_native_flash", "_native_math", "flex"])
def test_kernels_give_what_diffusers_gives(name):
    backend = AttentionBackendName(name)
    given = tokens(13, 9, 9)
    assert torch.allclose(attend(*given, backend), dispatch_attention_fn(*given, backend=backend), atol=1e-6)


@pytest.mark.parametrize("name", ["native", *attention.TORCH_KERNELS])
def test_torch_is_given_views_and_flattening_is_free(monkeypatch, name):
    """cuDNN was given copies, 549 GB per forward of a 14B model at 720P."""
    given, seen = tokens(13, 9, 9), []

    def kernel(query, key, value):  # as the kernels on CUDA, which put out the strides of the queries
        seen.extend(x.data_ptr() for x in (query, key, value))
        assert query.shape == (1, 3, 13, 16)
        return torch.empty_like(query)

    monkeypatch.setattr(attention.functional, "scaled_dot_product_attention", kernel)
    processor = AttentionProcessor()
    processor._attention_backend = AttentionBackendName(name)
    out = processor.attend(*given)
    assert seen == [x.data_ptr() for x in given]
    assert out.shape == (1, 13, 3, 16)
    assert out.flatten(2).data_ptr() == out.data_ptr()


def test_calls_can_be_compiled():
    given = tokens(13, 9, 9)
    compiled = torch.compile(attend, fullgraph=True, backend="eager")
    for name in ("native", "_native_flash"):
        backend = AttentionBackendName(name)
        assert torch.equal(compiled(*given, backend), attend(*given, backend))


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda out: out, False),
        (lambda out: out.to(torch.bfloat16).to(out), False),
        (lambda out: out.index_fill(1, torch.tensor([160]), 0.0), True),  # the last row of an odd length
        (lambda out: out.where(torch.arange(3)[:, None] < 2, torch.nan), True),  # one head
    ],
)
def test_a_kernel_that_computes_something_else_does_not_run(monkeypatch, change, wrong):
    original = apply.attend
    monkeypatch.setattr(
        apply,
        "attend",
        lambda *given: original(*given) if given[-1] == "_native_math" else change(original(*given)),
    )
    if wrong:
        with pytest.raises(
            InputError, match=r"native: does not run here, .* \(its result is .*% off for 161"
        ):
            apply.check_attention_backend("native", CPU, torch.float32)
    else:
        assert apply.check_attention_backend("native", CPU, torch.float32) == "native"


def test_an_error_that_comes_late_is_caught(monkeypatch):
    """CUDA tells of it when somebody waits."""

    def late(_tensor):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.Tensor, "item", late)
    with pytest.raises(InputError, match=r"native: does not run here.*illegal memory access"):
        apply.check_attention_backend("native", CPU, torch.float32)


@pytest.fixture
def hopper(monkeypatch):
    """A GPU on which torch's kernels run and packages are missing; returns a setter of cuDNN's version."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(apply, "_problem", lambda name, *_: None if "native" in name else "missing package")
    return lambda version: monkeypatch.setattr(torch.backends.cudnn, "version", lambda: version)


@pytest.mark.parametrize(("version", "chosen"), [(91002, "_native_flash"), (91500, "_native_flash")])
def test_an_old_cudnn_is_not_chosen(hopper, caplog, version, chosen):
    caplog.set_level(logging.INFO, logger="videogen")
    hopper(version)
    for _ in range(2):
        assert apply.check_attention_backend("auto", CUDA, torch.bfloat16) == chosen
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "cuDNN 9.1" in record.getMessage()
    assert "not used" in record.getMessage()


def test_a_new_cudnn_is_chosen_in_silence(hopper, caplog):
    caplog.set_level(logging.INFO, logger="videogen")
    hopper(91501)
    assert apply.check_attention_backend("auto", CUDA, torch.bfloat16) == "_native_cudnn"
    assert not caplog.records


def test_an_old_cudnn_that_was_asked_for_is_used_with_a_warning(hopper, caplog):
    hopper(91002)
    for _ in range(2):
        assert apply.check_attention_backend("cudnn", CUDA, torch.bfloat16) == "_native_cudnn"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "cuDNN 9.10.2 has errors with lengths that are no multiple of 128" in record.getMessage()


def test_a_kernel_that_fails_its_trial_is_passed_over(hopper, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="videogen")
    hopper(91900)
    monkeypatch.setattr(apply, "_problem", lambda name, *_: None if name == "native" else "34% off")
    for _ in range(2):
        assert apply.check_attention_backend("auto", CUDA, torch.bfloat16) == "native"
    assert [record.getMessage() for record in caplog.records] == [
        f"--attention_backend auto: not {name} (34% off)" for name in ("_native_cudnn", "_native_flash")
    ]  # packages that are not there are no news
