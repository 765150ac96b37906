"""Attributes that are replaced for a while, and put back whatever happens."""

import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

# Where functions remember what they found out about the machine, or tensors made for a device.
CACHING = (
    "videogen",
    "diffusers.utils",
    "transformers.utils",
    "accelerate.utils",
    "torchao.utils",
    "torch.utils",
)


class Patches:
    """Replaces attributes of modules and classes; leaving the block puts all of them back."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, bool, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Replace an attribute until the block ends."""
        own = vars(owner)  # not getattr: a class may inherit it, and a descriptor would be called
        self._undo.append((owner, name, name in own, own.get(name)))
        setattr(owner, name, value)

    def __enter__(self) -> "Patches":
        clear_caches()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._undo:
            owner, name, had, value = self._undo.pop()
            if had:
                setattr(owner, name, value)
            else:
                delattr(owner, name)
        clear_caches()


def clear_caches() -> None:
    """Empty the caches of functions that may have asked about the device, or hold its tensors."""
    for function in list(_cached()):
        function.cache_clear()


def _cached() -> Iterator[Any]:
    for name, module in list(sys.modules.items()):
        if module is None or not name.startswith(CACHING):
            continue
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__ == name:
                yield from (
                    raw
                    for item in vars(value).values()
                    if hasattr(raw := getattr(item, "__func__", item), "cache_clear")
                )
            elif hasattr(value, "cache_clear") and hasattr(value, "__wrapped__"):
                yield value
