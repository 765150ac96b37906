"""Key tables: maps from the tensor names of published checkpoints to ours. Needs no torch.

The tables themselves are in ``configs/tensor_names``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from videogen.checkpoints.tensor_headers import Shape
from videogen.errors import CheckpointError
from videogen.tasks import config

# In front of the names of one network in files that may hold others as well; the first that there is.
TRANSFORMER_PREFIXES = (
    *("model.diffusion_model.", "diffusion_model.", "model.model.", "model."),
    *("module.", "_orig_mod.", "transformer.", "pipe.dit.", "dit.", "net."),
)
PREFIXES = (
    *TRANSFORMER_PREFIXES,
    *("first_stage_model.", "vae."),
    *("text_encoders.umt5xxl.transformer.", "cond_stage_model.", "text_encoder."),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyTable:
    """Map from one published naming of tensors to ours.

    Args:
        fingerprint: pattern that at least one name must match for the table to apply.
        rules: pattern -> replacement, applied in order to every name.
        ignored: names (as published) that the network does not need.
        fused_qkv: pattern of renamed names -> names for its "{}": several projections (mostly q, k and v)
            stored as one tensor, rows one below the other.
        width: published name of a tensor with as many rows as each of them but the last.
        swap_halves: pattern of published names whose two halves of rows are swapped.
    """

    fingerprint: str
    rules: Mapping[str, str] = field(default_factory=dict)
    ignored: str = r"(?!)"
    fused_qkv: Mapping[str, Sequence[str]] = field(default_factory=dict)
    width: str = ""
    swap_halves: str = r"(?!)"

    def names(self, name: str) -> list[str]:
        """Return our names for a published one: none, one, or one per tensor fused in it."""
        if re.search(self.ignored, name):
            return []
        for pattern, replacement in self.rules.items():
            name = re.sub(pattern, replacement, name)
        for pattern, parts in self.fused_qkv.items():
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
        float32: pattern of names of linear layers that are float32 whatever the dtype.
        outside: our layers outside the blocks that every such network has, with weight and bias.
        depths: name in a config.json -> our name of the blocks that it counts.
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
    float32: str = r"(?!)"
    outside: tuple[str, ...]
    depths: Mapping[str, str]
    words: tuple[str, ...]
    lora_prefix: str = ""


def read_names(network: str) -> tuple[dict[str, KeyTable], NetworkNames]:
    """Return the key tables of a network and of what is beside it, and the names of the network itself."""
    content = config.read(f"tensor_names/{network}")
    tables = {name: KeyTable(**table) for name, table in content["tables"].items()}
    names: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content["network"].items()
    }
    return tables, NetworkNames(published=tables["DIT"], ours=tables["DIFFUSERS_DIT"], **names)


@dataclass(frozen=True, slots=True)
class Entry:
    """Tensor in a file.

    Args:
        key: its name there.
        shape: that of the numbers it stands for.
        read: maps it into memory, as it is stored.
        dtype: as it is stored ("F8_E4M3", "Q4_K").
        scale: what float8 numbers are multiplied with: one number, or one per row.
    """

    key: str
    shape: Shape
    read: Callable[[], Any]
    dtype: str = ""
    scale: "Entry | None" = None


def rename(place: Path, published: Sequence[Entry], tables: Iterable[KeyTable]) -> dict[str, Entry]:
    """Return published entries under our names, by the one table whose fingerprint matches.

    All names may have a prefix; what lacks it belongs to other networks.

    Raises:
        CheckpointError: names that no table knows.
    """
    known = ((table, own) for own in _without_prefixes(published) for table in tables)
    fitting = ((t, own) for t, own in known if any(re.search(t.fingerprint, entry.key) for entry in own))
    table, published = next(fitting, (None, published))
    if table is None:
        some = ", ".join(entry.key for entry in published[:3]) or "no tensors at all"
        raise CheckpointError(f"{place}: tensor names of no known model ({some}); is this the right file?")
    width = next((entry.shape[0] for entry in published if entry.key == table.width), 0)
    return {name: part for entry in published for name, part in renamed(entry, table, width)}


def _without_prefixes(published: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Yield all entries, and those behind every prefix without it."""
    yield published
    for prefix in PREFIXES:
        yield [
            replace(entry, key=entry.key.removeprefix(prefix))
            for entry in published
            if entry.key.startswith(prefix)
        ]


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
    return replace(
        entry,
        shape=(end - start, *entry.shape[1:]),
        read=lambda: entry.read()[start:end],
        scale=_rows(entry.scale, start, end) if entry.scale and _is_per_row(entry) else entry.scale,
    )


def _swap_halves(entry: Entry) -> Entry:
    """Return an entry whose two halves of rows are swapped."""
    return replace(
        entry,
        read=lambda: entry.read().roll(entry.shape[0] // 2, dims=0),
        scale=_swap_halves(entry.scale) if entry.scale and _is_per_row(entry) else entry.scale,
    )


def _is_per_row(entry: Entry) -> bool:
    """Return whether every row has a scale of its own."""
    return entry.scale is not None and entry.scale.shape[:1] == entry.shape[:1]
