"""How the networks of both families call attention: where a kernel is chosen, and ranks may step in.

Shapes: B batch, L tokens, N heads, K head width.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor

Spans = list[tuple[int, int, int]]
"""Runs of tokens with a common view: (first, end, end of what they attend to)."""

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values [B, L, N, K] to [B, L, N, K]."""


class Exchange(Protocol):
    """Attention over a sequence whose tokens are spread over ranks (see runtime/parallel.py)."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, backend: Any, spans: Spans | None
    ) -> Tensor: ...


def attend_spans(kernel: Kernel, query: Tensor, key: Tensor, value: Tensor, spans: Spans | None) -> Tensor:
    """One dense attention for every span: no mask of L x L, any kernel."""
    if spans is None:
        return kernel(query, key, value)
    return torch.cat([kernel(query[:, a:b], key[:, :end], value[:, :end]) for a, b, end in spans], dim=1)


class AttentionProcessor:
    """Where the kernel of one attention layer is set from outside, and how its tokens are spread.

    diffusers sets ``_attention_backend`` and ``_parallel_config``; runtime/parallel.py sets ``exchange``.
    """

    _attention_backend: Any = None
    _parallel_config: Any = None
    exchange: Exchange | None = None

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        sharded: bool = False,
        spans: Spans | None = None,
    ) -> Tensor:
        """Attention over [B, L, N, K]; ``sharded`` says that the sequence may be spread over ranks."""
        if sharded and self.exchange is not None:
            return self.exchange(query, key, value, self._attention_backend, spans)
        config = self._parallel_config if sharded and spans is None else None

        def kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return dispatch_attention_fn(
                query, key, value, backend=self._attention_backend, parallel_config=config
            )

        return attend_spans(kernel, query, key, value, spans)
