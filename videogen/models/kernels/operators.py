"""Fused elementwise operators of the transformers: norms with residual, modulation and rotary embedding.

Plain PyTorch reads and writes the tokens several times per such operator, in float32, which takes a tenth of
a forward. Every operator here has a plain form, which is its reference and runs everywhere, and a Triton
kernel of the same name (triton.py) that reads and writes the tokens once. A kernel is used only after
``runtime/kernels.py`` has compared it with the plain form on the device. With gradients and inside compiled
code the plain form runs; the compiler fuses it itself.

Shape letters are those of wan/transformer.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

KERNELS = "videogen.models.kernels.triton"
ENABLED: set[str] = set()  # names of the operators whose kernels are used
OPS: "dict[str, FusedOp[Any]]" = {}

Result = TypeVar("Result")
Norm = tuple[Tensor | None, Tensor | None, float, float]
"""Scale, shift, offset and eps of a layer norm."""


class Draw(NamedTuple):
    """A random tensor, to compare a kernel with its plain form.

    Args:
        shape: its shape, the channels last.
        dtype: its dtype; None is the one that is compared.
        part: which third of axis -2 it is, as modulation is part of one tensor.
        channels_second: the channels become axis 1, in the memory format channels_last_3d.
    """

    seed: int
    shape: tuple[int, ...]
    dtype: torch.dtype | None = None
    part: int | None = None
    channels_second: bool = False

    def make(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Draw it; the same every time."""
        drawn = torch.randn(self.shape, generator=torch.Generator().manual_seed(self.seed))
        drawn = drawn.to(device, self.dtype or dtype)
        drawn = drawn if self.part is None else drawn.chunk(3, dim=-2)[self.part]
        return drawn.movedim(-1, 1) if self.channels_second else drawn


Sample = tuple[Draw | float | None, ...]
"""Arguments of an operator."""


