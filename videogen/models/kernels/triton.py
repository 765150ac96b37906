"""Triton kernels of ``operators.py``: one program per token, intermediate values in registers.

Sums are in float32, and values that plain PyTorch rounds to the tokens' dtype are rounded here too, so
results agree to the last bit or the one before it. The kernels run on a CPU under Triton's interpreter
(``TRITON_INTERPRET=1``).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from videogen.models.kernels.operators import Norm

MAX_WIDTH = 32768  # channels of a token per program


@triton.jit
def _row(base, row, tokens, frames, stride_b, stride_f):
    """Return the address of the row of a [B, F or 1, 1, D] tensor that belongs to a token."""
    frame = row // tokens
    return base + (frame // frames) * stride_b + (frame % frames) * stride_f


@triton.jit
def _residual_norm_kernel(
    x, update, gate, scale, shift, added, normed,
    tokens, frames, width, offset, eps,
    gate_b, gate_f, scale_b, scale_f, shift_b, shift_f,
    UPDATE: tl.constexpr, GATE: tl.constexpr, NORM: tl.constexpr, AFFINE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    inside = channel < width
    place = row * width + channel
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    if UPDATE:
        more = tl.load(update + place, mask=inside, other=0.0).to(tl.float32)
        if GATE:
            more *= tl.load(
                _row(gate, row, tokens, frames, gate_b, gate_f) + channel, mask=inside, other=0.0
            ).to(tl.float32)
        rounded = (value + more).to(added.dtype.element_ty)
        tl.store(added + place, rounded, mask=inside)
        value = rounded.to(tl.float32)
    if NORM:
        mean = tl.sum(value, axis=0) / width
        centred = tl.where(inside, value - mean, 0.0)
        result = centred * tl.rsqrt(tl.sum(centred * centred, axis=0) / width + eps)
        if AFFINE:
            scales = _row(scale, row, tokens, frames, scale_b, scale_f) + channel
            shifts = _row(shift, row, tokens, frames, shift_b, shift_f) + channel
            factor = tl.load(scales, mask=inside, other=0.0).to(tl.float32) + offset
            result = result * factor + tl.load(shifts, mask=inside, other=0.0).to(tl.float32)
        tl.store(normed + place, result.to(normed.dtype.element_ty), mask=inside)


def layer_norm(x: Tensor, *norm: *Norm) -> Tensor:
    """Run ``operators.layer_norm``."""
    return _residual_norm(x, None, None, norm)[1]


def add_layer_norm(x: Tensor, update: Tensor, gate: Tensor | None, *norm: *Norm) -> tuple[Tensor, Tensor]:
    """Run ``operators.add_layer_norm``."""
    return _residual_norm(x, update, gate, norm)


def gated_add(x: Tensor, update: Tensor, gate: Tensor | None) -> Tensor:
    """Run ``operators.gated_add``."""
    return _residual_norm(x, update, gate, None)[0]


def _residual_norm(
    x: Tensor, update: Tensor | None, gate: Tensor | None, norm: Norm | None
) -> tuple[Tensor, Tensor]:
    """Return x + gate * update (or x), and its layer norm (or x); norm is (scale, shift, offset, eps)."""
    batch, frames, tokens, width = x.shape
    assert width <= MAX_WIDTH, width
    scale, shift, offset, eps = norm or (None, None, 0.0, 0.0)
    x = x.contiguous()
    added = torch.empty_like(x) if update is not None else x
    normed = torch.empty_like(x) if norm is not None else x
    block = triton.next_power_of_2(width)
    parts = [_rows(part, x) for part in (gate, scale, shift)]
    _residual_norm_kernel[(batch * frames * tokens,)](
        x, x if update is None else update.contiguous(), *(part for part, _, _ in parts), added, normed,
        tokens, frames, width, offset, eps,
        *(stride for _, *strides in parts for stride in strides),
        UPDATE=update is not None, GATE=gate is not None, NORM=norm is not None, AFFINE=scale is not None,
        BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return added, normed


def _rows(part: Tensor | None, x: Tensor) -> tuple[Tensor, int, int]:
    """Return a [B or 1, F or 1, 1, D] or [D] tensor and its strides along B and F (0: broadcast)."""
    if part is None or part.ndim == 1:
        return (x if part is None else part.contiguous()), 0, 0
    part = part if part.stride(-1) == 1 else part.contiguous()
    batch, frames = (part.stride(axis) if part.shape[axis] > 1 else 0 for axis in (0, 1))
    return part, batch, frames


@triton.jit
def _rms_norm_rotary_kernel(
    x, weight, rotary, out,
    length, rotated, width, eps,
    HEAD: tl.constexpr, PER_HEAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    inside = channel < width
    place = row * width + channel
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    if PER_HEAD:
        heads = tl.reshape(value * value, (BLOCK // HEAD, HEAD))
        mean = tl.sum(heads, axis=1) / HEAD
        scale = tl.reshape(tl.broadcast_to(tl.rsqrt(mean + eps)[:, None], (BLOCK // HEAD, HEAD)), (BLOCK,))
        factor = tl.load(weight + channel % HEAD, mask=inside, other=0.0).to(tl.float32)
    else:
        scale = tl.rsqrt(tl.sum(value * value, axis=0) / width + eps)
        factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    value = (value * scale * factor).to(out.dtype.element_ty)
    position = row % length
    if position < rotated:
        real, imaginary = tl.split(tl.reshape(value.to(tl.float32), (BLOCK // 2, 2)))
        pair = tl.arange(0, BLOCK // 2)
        angle = rotary + position * HEAD + (pair % (HEAD // 2)) * 2
        cosine = tl.load(angle, mask=pair < width // 2, other=0.0)
        sine = tl.load(angle + 1, mask=pair < width // 2, other=0.0)
        turned = tl.join(real * cosine - imaginary * sine, real * sine + imaginary * cosine)
        value = tl.reshape(turned, (BLOCK,)).to(out.dtype.element_ty)
    tl.store(out + place, value, mask=inside)


def rms_norm_rotary(x: Tensor, weight: Tensor, rotary_emb: Tensor, heads: int, eps: float) -> Tensor:
    """Run ``operators.rms_norm_rotary``."""
    batch, length, width = x.shape
    head = width // heads
    per_head = len(weight) < width
    assert width <= MAX_WIDTH, width
    assert not per_head or head == triton.next_power_of_2(head), head
    x, out = x.contiguous(), torch.empty_like(x)
    block = triton.next_power_of_2(width)
    _rms_norm_rotary_kernel[(batch * length,)](
        x, weight.contiguous(), rotary_emb.contiguous(), out,
        length, len(rotary_emb), width, eps,
        HEAD=head, PER_HEAD=per_head, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return out.view(batch, length, heads, head)


def _warps(block: int) -> int:
    return max(1, min(16, block // 1024))
