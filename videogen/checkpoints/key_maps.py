"""Key tables: maps from the tensor names of published checkpoints to ours. Needs no torch.

The tables themselves are in ``checkpoints/networks``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from videogen.checkpoints.tensor_headers import Shape
from videogen.errors import CheckpointError


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyTable:
    """Map from one published naming of tensors to ours.

    Args:
        fingerprint: pattern that at least one name must match for the table to apply.
        rules: (pattern, replacement), applied in order to every name.
        ignored: names (as published) that the network does not need.
        fused_qkv: (pattern of renamed names, names for its "{}"): several projections (mostly q, k and v)
            stored as one tensor, rows one below the other.
        width: published name of a tensor with as many rows as each of them but the last.
        swap_halves: pattern of published names whose two halves of rows are swapped.
    """

    fingerprint: str
    rules: tuple[tuple[str, str], ...] = ()
    ignored: str = r"(?!)"
    fused_qkv: tuple[tuple[str, tuple[str, ...]], ...] = ()
    width: str = ""
    swap_halves: str = r"(?!)"

    def names(self, name: str) -> list[str]:
        """Return our names for a published one: none, one, or one per tensor fused in it."""
        if re.search(self.ignored, name):
            return []
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        for pattern, parts in self.fused_qkv:
            if re.search(pattern, name):
                return [name.format(part) for part in parts]
        return [name]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkNames:
    """Names of a network's tensors: published ones, and diffusers', which are ours.

    Args:
        kind: what messages call the network.
        published: key table of its published names.
        ours: key table of our own.
        patch_embedding: tensors [width, input channels, ...], of which a file has one.
        layers: pattern that the names of all tensors of one layer begin with.
        traits: trait (see ``NetworkTraits``) -> pattern that a name begins with if the transformer has it.
        feed_forward: tensors with as many rows as a feed-forward is wide, of which a file has one.
        head_norms: ends of the names of tensors as long as an attention head is wide.
        words: parts of published names that hold a "_" themselves; LoRA files write "_" for "." as well.
        lora_prefix: of the layer names in LoRA files of its own training code, which ignores their alphas.
    """

    kind: str
    published: KeyTable
    ours: KeyTable
    patch_embedding: tuple[str, ...]
    layers: str
    traits: Mapping[str, str]
    feed_forward: tuple[str, ...] = ()
    head_norms: tuple[str, ...] = ()
    words: tuple[str, ...]
    lora_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """Tensor in a file; ``read`` maps it into memory."""

    key: str
    shape: Shape
    read: Callable[[], Any]
    float8: bool = False


def rename(place: Path, published: Sequence[Entry], tables: Iterable[KeyTable]) -> dict[str, Entry]:
    """Return published entries under our names, by the one table whose fingerprint matches.

    Raises:
        CheckpointError: names that no table knows.
    """
    table = next((t for t in tables if any(re.search(t.fingerprint, entry.key) for entry in published)), None)
    if table is None:
        some = ", ".join(entry.key for entry in published[:3]) or "no tensors at all"
        raise CheckpointError(f"{place}: tensor names of no known model ({some}); is this the right file?")
    width = next((entry.shape[0] for entry in published if entry.key == table.width), 0)
    return {name: part for entry in published for name, part in renamed(entry, table, width)}


def renamed(entry: Entry, table: KeyTable, width: int) -> Iterator[tuple[str, Entry]]:
    """Yield our name and entry for a published entry: none, one, or several of ``width`` rows each."""
    names = table.names(entry.key)
    if len(names) == 1:
        yield names[0], _swap_halves(entry) if re.search(table.swap_halves, entry.key) else entry
        return
    for index, name in enumerate(names):
        end = (index + 1) * width if index + 1 < len(names) else entry.shape[0]
        yield name, _rows(entry, index * width, end)


def _rows(entry: Entry, start: int, end: int) -> Entry:
    return replace(entry, shape=(end - start, *entry.shape[1:]), read=lambda: entry.read()[start:end])


def _swap_halves(entry: Entry) -> Entry:
    """Return an entry whose two halves of rows are swapped."""
    return replace(entry, read=lambda: entry.read().roll(entry.shape[0] // 2, dims=0))
