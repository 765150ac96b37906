"""Triton kernels of ``vae_operators.py``: one program per block of pixels, intermediate values in registers.

Sums are in float32, and results are rounded once. The kernels run on a CPU under Triton's interpreter
(``TRITON_INTERPRET=1``).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from videogen.models.kernels.vae_operators import BEFORE, EPS, empty_frames

BLOCK = 4096  # approximate elements of one frame per program


@triton.jit
def _norm_silu_append_kernel(
    x, bias, gamma, before, joined,
    frames, height, width, rows, root,
    CHANNELS: tl.constexpr, EPS: tl.constexpr, BIAS: tl.constexpr, KEEP: tl.constexpr,
    PIXELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Process all frames at PIXELS positions.

    The two previous frames are read first, because the last two overwrite them.
    """
    area, batch = height * width, tl.program_id(1).to(tl.int64)
    place = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, BLOCK)[None, :]
    mask = (place < area)[:, None] & (channel < CHANNELS)
    source = (place * CHANNELS)[:, None] + channel
    target = ((place // width + rows) * width + place % width)[:, None] * CHANNELS + channel
    size, large = (
        area * CHANNELS,
        (height + 2 * rows) * width * CHANNELS,
    )  # of a frame, here and in the result
    x += batch * frames * size
    joined += batch * (frames + 2) * large
    before += batch * 2 * size

    first = tl.zeros((PIXELS, BLOCK), joined.dtype.element_ty)
    second = first
    if KEEP:
        first = tl.load(before + source, mask=mask, other=0.0)
        second = tl.load(before + size + source, mask=mask, other=0.0)
    tl.store(joined + target, first, mask=mask)
    tl.store(joined + large + target, second, mask=mask)
    factor = tl.load(gamma + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32) * root
    if BIAS:
        added = tl.load(bias + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
    for frame in range(frames):
        value = tl.load(x + frame * size + source, mask=mask, other=0.0).to(tl.float32)
        if BIAS:
            value += added
        norm = tl.sqrt(tl.sum(value * value, axis=1))
        value = value / tl.maximum(norm, EPS)[:, None] * factor
        first, second = second, (value / (1 + tl.exp(-value))).to(joined.dtype.element_ty)
        tl.store(joined + (frame + 2) * large + target, second, mask=mask)
    if KEEP:
        tl.store(before + source, first, mask=mask)
        tl.store(before + size + source, second, mask=mask)


def norm_silu_append(
    x: Tensor, bias: Tensor | None, gamma: Tensor, before: Tensor | None, rows: int
) -> Tensor:
    """Run ``vae_operators.norm_silu_append``."""
    batch, channels, frames, height, width = x.shape
    x = x.contiguous(memory_format=torch.channels_last_3d)
    joined = empty_frames(x, BEFORE + frames, height + 2 * rows)
    if rows:
        joined[:, :, :, :: height + 1] = 0
    assert before is None or before.is_contiguous(memory_format=torch.channels_last_3d)
    block = triton.next_power_of_2(channels)
    at_once = max(1, BLOCK // block)
    _norm_silu_append_kernel[(triton.cdiv(height * width, at_once), batch)](
        x, x if bias is None else bias, gamma.contiguous(), x if before is None else before, joined,
        frames, height, width, rows, channels**0.5,
        CHANNELS=channels, EPS=EPS, BIAS=bias is not None, KEEP=before is not None,
        PIXELS=at_once, BLOCK=block, num_warps=4,
    )  # fmt: skip
    return joined


@triton.jit
def _add_biased_kernel(x, bias, other, out, numbers, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < numbers
    value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    value += tl.load(bias + place % CHANNELS, mask=mask, other=0.0).to(tl.float32)
    value += tl.load(other + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=mask)


def add_biased(x: Tensor, bias: Tensor, other: Tensor) -> Tensor:
    """Run ``vae_operators.add_biased``."""
    x, other = (n.contiguous(memory_format=torch.channels_last_3d) for n in (x, other))
    out, block = torch.empty_like(x), 1024
    _add_biased_kernel[(triton.cdiv(x.numel(), block),)](
        x, bias, other, out, x.numel(), CHANNELS=x.shape[1], BLOCK=block, num_warps=4
    )
    return out
