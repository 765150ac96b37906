"""The last few things that were made, kept so that they need not be made again."""

from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor


class Recent:
    """Remembers ``size`` results; the oldest goes first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.made: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make`` made for an equal key."""
        if key not in self.made:
            made = make()
            while len(self.made) >= self.size:
                del self.made[next(iter(self.made))]
            self.made[key] = made
        return self.made[key]

    def of(self, source: Tensor, make: Callable[[], Any]) -> Any:
        """What ``make`` made of this very tensor, which must not have been changed in place since."""
        return self.get(id(source), lambda: (source, make()))[1]  # kept, so that no other gets its id

    def clear(self) -> None:
        """Forget everything."""
        self.made.clear()