@dataclass(frozen=True, slots=True)
class FusedOp(Generic[Result]):
    """Operator with a plain PyTorch form and a registered one, which is a kernel on CUDA."""

    name: str
    plain: Callable[..., Result]
    op: Callable[..., Result]
    kernels: str
    samples: tuple[Sample, ...]
    dtypes: tuple[torch.dtype, ...]
    changed: tuple[int, ...]

    def kernel(self, *arguments: object) -> Result:
        """Run the kernel itself, whatever is enabled."""
        return getattr(import_module(self.kernels), self.name)(*arguments)

    def outcome(
        self, run: Callable[..., Result], sample: Sample, device: torch.device, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        """Return the results of ``run`` for a sample, and the arguments that it has changed."""
        arguments = [part.make(device, dtype) if isinstance(part, Draw) else part for part in sample]
        results = run(*arguments)
        changed = (arguments[place] for place in self.changed if arguments[place] is not None)
        return (*(results if isinstance(results, tuple) else (results,)), *changed)

    def is_used(self, x: Tensor) -> bool:
        """Return True if the kernel runs for ``x``: it is enabled and ``x`` is on CUDA."""
        return (
            self.name in ENABLED
            and x.device.type == "cuda"
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
        )

    def __call__(self, x: Tensor, *others: object) -> Result:
        """Run the kernel where it is used for ``x``, else the plain form."""
        return (self.op if self.is_used(x) else self.plain)(x, *others)


def register(
    name: str,
    schema: str,
    *,
    plain: Callable[..., Result],
    fake: Callable[..., Result],
    samples: tuple[Sample, ...],
    kernels: str = KERNELS,
    dtypes: tuple[torch.dtype, ...] = (),
) -> FusedOp[Result]:
    """Register an operator as ``torch.ops.videogen.<name>`` and in ``OPS``.

    Args:
        name: name of the operator.
        schema: arguments and results in PyTorch's notation; the first argument is a tensor.
        plain: reference implementation.
        fake: (arguments) -> empty tensors like the results.
        samples: inputs with which the kernel is compared with ``plain``.
        kernels: module with the CUDA function of this name; imported when first used.
        dtypes: dtypes in which it is compared, in addition to the transformers'.
    """
    arguments = torch._C.parse_schema(f"{name}{schema}").arguments
    changed = [i for i, one in enumerate(arguments) if one.alias_info is not None and one.alias_info.is_write]

    def launch(x: Tensor, *others: object) -> Result:
        with torch.cuda.device_of(x):  # Triton launches on the current device
            return OPS[name].kernel(x, *others)

    op = torch.library.custom_op(
        f"videogen::{name}",
        launch,
        mutates_args=[arguments[place].name for place in changed],
        device_types="cuda",
        schema=schema,
    )
    op.register_kernel("cpu", plain)
    op.register_fake(fake)
    OPS[name] = FusedOp(name, plain, op, kernels, samples, dtypes, tuple(changed))
    return OPS[name]


def apply_rotary(x: Tensor, rotary_emb: Tensor) -> Tensor:
    """Rotate adjacent channel pairs of x [B, L, N, K] by cosines and sines [L, 1, K/2, 2], or any that fit.

    Without gradients the memory of ``x`` may be reused.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled():  # torch.compile fuses no complex numbers
        real, imaginary = rearrange(x.float(), "b l n (k two) -> two b l n k", two=2)
        cosine, sine = rotary_emb.unbind(-1)
        rotated = [real * cosine - imaginary * sine, real * sine + imaginary * cosine]
        return torch.stack(rotated, dim=-1).flatten(-2).type_as(x)
    pairs = torch.view_as_complex(rearrange(x.float(), "b l n (k two) -> b l n k two", two=2))
    return torch.view_as_real(pairs.mul_(torch.view_as_complex(rotary_emb))).flatten(-2).type_as(x)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalize by RMS over the last axis.

    The CPU has no fused kernel for it; this takes three passes instead of six.
    """
    if x.device.type != "cpu":
        return functional.rms_norm(x, x.shape[-1:], weight, eps)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = torch.rsqrt(norm.square() / x.shape[-1] + eps)
    return (x * scale * weight).type_as(x)


def _layer_norm(x: Tensor, scale: Tensor | None, shift: Tensor | None, offset: float, eps: float) -> Tensor:
    if scale is None or shift is None:
        return functional.layer_norm(x.float(), x.shape[-1:], eps=eps).type_as(x)
    if offset == 0:
        return functional.layer_norm(x.float(), x.shape[-1:], scale.float(), shift.float(), eps).type_as(x)
    normed = functional.layer_norm(x.float(), x.shape[-1:], eps=eps)
    return torch.addcmul(shift, normed, offset + scale).type_as(x)


def _gated_add(x: Tensor, update: Tensor, gate: Tensor | None) -> Tensor:
    return x + update if gate is None else torch.addcmul(x, update, gate).type_as(x)


def _add_layer_norm(x: Tensor, update: Tensor, gate: Tensor | None, *norm: *Norm) -> tuple[Tensor, Tensor]:
    added = _gated_add(x, update, gate)
    return added, _layer_norm(added, *norm)


def _rms_norm_rotary(x: Tensor, weight: Tensor, rotary_emb: Tensor, heads: int, eps: float) -> Tensor:
    split = partial(rearrange, pattern="b l (n k) -> b l n k", n=heads)
    per_head = len(weight) < x.shape[-1]
    x = rms_norm(split(x), weight, eps) if per_head else split(rms_norm(x, weight, eps))
    rotated, others = x.split([len(rotary_emb), x.shape[1] - len(rotary_emb)], dim=1)
    rotated = apply_rotary(rotated, rotary_emb)
    return torch.cat([rotated, others], dim=1) if others.shape[1] else rotated


FRAMES, TOKENS, WIDTH, HEADS = 3, 5, 160, 5  # sizes of the samples: odd, or no powers of two


X, UPDATE = (Draw(seed, (2, FRAMES, TOKENS, WIDTH)) for seed in (0, 1))
SCALE, SHIFT, GATE = (Draw(2, (2, FRAMES, 3, WIDTH), torch.float32, part) for part in range(3))
WEIGHT, BIAS = (Draw(seed, (WIDTH,), torch.float32) for seed in (3, 4))
MODULATED, AFFINE = (SCALE, SHIFT, 1.0, 1e-6), (WEIGHT, BIAS, 0.0, 1e-6)
# Half of the tokens are rotated.
ROWS, ROTARY = Draw(0, (2, 2 * TOKENS, WIDTH)), Draw(5, (TOKENS, 1, WIDTH // HEADS // 2, 2), torch.float32)

layer_norm = register(
    "layer_norm",
    "(Tensor x, Tensor? scale, Tensor? shift, float offset, float eps) -> Tensor",
    plain=_layer_norm,
    fake=lambda x, *_: torch.empty_like(x),
    samples=((X, *MODULATED), (X, *AFFINE)),
)
"""Layer norm of x [B, F, S, D] in float32, times (offset + scale), plus shift; x's dtype.

Scale and shift [B or 1, F or 1, 1, D] or [D] may both be None.
"""

add_layer_norm = register(
    "add_layer_norm",
    "(Tensor x, Tensor update, Tensor? gate, Tensor? scale, Tensor? shift, float offset, float eps)"
    " -> (Tensor, Tensor)",
    plain=_add_layer_norm,
    fake=lambda x, *_: (torch.empty_like(x), torch.empty_like(x)),
    samples=((X, UPDATE, GATE, *MODULATED), (X, UPDATE, None, *AFFINE)),
)
"""x + gate * update as in ``gated_add``, and ``layer_norm`` of that."""

gated_add = register(
    "gated_add",
    "(Tensor x, Tensor update, Tensor? gate) -> Tensor",
    plain=_gated_add,
    fake=lambda x, *_: torch.empty_like(x),
    samples=((X, UPDATE, GATE),),
)
"""x + gate * update for x and update [B, F, S, D], in the dtype of x; gate [B or 1, F or 1, 1, D] or None."""

rms_norm_rotary = register(
    "rms_norm_rotary",
    "(Tensor x, Tensor weight, Tensor rotary_emb, int heads, float eps) -> Tensor",
    plain=_rms_norm_rotary,
    fake=lambda x, _weight, _rotary_emb, heads, _eps: x.new_empty(*x.shape[:2], heads, x.shape[2] // heads),
    samples=tuple((ROWS, Draw(3, (width,)), ROTARY, HEADS, 1e-6) for width in (WIDTH, WIDTH // HEADS)),
)
"""RMS norm of x [B, L, D] over the full width (weight [D]) or over each head (weight [K]), then rotary.

The first l tokens are rotated by ``rotary_emb`` [l, 1, K/2, 2] float32; the heads come apart: [B, L, N, K].
"""
