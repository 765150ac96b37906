"""What a LoRA file and its folder state about its strength: alpha and rank."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from safetensors import safe_open

from videogen.checkpoints.tensor_headers import Shape
from videogen.errors import CheckpointError
from videogen.files import LARGEST_JSON, parse_json, read_text

T = TypeVar("T")
# What a header calls alpha, and what PEFT stores in its adapter_config.json.
HEADER_ALPHAS = ("lora_alpha", "ss_network_alpha", "network_alpha", "alpha")
HEADER_CONFIGS = ("lora_adapter_metadata", "adapter_config", "peft_config", "lora_config")
NOT_STATED = (None, "None", "")


class Names(Protocol):
    """What is needed of a layer: its names, and the names of its tensors."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def keys(self) -> Mapping[str, str]: ...

    @property
    def ignores_alpha(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Strength:
    """What a LoRA file or its folder states about alpha and rank, for layers without an alpha of their own.

    Args:
        alpha: alpha of all layers; None: their rank, which makes the factor 1.
        rank: rank of all layers, where it is stated.
        alphas: pattern of layer names -> alpha.
        ranks: pattern of layer names -> rank.
        rank_stabilized: the factor is alpha / sqrt(rank).
    """

    alpha: float | None = None
    rank: int | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    rank_stabilized: bool = False

    def rank_of(self, layer: Names) -> int | None:
        """Return the stated rank of a layer."""
        return _matching(self.ranks, layer, self.rank)

    def factor(self, layer: Names, alpha: float | None, rank: int | None) -> float:
        """Return what a layer's change is multiplied by, besides the user's scale.

        Args:
            layer: the layer.
            alpha: its own alpha, from a tensor.
            rank: its rank, from the shapes of its matrices; None for LoKr with two whole matrices.
        """
        if layer.ignores_alpha:
            return 1.0
        if alpha is not None:
            return alpha / rank if rank else 1.0
        stated, rank = _matching(self.alphas, layer, self.alpha), rank or self.rank_of(layer)
        if stated is None or not rank:
            return 1.0
        return stated / (math.sqrt(rank) if self.rank_stabilized else rank)


def strength_files(file: Path) -> list[Path]:
    """Return the files beside and above a LoRA file that may state its strength."""
    places = [folder / "adapter_config.json" for folder in (file.parent, file.parent.parent)]
    return [place for place in places if place.is_file()]


def read_strength(
    file: Path, layers: Sequence[Names], shapes: Mapping[str, Shape]
) -> tuple[Strength, list[str]]:
    """Return the strength that the folder or the header of a LoRA file states, and warnings.

    adapter_config.json goes first (PEFT), then its content in the header (diffusers'
    ``lora_adapter_metadata``), then an alpha in the header.

    Raises:
        CheckpointError: what states it cannot be read.
    """
    sources: list[tuple[str, Mapping[str, object]]] = [
        (place.name, _json(place)) for place in strength_files(file)
    ]
    header = _header(file)
    for config in HEADER_CONFIGS:
        if config in header:
            whole = _json(file, header[config])
            sources.append(("its header", {name.rpartition(".")[2]: value for name, value in whole.items()}))
    alpha = next((header[name] for name in HEADER_ALPHAS if header.get(name) not in NOT_STATED), None)
    sources.append(("its header", {"alpha": alpha}))
    warnings = []
    for source, stated in sources:
        strength = _strength(file, stated)
        ranks = [
            (strength.rank_of(layer), shapes[layer.keys["down"]][0])
            for layer in layers
            if "down" in layer.keys
        ]
        wrong = [(said, is_) for said, is_ in ranks if said not in (None, is_)]
        if wrong:
            warnings.append(
                f"{source} speaks of rank {wrong[0][0]}, its matrices have {wrong[0][1]}: not used"
            )
        elif strength != Strength():
            return strength, warnings
    return Strength(), warnings


def _strength(file: Path, stated: Mapping[str, object]) -> Strength:
    """Return the strength in PEFT's words; ``alpha`` is what it calls LoHa's and LoKr's.

    Raises:
        CheckpointError: a value of a wrong type.
    """
    alpha, rank = stated.get("lora_alpha", stated.get("alpha")), stated.get("r")
    try:
        return Strength(
            alpha=None if alpha is None else _number(alpha),
            rank=None if rank is None else int(_number(rank)),
            alphas=_numbers(stated.get("alpha_pattern")),
            ranks={name: int(value) for name, value in _numbers(stated.get("rank_pattern")).items()},
            rank_stabilized=bool(stated.get("use_rslora")),
        )
    except ValueError as error:
        raise CheckpointError(f"--lora {file}: an alpha or a rank beside it is no number ({error})") from None


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or not math.isfinite(float(value)):
        raise ValueError(repr(value))
    return float(value)


def _numbers(value: object) -> dict[str, float]:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(repr(value))
    return {str(name): _number(number) for name, number in (value or {}).items()}


def _json(place: Path, text: str | None = None) -> Mapping[str, object]:
    """Return a JSON object, from a text or from the file itself."""
    try:
        found = parse_json(read_text(place, LARGEST_JSON) if text is None else text)
    except ValueError:
        found = None
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{place}: does not hold JSON as PEFT writes it; its strength cannot be read")
    return found


def _header(file: Path) -> Mapping[str, str]:
    """Return the metadata of a .safetensors file; others have none."""
    if file.suffix != ".safetensors":
        return {}
    with safe_open(file, framework="numpy") as opened:
        return opened.metadata() or {}


def _matching(patterns: Mapping[str, T], layer: Names, otherwise: T | None) -> T | None:
    """Return the value of the first pattern that matches the end of a layer's name, as PEFT does."""
    for pattern, value in patterns.items():
        try:
            matches = re.compile(rf"(?:.*\.)?(?:{pattern})$").match
        except re.error:
            matches = re.compile(rf"(?:.*\.)?{re.escape(pattern)}$").match
        if any(matches(name) for name in layer.names):
            return value
    return otherwise
