"""Attention calls of both network families: kernel selection, and the hook for sharded sequences.

Shapes: B batch, L tokens, N heads, K head width.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from videogen.tasks.kernels import ATTENTION_KERNELS

Spans = list[tuple[int, int, int]]
"""Runs of tokens with a common view: (first, end, end of what they attend to)."""

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values [B, L, N, K] to [B, L, N, K]."""


TORCH_KERNELS = {
    kernel.name: SDPBackend.__members__[kernel.sdpa] for kernel in ATTENTION_KERNELS.values() if kernel.sdpa
}
"""torch's own kernels, under diffusers' names."""


class Exchange(Protocol):
    """Attention over a sequence sharded over ranks (see runtime/parallel.py)."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, backend: str | None, spans: Spans | None
    ) -> Tensor: ...


def attend(query: Tensor, key: Tensor, value: Tensor, backend: str | None) -> Tensor:
    """Compute attention over [B, L, N, K] with a kernel of diffusers' name; None is diffusers' active one.

    torch's kernels accept any strides and return those of the queries, so transposed views are passed and the
    output has its heads contiguous. (diffusers copies for cuDNN: 549 GB per forward at 720P.)
    """
    name = getattr(backend, "value", backend)
    if name != "native" and name not in TORCH_KERNELS:
        return dispatch_attention_fn(query, key, value, backend=backend)
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    if name == "native":
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    with sdpa_kernel(TORCH_KERNELS[name]):
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def attend_spans(kernel: Kernel, query: Tensor, key: Tensor, value: Tensor, spans: Spans | None) -> Tensor:
    """Compute one dense attention per span: no L x L mask, so any kernel works."""
    if spans is None:
        return kernel(query, key, value)
    return torch.cat([kernel(query[:, a:b], key[:, :end], value[:, :end]) for a, b, end in spans], dim=1)


class AttentionProcessor:
    """Base of attention processors: kernel and sequence sharding are set from outside.

    diffusers sets ``_attention_backend`` and ``_parallel_config``; runtime/parallel.py sets ``exchange``.
    """

    _attention_backend: str | None = None
    _parallel_config: object = None
    exchange: Exchange | None = None

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, *, sharded: bool = False, spans: Spans | None = None
    ) -> Tensor:
        """Compute attention over [B, L, N, K]; ``sharded``: the sequence may be sharded over ranks."""
        if sharded and self.exchange is not None:
            return self.exchange(query, key, value, self._attention_backend, spans)
        if self._parallel_config is not None and sharded and spans is None:
            return dispatch_attention_fn(
                query, key, value, backend=self._attention_backend, parallel_config=self._parallel_config
            )
        return attend_spans(partial(attend, backend=self._attention_backend), query, key, value, spans)
