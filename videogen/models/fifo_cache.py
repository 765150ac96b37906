"""The last few things that were made, kept so that they need not be made again."""

from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor


class FifoCache:
    """Remembers ``size`` results; the oldest goes first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.entries: dict[Hashable, Any] = {}

    def get_or_compute(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """What ``compute`` made for an equal key."""
        if key not in self.entries:
            made = compute()
            while len(self.entries) >= self.size:
                del self.entries[next(iter(self.entries))]
            self.entries[key] = made
        return self.entries[key]

    def get_or_compute_for(self, source: Tensor, compute: Callable[[], Any]) -> Any:
        """What ``compute`` made of this very tensor, which must not have been changed in place since."""
        # The tensor is kept with the result, so that no other tensor can get its id.
        return self.get_or_compute(id(source), lambda: (source, compute()))[1]

    def clear(self) -> None:
        """Forget everything."""
        self.entries.clear()
