"""Fused elementwise operators of the VAEs between convolutions; see ``operators.py``.

Tensors are [B, C, F, H, W] in the memory format channels_last_3d.
"""

import torch
from torch import Tensor
from torch.nn import functional

from videogen.models.kernels.operators import Draw, register

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


def _frames(seed: int, count: int) -> Draw:
    return Draw(seed, (2, count, 5, 7, 24), channels_second=True)


BEFORE_X, BIAS, GAMMA = _frames(1, BEFORE), Draw(2, (24,)), Draw(3, (24, 1, 1, 1))
KERNELS = "videogen.models.kernels.triton_vae"
DTYPES = (torch.float32,)  # the VAE's, whatever the transformers' is

norm_silu_append = register(
    "norm_silu_append",
    "(Tensor x, Tensor? bias, Tensor gamma, Tensor(a!)? before, int rows) -> Tensor",
    plain=_norm_silu_append,
    fake=lambda x, _bias, _gamma, _before, rows: empty_frames(x, BEFORE + x.shape[2], x.shape[3] + 2 * rows),
    samples=(
        (_frames(0, 1), None, GAMMA, None, 0),
        (_frames(0, 1), BIAS, GAMMA, BEFORE_X, 0),
        (_frames(0, 4), BIAS, GAMMA, BEFORE_X, 1),
    ),
    kernels=KERNELS,
    dtypes=DTYPES,
)
"""RMS norm of x + bias [C] over channels, times gamma [C, 1, 1, 1], then SiLU; appended as by ``append``."""

add_biased = register(
    "add_biased",
    "(Tensor x, Tensor bias, Tensor other) -> Tensor",
    plain=lambda x, bias, other: (_with_bias(x, bias) + other).type_as(x),
    fake=lambda x, *_: torch.empty_like(x),
    samples=((_frames(0, 3), BIAS, _frames(1, 3)),),
    kernels=KERNELS,
    dtypes=DTYPES,
)
"""x + bias [C] + other."""
