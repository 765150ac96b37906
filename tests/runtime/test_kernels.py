"""Fused kernels: numerics under Triton's interpreter, compiling for real cards, and how they are enabled."""

import logging
import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT
from videogen.models.kernels import operators
from videogen.runtime import kernels

triton = pytest.importorskip("triton", reason="Triton is for Linux")

INTERPRETED = """
import torch
from videogen.models.kernels import operators as fused
from videogen.runtime import kernels  # all operators
for name, op in fused.OPS.items():
    for sample in op.samples:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            both = [op.outcome(run, sample, torch.device("cpu"), dtype) for run in (op.plain, op.kernel)]
            for one, other in zip(*both, strict=True):
                assert one.shape == other.shape and one.dtype == other.dtype == dtype, (name, one, other)
                one, other = one.double(), other.double()
                print(name, str(dtype)[6:], float((one - other).abs().max() / one.abs().max()))
"""
# Of the largest value. The interpreter cuts bfloat16 off where a card rounds; some results are rounded twice.
LIMITS = {"float32": 2e-6, "float16": 2**-10, "bfloat16": 2**-6}
# Bytes that a block of threads has on every card without asking for more.
SHARED = 48 << 10


@pytest.mark.slow
def test_kernels_compute_what_their_plain_forms_do():
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    seen = [line.split() for line in done.stdout.splitlines()]
    assert {name for name, _, _ in seen} == operators.OPS.keys()
    for name, dtype, difference in seen:
        assert float(difference) <= LIMITS[dtype], (name, dtype, difference)


POINTERS = {
    **dict.fromkeys(("x", "update", "added", "normed", "weight", "out"), "*bf16"),
    **dict.fromkeys(("bias", "gamma", "before", "joined", "other"), "*fp32"),
    **dict.fromkeys(("gate", "scale", "shift", "rotary"), "*fp32"),
    **dict.fromkeys(("offset", "eps", "root"), "fp32"),
}
VARIANTS = [
    ("_residual_norm_kernel", {"UPDATE": True, "GATE": True, "NORM": True, "AFFINE": True, "BLOCK": 8192}),
    ("_residual_norm_kernel", {"UPDATE": True, "GATE": True, "NORM": False, "AFFINE": False, "BLOCK": 8192}),
    ("_rms_norm_rotary_kernel", {"HEAD": 128, "PER_HEAD": False, "BLOCK": 8192}),
    ("_rms_norm_rotary_kernel", {"HEAD": 128, "PER_HEAD": True, "BLOCK": 4096}),
]
VAE_VARIANTS = [
    ("_add_biased_kernel", {"CHANNELS": 96, "BLOCK": 1024}),
    *(
        (
            "_norm_silu_append_kernel",
            {
                **{"CHANNELS": channels, "EPS": 1e-12, "BIAS": keep, "KEEP": keep},
                **{"PIXELS": 4096 // block, "BLOCK": block},
            },
        )
        for channels, block in ((96, 128), (1024, 1024))
        for keep in (False, True)
    ),
]


@pytest.mark.parametrize(
    "capability", [90, *(pytest.param(other, marks=pytest.mark.slow) for other in (80, 89, 100, 120))]
)
def test_kernels_compile_for_real_cards(capability):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from videogen.models.kernels import triton as triton_kernels
    from videogen.models.kernels import triton_vae

    listed = [(triton_kernels, *variant) for variant in VARIANTS]
    for module, name, constants in listed + [(triton_vae, *variant) for variant in VAE_VARIANTS]:
        kernel = getattr(module, name)
        signature = {arg: POINTERS.get(arg, "i32") for arg in kernel.arg_names}
        source = ASTSource(
            fn=kernel,
            signature=signature | dict.fromkeys(constants, "constexpr"),
            constexprs={(kernel.arg_names.index(arg),): value for arg, value in constants.items()},
        )
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert compiled.asm["cubin"]
        assert compiled.metadata.shared <= SHARED


@pytest.fixture
def pretend(monkeypatch):
    """Let the check run on the CPU, whose registered form is the plain one, and clean up behind it."""
    monkeypatch.setattr(operators, "ENABLED", set())
    monkeypatch.setattr(kernels, "_problem", kernels._problem.__wrapped__)
    monkeypatch.setattr(kernels, "needs_check", lambda device: True)
    return lambda dtype=torch.bfloat16: kernels.enable_fused_kernels(torch.device("cpu"), dtype)


def test_kernels_that_agree_are_enabled(pretend, caplog):
    pretend()
    assert operators.OPS.keys() == operators.ENABLED
    assert not caplog.records


def test_a_kernel_that_differs_or_fails_is_dropped_with_a_line(pretend, caplog, monkeypatch):
    from dataclasses import replace

    def fails(*_):
        raise RuntimeError("no PTX for this card\nand more")

    norm, gate = operators.OPS["layer_norm"], operators.OPS["gated_add"]
    monkeypatch.setitem(
        operators.OPS, "layer_norm", replace(norm, op=lambda *given: norm.plain(*given) * 1.1)
    )
    monkeypatch.setitem(operators.OPS, "gated_add", replace(gate, op=fails))
    with caplog.at_level(logging.WARNING):
        pretend()
    assert operators.OPS.keys() - {"layer_norm", "gated_add"} == operators.ENABLED
    differs, broken = (record.message for record in caplog.records)
    assert "layer_norm" in differs
    assert "differ" in differs
    assert "gated_add" in broken
    assert "no PTX for this card" in broken
    assert "and more" not in broken


def test_nothing_is_enabled_without_a_cuda_device():
    kernels.enable_fused_kernels(torch.device("cpu"), torch.bfloat16)
    assert not operators.ENABLED


def test_nan_is_no_agreement():
    good, bad = (torch.ones(2), torch.ones(2)), (torch.ones(2), torch.tensor([1.0, float("nan")]))
    assert kernels._difference(good, good) == 0
    assert kernels._difference(good, bad) == kernels._difference(bad, good) == float("inf")
