"""A small cache with first-in, first-out eviction."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from torch import Tensor

Result = TypeVar("Result")


class FifoCache:
    """Cache of at most ``size`` results; the oldest entry is evicted first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.entries: dict[Hashable, Any] = {}

    def get_or_compute(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Return the cached value of ``key``, computed by ``compute`` if it is missing."""
        if key not in self.entries:
            made = compute()
            while len(self.entries) >= self.size:
                del self.entries[next(iter(self.entries))]
            self.entries[key] = made
        return self.entries[key]

    def get_or_compute_for(self, source: Tensor, compute: Callable[[], Result]) -> Result:
        """Return the cached value of this tensor object, which must not have been changed in place."""
        # The tensor is kept with the result, so that no other tensor can get its id.
        return self.get_or_compute(id(source), lambda: (source, compute()))[1]

    def clear(self) -> None:
        """Remove all entries."""
        self.entries.clear()
