"""Which attention kernel a GPU takes: the rules of PyTorch 2.13, which decides it in C++, for real GPUs only.

Source: ``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`` and ``attention.cpp``.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.simulated import sim as running

aten: Any = torch.ops.aten
_original = functional.scaled_dot_product_attention
CUDNN_FIRST = 91500  # the newest version of cuDNN that is not yet preferred, on Hopper and Blackwell
MAX_GRID = 65535
LOW = (torch.bfloat16, torch.float16)


def possible(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, grouped: bool) -> set[str]:
    """Return the kernels that can compute this attention."""
    low, dim, value_dim = query.dtype in LOW, query.shape[-1], value.shape[-1]
    heads = query.shape[1] == key.shape[1] or grouped
    dense = all(tensor.stride(-1) == 1 for tensor in (query, key, value))
    works = {
        "cudnn": low
        and max(dim, value_dim) <= 128
        and dim % 8 == value_dim % 8 == 0
        and key.shape[-2] > 1
        and max(query.shape[0], query.shape[1]) <= MAX_GRID
        and heads,
        "flash": low and mask is None and dim == value_dim <= 256 and dense and heads,
        "efficient": dense and dim % (8 if low else 4) == 0 and value_dim % (8 if low else 4) == 0 and heads,
        "math": True,
    }
    return {name for name, can in works.items() if can}


def choose(capability: tuple[int, int], cudnn: int, can: set[str]) -> str | None:
    """Return the first kernel in PyTorch's order that can and is not switched off; None if there is none."""
    preferred = capability[0] in (9, 10) and capability[1] == 0 and cudnn > CUDNN_FIRST
    order = ("cudnn", "flash", "efficient", "math") if preferred else ("flash", "efficient", "math", "cudnn")
    cuda = torch.backends.cuda
    on = {
        "cudnn": cuda.cudnn_sdp_enabled(),
        "flash": cuda.flash_sdp_enabled(),
        "efficient": cuda.mem_efficient_sdp_enabled(),
        "math": cuda.math_sdp_enabled(),
    }
    return next((name for name in order if name in can and on[name]), None)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Stand in for ``scaled_dot_product_attention``: call the operator that a GPU would."""
    sim = running.current
    if sim is None or not isinstance(query, FakeTensor) or query.device.type != "cuda":
        return _original(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    kernel = choose(sim.gpu.capability, sim.cudnn, possible(query, key, value, attn_mask, grouped=enable_gqa))
    shape = "x".join(map(str, query.shape))
    masked = ", masked" if attn_mask is not None else ""
    sim.ledger.event(sim.ledger.attention, f"{kernel}: {query.dtype} {shape} to {key.shape[-2]}{masked}")
    if kernel is None:
        raise RuntimeError("No available kernel. Aborting execution.")
    mask = attn_mask
    if mask is not None and mask.dtype == torch.bool and kernel != "math":
        mask = torch.where(mask, 0.0, -math.inf).to(query.dtype)
    if enable_gqa and query.shape[1] != key.shape[1]:
        groups = query.shape[1] // key.shape[1]
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    out = _run(kernel, query, key, value, mask, is_causal=is_causal, scale=scale)
    values = [getattr(tensor, "numbers", None) for tensor in (query, key, value)]
    if attn_mask is None and all(tensor is not None for tensor in values):
        with unset_fake_temporarily(), sdpa_kernel(SDPBackend.MATH):
            out.numbers = _original(*values, is_causal=is_causal, scale=scale)
    return out


def _run(kernel: str, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **how: Any) -> Tensor:
    causal, scale = how["is_causal"], how["scale"]
    if kernel == "cudnn":
        cudnn = aten._scaled_dot_product_cudnn_attention
        return cudnn(query, key, value, mask, False, 0.0, causal, False, scale=scale)[0]
    if kernel == "flash":
        return aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal, False, scale=scale)[0]
    if kernel == "efficient":
        efficient = aten._scaled_dot_product_efficient_attention
        return efficient(query, key, value, mask, False, 0.0, causal, scale=scale)[0]
    weights = torch.matmul(query * (scale or query.shape[-1] ** -0.5), key.transpose(-2, -1))
    if mask is not None:
        weights = torch.where(mask, weights, -math.inf) if mask.dtype == torch.bool else weights + mask
    return torch.matmul(torch.softmax(weights, dim=-1), value)
