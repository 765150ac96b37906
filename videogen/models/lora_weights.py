"""LoRA tensors: low-rank pairs under diffusers' names, and other changes, to be merged into the weights.

With scale s, and alpha and rank r of the file, a weight W becomes (in float32)

    LoRA    W + s alpha/r B A            LoKr    W + s alpha/r (w1 x w2), Kronecker
    LoHa    W + s alpha/r (w1 * w2)      diff    W + s D
    values  W + s (V - W)
    DoRA    m V / |V| with V any of the first three, and |V| per row, or per column where m is stored so

Sources: the PEFT and LyCORIS papers (arXiv 2106.09685, 2309.14859, 2402.09353).
"""

import logging
import math
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from videogen.checkpoints import lora
from videogen.checkpoints.lora import LoraFile
from videogen.checkpoints.lora_layers import CHANGES, LEFT, VALUES, Layer, by_columns
from videogen.checkpoints.tensor_headers import unwrapped
from videogen.errors import CheckpointError, first_line

logger = logging.getLogger(__name__)

PREFIX = "transformer."
LISTED = 5  # tensors named in one error
ADDED = ("whole", "bias", "up_bias", "modulation")  # roles of tensors that are added as they are


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightChange:
    """Change of a published weight, bias or modulation: one parameter of ours, or several stacked.

    Args:
        parameters: our names.
        tensors: role -> tensor of the file.
        factor: alpha / rank.
        swap_halves: the two halves of its rows are swapped in ours.
    """

    parameters: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    factor: float
    swap_halves: bool

    def of(self, weights: Sequence[Tensor], scale: float) -> list[Tensor]:
        """Return the changes of the parameters' values [rows, ...], in float32."""
        weight = torch.cat([weight.float() for weight in weights])
        if self.swap_halves:
            weight = weight.roll(len(weight) // 2, dims=0)
        change = self._change(weight, scale)
        if self.swap_halves:
            change = change.roll(len(change) // 2, dims=0)
        return list(change.split([len(weight) for weight in weights]))

    def _change(self, weight: Tensor, scale: float) -> Tensor:
        tensors = {role: tensor.to(weight.device).float() for role, tensor in self.tensors.items()}
        change = torch.zeros_like(weight)
        if "down" in tensors:
            change += (tensors["up"].flatten(1) @ tensors["down"].flatten(1)).reshape(weight.shape)
        if "up_bias" in tensors:
            change += tensors["up_bias"]
        if tensors.keys() & LEFT:
            left, right = (_factor(tensors, side) for side in ("left", "right"))
            change += torch.kron(left, right).reshape(weight.shape)
        if "one_a" in tensors:
            one, two = (tensors[f"{part}_a"] @ tensors[f"{part}_b"].flatten(1) for part in ("one", "two"))
            change += (one * two).reshape(weight.shape)
        change *= scale * self.factor
        if "magnitude" in tensors:
            change = _with_magnitude(weight + change, tensors["magnitude"]) - weight
        for role in ("whole", "bias", "modulation"):
            if role in tensors:
                change += scale * tensors[role].reshape(weight.shape)
        for role in VALUES:
            if role in tensors:
                change += scale * (tensors[role].reshape(weight.shape) - weight)
        return change


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraWeights:
    """Content of a LoRA file for one transformer.

    Args:
        pairs: low-rank matrices under diffusers' names, alphas applied.
        changes: everything else.
        warning: what of the file is not used.
    """

    pairs: dict[str, Tensor]
    changes: list[WeightChange]
    warning: str | None


class MergedChanges:
    """Changes merged into a transformer's weights, and the values that these had, on the CPU."""

    def __init__(self, transformer: nn.Module) -> None:
        self.transformer = transformer
        self.originals: dict[str, Tensor] = {}
        self.changes: dict[str, Sequence[WeightChange]] = {}
        self.scales: dict[str, float] = {}
        self.enabled = True

    def add(self, adapter: str, changes: Sequence[WeightChange]) -> None:
        """Merge the changes of an adapter, with scale 1, in place of those that it had."""
        self.remove(adapter)
        if changes:
            self.changes[adapter] = changes
            self.set_scales({**self.scales, adapter: 1.0})

    def remove(self, adapter: str) -> None:
        """Undo an adapter's changes and forget them."""
        if adapter in self.changes:
            self.set_scales({**self.scales, adapter: 0.0})
            del self.changes[adapter]

    def set_scales(self, scales: Mapping[str, float]) -> None:
        """Merge again with other scales; adapters that are not named have no effect."""
        moved = [name for name in self.changes if scales.get(name, 0.0) != self.scales.get(name, 0.0)]
        self.scales = {name: scale for name, scale in scales.items() if name in self.changes}
        self._merge(moved)

    def set_enabled(self, *, enabled: bool) -> None:
        """Switch all changes on or off."""
        self.enabled = enabled
        self._merge(list(self.changes))

    def _merge(self, adapters: Sequence[str]) -> None:
        """Compute anew every parameter that adapters change."""
        changes = [change for adapter in adapters for change in self.changes[adapter]]
        for name in dict.fromkeys(name for change in changes for name in change.parameters):
            self._merge_parameter(name)

    def _merge_parameter(self, name: str) -> None:
        parameter = self.transformer.get_parameter(name)
        active = [
            (change, scale)
            for adapter, scale in self.scales.items()
            if scale and self.enabled
            for change in self.changes[adapter]
            if name in change.parameters
        ]
        if not active:
            if name in self.originals:
                parameter.data = self.originals.pop(name).to(parameter.device)
            return
        if parameter.dtype.itemsize == 1:
            what = f"{name} is quantized, and the LoRA changes it by more than a low-rank pair"
            raise CheckpointError(f"{what}; use a checkpoint in bfloat16")
        original = self.originals.setdefault(name, parameter.data.cpu())
        total = original.to(parameter.device, torch.float32)
        for change, scale in active:
            weights = [self._original(other).to(parameter.device) for other in change.parameters]
            total = total + change.of(weights, scale)[change.parameters.index(name)]
        parameter.data = total.to(parameter.dtype)

    def _original(self, name: str) -> Tensor:
        return self.originals.get(name, self.transformer.get_parameter(name).data)


def read(path: Path, transformer: nn.Module) -> LoraWeights:
    """Read a LoRA file for a transformer.

    If one published layer is several of ours, all share its first matrix.

    Raises:
        CheckpointError: it is not for this transformer, or holds NaN or infinite values.
    """
    model = {name: tuple(tensor.shape) for name, tensor in _parameters(transformer).items()}
    file = lora.file_of(path)
    tensors = _load(file)
    found = lora.validate(path, model, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    pairs: dict[str, Tensor] = {}
    changes: list[WeightChange] = []
    _check_numbers(found, tensors)
    for layer in found.layers:
        roles = {role: tensors[key] for role, key in layer.keys.items()}
        factor = _factor_of(found, layer, roles)
        if layer.is_pair and layer.weights and len(model[layer.weights[0]]) > 1:
            pairs |= _pair(layer, roles, factor, model)
            layer = replace(layer, weights=())  # noqa: PLW2901 - what is left of it
        changes += _changes(layer, roles, factor)
    return LoraWeights(pairs=pairs, changes=changes, warning=found.warning)


def _parameters(transformer: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a network as they are called without adapters."""
    return {
        name.replace(".base_layer.", "."): parameter
        for name, parameter in transformer.named_parameters()
        if not re.search(r"\.lora_(A|B|magnitude_vector)\.", name)
    }


def _load(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file; of a pickle only tensors and numbers, and no code runs."""
    if file.suffix == ".safetensors":
        return load_file(file)
    try:
        content = unwrapped(torch.load(file, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        what = "broken, or not only tensors; convert it to .safetensors"
        raise CheckpointError(f"--lora {file}: {what} ({first_line(error)})") from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"--lora {file}: does not hold a table of tensors")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor | float | int)}
    return {
        name: value if isinstance(value, Tensor) else torch.tensor(float(value))
        for name, value in tensors.items()
    }


def _check_numbers(found: LoraFile, tensors: Mapping[str, Tensor]) -> None:
    """Refuse NaN and infinite values, and warn of a file that changes nothing.

    Raises:
        CheckpointError: names the first tensors that hold them.
    """
    keys = [key for layer in found.layers for key in layer.keys.values()]
    largest = {key: tensors[key].float().abs().max().item() if tensors[key].numel() else 0.0 for key in keys}
    if wrong := [key for key in keys if not math.isfinite(largest[key])]:
        more = f" and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
        what = f"NaN or infinite values in {', '.join(wrong[:LISTED])}{more}"
        raise CheckpointError(f"--lora {found.path}: {what}; is it whole?")
    sizes = ({role: largest[key] for role, key in layer.keys.items()} for layer in found.layers)
    if found.layers and not any(map(_changes_something, sizes)):
        logger.warning("--lora %s has no effect: what it adds is all zero", found.path.name)


def _changes_something(largest: Mapping[str, float]) -> bool:
    """Return whether a layer has an effect, from role -> largest number; no factor of a product is zero."""
    if largest.keys() & {"magnitude", *VALUES} or any(largest.get(role) for role in ADDED):
        return True
    factors = [size for role, size in largest.items() if role not in ("alpha", *ADDED)]
    return bool(factors) and all(factors)


def _factor_of(found: LoraFile, layer: Layer, roles: Mapping[str, Tensor]) -> float:
    alpha = roles["alpha"].float().item() if "alpha" in roles else None
    matrix = next((roles[role] for role in ("down", "one_b", "left_b", "right_b") if role in roles), None)
    return found.strength.factor(layer, alpha, None if matrix is None else matrix.shape[0])


def _changes(layer: Layer, roles: Mapping[str, Tensor], factor: float) -> list[WeightChange]:
    """Return the changes of a layer's weight, bias and modulation."""
    parts = (("weights", layer.weights), ("biases", layer.biases), ("modulation", layer.modulation))
    return [
        WeightChange(
            parameters=parameters,
            tensors={role: tensor for role, tensor in roles.items() if role in CHANGES[part]},
            factor=factor,
            swap_halves=layer.swap_halves,
        )
        for part, parameters in parts
        if parameters
    ]


def _factor(tensors: Mapping[str, Tensor], side: str) -> Tensor:
    """Return one factor of a Kronecker product, as a matrix."""
    whole = tensors[side] if side in tensors else tensors[f"{side}_a"] @ tensors[f"{side}_b"].flatten(1)
    return whole.flatten(1)


def _with_magnitude(weight: Tensor, magnitude: Tensor) -> Tensor:
    """Return a weight whose rows (or columns) have the lengths given."""
    if by_columns(tuple(magnitude.shape), tuple(weight.shape[1:])):
        kept, shape = [dim for dim in range(weight.ndim) if dim != 1], (1, -1)
    else:
        kept, shape = list(range(1, weight.ndim)), (-1, 1)
    lengths = torch.linalg.vector_norm(weight, dim=kept, keepdim=True).clamp_min(1e-12)  # a row may be zero
    return weight * (magnitude.reshape(*shape, *[1] * (weight.ndim - 2)) / lengths)


def _pair(
    layer: Layer, roles: Mapping[str, Tensor], factor: float, model: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Return a layer's two matrices under diffusers' names."""
    down, up = (roles[role].float().flatten(1) for role in ("down", "up"))
    if layer.swap_halves:
        up = up.roll(len(up) // 2, dims=0)
    state = {}
    for name, rows in zip(layer.weights, up.split([model[name][0] for name in layer.weights]), strict=True):
        place, shape = PREFIX + name.removesuffix(".weight"), model[name]
        state[f"{place}.lora_A.weight"] = (down * factor).reshape(-1, *shape[1:])
        state[f"{place}.lora_B.weight"] = rows.reshape(*rows.shape, *[1] * (len(shape) - 2)).contiguous()
    return state
