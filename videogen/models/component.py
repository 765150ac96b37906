"""How a component of a model is made from its files, as data; the networks describe theirs."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from videogen.checkpoints.key_maps import Entry, KeyTable, Shape
from videogen.errors import CheckpointError
from videogen.tasks.config import Config

Arguments = dict[str, Any]
"""Keyword arguments of a module's class."""


class Shapes:
    """Tensor shapes of a component under our names; a missing name is a CheckpointError."""

    def __init__(self, place: Path, found: Mapping[str, Entry]) -> None:
        self.place, self.found = place, found

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def __getitem__(self, name: str) -> Shape:
        if name not in self.found:
            raise CheckpointError(f"{self.place}: does not fit the model: missing {name}")
        return self.found[name].shape

    def count(self, prefix: str) -> int:
        """Return how many numbered modules follow a prefix."""
        numbers = {
            match[1] for name in self.found if (match := re.match(rf"{re.escape(prefix)}(\d+)\.", name))
        }
        return len(numbers)


def stated(config: Config, inferred: Arguments, *others: str) -> Arguments:
    """Return the inferred arguments and ``others``, as far as the config has them as it says."""
    return inferred | {name: config[name] for name in (*inferred, *others) if name in config}


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """Build recipe of one kind of component.

    Args:
        tables: namings it may come in.
        config: (config.json or {}, shapes) -> arguments of ``make``.
        make: arguments -> module.
        float32: pattern of parameter names kept in float32 whatever the precision.
        instead: dtypes that it cannot compute in, or not well -> the ones it uses.
        keeps_quantized: its linear layers can compute with weights in the format of their file.
    """

    tables: tuple[KeyTable, ...]
    config: Callable[[Config, Shapes], Arguments]
    make: Callable[[Arguments], nn.Module]
    float32: str = r"(?!)"
    instead: Mapping[torch.dtype, torch.dtype] = field(default_factory=dict)
    keeps_quantized: bool = False


# For components that do not overflow in float16, their published dtype, which is eight times as precise.
NOT_BFLOAT16 = {torch.bfloat16: torch.float16}
