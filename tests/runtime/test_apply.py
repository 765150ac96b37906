"""Precision policy, compiled code."""

import os
from pathlib import Path

import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir

from videogen.models.kernels.operators import apply_rotary
from videogen.runtime.apply import COMPILED, keep_compiled
from videogen.runtime.parallel import RING_KERNELS
from videogen.runtime.precision import set_precision
from videogen.tasks.kernels import ATTENTION_KERNELS


@pytest.fixture
def _policy_restored():
    yield
    set_precision(torch.device("cpu"), torch.float32)
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.usefixtures("_policy_restored")
@pytest.mark.parametrize(
    ("device", "dtype", "fast"),
    [
        ("cuda", "bfloat16", True),
        ("cuda", "float16", True),
        ("cuda", "float32", False),
        ("cpu", "bfloat16", False),
    ],
)
def test_tf32_only_beside_half_precision(device, dtype, fast):
    set_precision(torch.device(device), getattr(torch, dtype))
    assert torch.backends.cuda.matmul.allow_tf32 == fast
    assert torch.backends.cudnn.allow_tf32 == fast


def test_compiled_code_is_kept_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv(COMPILED, "")  # so that it is put back
    monkeypatch.delenv(COMPILED)
    keep_compiled()
    assert Path(cache_dir()) == Path(os.environ["VIDEOGEN_CACHE"], "compiled")
    os.environ[COMPILED] = default_cache_dir()  # torch writes its own there when it is imported
    keep_compiled()
    assert Path(cache_dir()) == Path(os.environ["VIDEOGEN_CACHE"], "compiled")
    os.environ[COMPILED] = str(tmp_path)
    keep_compiled()
    assert Path(cache_dir()) == tmp_path


def test_rotation_is_the_same_in_real_numbers():
    x, angle = torch.randn(1, 5, 2, 8), torch.randn(5, 1, 4)
    table = torch.stack([angle.cos(), angle.sin()], dim=-1)
    compiled = torch.compile(apply_rotary, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x.clone(), table), apply_rotary(x.clone(), table), atol=1e-6)


def test_kernels_in_a_ring_are_those_that_planning_knows():
    known = {name for name, kernel in ATTENTION_KERNELS.items() if kernel.in_ring}
    assert known == RING_KERNELS.keys() - {"native"}
