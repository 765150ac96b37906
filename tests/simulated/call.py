"""One operator as PyTorch dispatches it, and what can be told from it without running it."""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves


class Call:
    """One operator as it was called."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.name = func._schema.name.split("::")[-1]
        self.tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.fakes = [tensor for tensor in self.tensors if isinstance(tensor, FakeTensor)]
        device = kwargs.get("device")
        self.target = None if device is None else torch.device(device)

    @property
    def on_card(self) -> bool:
        return any(fake.fake_device.type == "cuda" for fake in self.fakes)

    @property
    def to_card(self) -> bool:
        return self.target is not None and self.target.type == "cuda"

    def run(self) -> Any:
        return self.func(*self.args, **self.kwargs)

    def written(self) -> list[Tensor]:
        """Return the tensors that the operator changes in place."""
        schema = self.func._schema
        if not schema.is_mutable:
            return []
        given = list(zip(schema.arguments, self.args, strict=False))
        given += [
            (argument, self.kwargs[argument.name])
            for argument in schema.arguments
            if argument.name in self.kwargs
        ]
        changed = [value for argument, value in given if argument.alias_info and argument.alias_info.is_write]
        return [leaf for leaf in tree_leaves(changed) if isinstance(leaf, Tensor)]
