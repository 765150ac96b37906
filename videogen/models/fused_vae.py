"""The elementwise passes of Wan's VAEs before a causal convolution, as one operator; see ``fused.py``.

Tensors are [B, C, F, H, W] with the channels of a pixel side by side (channels_last_3d).
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from videogen.models.fused import register

BEFORE = 2  # frames that a causal convolution sees before its own
EPS = 1e-12  # of torch's normalize


def empty_frames(like: Tensor, frames: int, height: int) -> Tensor:
    """Return memory for frames of a height, otherwise like those given."""
    batch, channels, _, _, width = like.shape
    return like.new_empty(batch, frames, height, width, channels).permute(0, 4, 1, 2, 3)


def append(x: Tensor, before: Tensor | None, rows: int) -> Tensor:
    """Return frames behind the two ``before`` them (None: zeros), which become the last two of them.

    ``rows`` (0 or 1) rows of zeros lie above and below the result.
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


def _norm_silu_append(x: Tensor, gamma: Tensor, before: Tensor | None, rows: int) -> Tensor:
    normed = functional.normalize(x.float(), dim=1, eps=EPS).mul_(gamma.float() * len(gamma) ** 0.5)
    return append(functional.silu(normed, inplace=True).type_as(x), before, rows)


def _fake(x: Tensor, _gamma: Tensor, _before: Tensor | None, rows: int) -> Tensor:
    return empty_frames(x, BEFORE + x.shape[2], x.shape[3] + 2 * rows)


def _sample(frames: int, rows: int, known: bool, device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    draw = torch.Generator().manual_seed(frames)
    x, before = (
        torch.randn(2, count, 5, 7, 24, generator=draw).to(device, dtype).permute(0, 4, 1, 2, 3)
        for count in (frames, BEFORE)
    )
    gamma = torch.randn(24, 1, 1, 1, generator=draw).to(device, dtype)
    return x, gamma, before if known else None, rows


norm_silu_append = register(
    "norm_silu_append",
    "(Tensor x, Tensor gamma, Tensor(a!)? before, int rows) -> Tensor",
    plain=_norm_silu_append,
    fake=_fake,
    samples=(partial(_sample, 1, 0, False), partial(_sample, 1, 0, True), partial(_sample, 4, 1, True)),
    kernels="videogen.models.triton_vae",
    dtypes=(torch.float32,),  # the VAE's, whatever the transformers' is
)
"""RMS norm of x over its channels, times gamma [C, 1, 1, 1], then SiLU; appended as by ``append``."""
