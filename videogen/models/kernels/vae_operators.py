"""Fused elementwise operators of the VAEs between convolutions; see ``operators.py``.

Tensors are [B, C, F, H, W] in the memory format channels_last_3d.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from videogen.models.kernels.operators import OpArguments, register

BEFORE = 2  # frames that a causal convolution sees before its own
EPS = 1e-12  # of torch's normalize


def empty_frames(like: Tensor, frames: int, height: int) -> Tensor:
    """Return memory for frames of a height, otherwise like those given."""
    batch, channels, _, _, width = like.shape
    return like.new_empty(batch, frames, height, width, channels).permute(0, 4, 1, 2, 3)


def append(x: Tensor, before: Tensor | None, rows: int) -> Tensor:
    """Return frames behind the two ``before`` them (None: zeros), which become the last two of them.

    The result has ``rows`` (0 or 1) rows of zeros above and below.
    """
    height = x.shape[3]
    joined = empty_frames(x, BEFORE + x.shape[2], height + 2 * rows)
    inner = joined[:, :, :, rows : height + rows]
    inner[:, :, :BEFORE] = 0 if before is None else before
    inner[:, :, BEFORE:] = x
    if rows:
        joined[:, :, :, :: height + 1] = 0
    if before is not None:
        before.copy_(inner[:, :, -BEFORE:])
    return joined


def _with_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    return x.float() if bias is None else x.float() + bias.float().view(-1, 1, 1, 1)


def _norm_silu_append(
    x: Tensor, bias: Tensor | None, gamma: Tensor, before: Tensor | None, rows: int
) -> Tensor:
    normed = functional.normalize(_with_bias(x, bias), dim=1, eps=EPS)
    normed = normed.mul_(gamma.float() * len(gamma) ** 0.5)
    return append(functional.silu(normed, inplace=True).type_as(x), before, rows)


def _norm_silu_append_fake(
    x: Tensor, _bias: Tensor | None, _gamma: Tensor, _before: Tensor | None, rows: int
) -> Tensor:
    return empty_frames(x, BEFORE + x.shape[2], x.shape[3] + 2 * rows)


def _add_biased(x: Tensor, bias: Tensor, other: Tensor) -> Tensor:
    return (_with_bias(x, bias) + other).type_as(x)


def _draw(seed: int, device: torch.device, dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def _frames(seed: int, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return _draw(seed, device, dtype, 2, count, 5, 7, 24).permute(0, 4, 1, 2, 3)


def _append_sample(
    frames: int, rows: int, known: bool, device: torch.device, dtype: torch.dtype
) -> OpArguments:
    """Return frames that follow others, with the bias still to come, or that are the first."""
    before = _frames(1, BEFORE, device, dtype) if known else None
    bias = _draw(2, device, dtype, 24) if known else None
    return _frames(0, frames, device, dtype), bias, _draw(3, device, dtype, 24, 1, 1, 1), before, rows


def _add_sample(device: torch.device, dtype: torch.dtype) -> OpArguments:
    return _frames(0, 3, device, dtype), _draw(2, device, dtype, 24), _frames(1, 3, device, dtype)


KERNELS = "videogen.models.kernels.triton_vae"
DTYPES = (torch.float32,)  # the VAE's, whatever the transformers' is

norm_silu_append = register(
    "norm_silu_append",
    "(Tensor x, Tensor? bias, Tensor gamma, Tensor(a!)? before, int rows) -> Tensor",
    plain=_norm_silu_append,
    fake=_norm_silu_append_fake,
    samples=tuple(partial(_append_sample, *case) for case in ((1, 0, False), (1, 0, True), (4, 1, True))),
    kernels=KERNELS,
    dtypes=DTYPES,
)
"""RMS norm of x + bias [C] over channels, times gamma [C, 1, 1, 1], then SiLU; appended as by ``append``."""

add_biased = register(
    "add_biased",
    "(Tensor x, Tensor bias, Tensor other) -> Tensor",
    plain=_add_biased,
    fake=lambda x, *_: torch.empty_like(x),
    samples=(_add_sample,),
    kernels=KERNELS,
    dtypes=DTYPES,
)
"""x + bias [C] + other."""
