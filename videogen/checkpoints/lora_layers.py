"""Layers of LoRA files: the roles of their tensors, and what is wrong with one that belongs to a model."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from videogen.checkpoints.networks import NETWORKS
from videogen.checkpoints.tensor_headers import Shape

UNSCALED = tuple(network.lora_prefix for network in NETWORKS if network.lora_prefix)
NAMED = r"(?:\.[^.]+)?"  # PEFT's name of the adapter
# Factors of LoKr and LoHa -> their names in files; each may be the product of two, _a and _b.
FACTORS = {"left": "lokr_w1", "right": "lokr_w2", "one": "hada_w1", "two": "hada_w2"}
HADAMARD = ("one_a", "one_b", "two_a", "two_b")  # LoHa
LEFT, RIGHT = ({side, f"{side}_a", f"{side}_b"} for side in ("left", "right"))  # LoKr


def _name(role: str) -> str:
    """Return what a matrix is called in files."""
    first, mark, part = role.partition("_")
    return {**FACTORS, "down": "lora_down", "up": "lora_up"}[first] + mark + part


# Role of a tensor in its layer, by its suffix.
ROLE = re.compile(
    rf"\.(?:lora(?:_linear_layer)?[._](?:(?P<down>A|down)|(?P<up>B|up))(?:{NAMED}\.weight|\.default)?"
    rf"|(?P<up_bias>lora_B{NAMED}\.bias)"
    rf"|(?P<magnitude>dora_scale|lora_magnitude_vector{NAMED}(?:\.weight)?)"
    r"|(?P<alpha>alpha)|(?P<whole>diff|w_norm)|(?P<bias>diff_b|b_norm)|(?P<modulation>diff_m)"
    rf"|(?:{'|'.join(f'(?P<{role}>{_name(role)})' for role in (*LEFT, *RIGHT, *HADAMARD))}){NAMED}"
    r"|(?:base_layer\.|modules_to_save\.(?:[^.]+\.)?)?(?:(?P<value>weight|set_weight)|(?P<value_bias>bias)))$"
)
VALUES = ("value", "value_bias")  # take the place of the model's, as PEFT's modules_to_save do
# What a layer's tensors change -> the roles that do.
CHANGES = {
    "weights": {"down", "up", "whole", "magnitude", "value", *LEFT, *RIGHT, *HADAMARD},
    "biases": {"bias", "up_bias", "value_bias"},
    "modulation": {"modulation"},
}
COMPLETE = (("down", "up"), ("left_a", "left_b"), ("right_a", "right_b"), HADAMARD)  # only together


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One layer that a LoRA file changes.

    Args:
        name: name in the file.
        published: name in published checkpoints, or already ours.
        weights: our parameters that its weight corresponds to, one below the other.
        biases: likewise for its bias.
        modulation: our parameter that its modulation corresponds to.
        keys: role of a tensor -> the tensor's name.
        swap_halves: the two halves of its rows are swapped in ours.
    """

    name: str
    published: str
    weights: tuple[str, ...]
    biases: tuple[str, ...]
    modulation: tuple[str, ...]
    keys: Mapping[str, str]
    swap_halves: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Return its names in the file, in published checkpoints and in ours."""
        return (self.name, self.published, *(weight.removesuffix(".weight") for weight in self.weights))

    @property
    def is_pair(self) -> bool:
        """Return whether its weight changes by a low-rank pair alone."""
        return self.keys.keys() & CHANGES["weights"] == {"down", "up"}

    @property
    def ignores_alpha(self) -> bool:
        return self.name.startswith(UNSCALED)


def changed_twice(layers: Iterable[Layer]) -> Iterator[str]:
    """Yield the parameters that two layers change, as when a file holds the same ones in two namings."""
    owners: dict[str, str] = {}
    for layer in layers:
        for name in (*layer.weights, *layer.biases, *layer.modulation):
            if (owner := owners.setdefault(name, layer.name)) != layer.name:
                yield f"{owner} and {layer.name} both change {name}"


def takes_fewer_channels(layer: Layer, shapes: Mapping[str, Shape], model: Mapping[str, Shape]) -> bool:
    """Return whether it is the patch embedding of a model without image channels, on a model with them."""
    if "patch_embedding" not in layer.published or not layer.weights:
        return False
    key = next((layer.keys[role] for role in ("down", "whole", "value") if role in layer.keys), None)
    return key is not None and math.prod(shapes[key][1:]) < math.prod(model[layer.weights[0]][1:])


def problems_of(layer: Layer, shapes: Mapping[str, Shape], model: Mapping[str, Shape]) -> Iterator[str]:
    """Yield what is wrong with a layer that belongs to the model."""
    keys = layer.keys
    for roles in COMPLETE:
        have, lack = ([role for role in roles if (role in keys) is present] for present in (True, False))
        if have and lack:
            yield f"{layer.name} has a {_name(have[0])} and no {_name(lack[0])}"
            return
    if bool(keys.keys() & LEFT) != bool(keys.keys() & RIGHT):
        yield f"{layer.name} has one factor of LoKr and not the other"
        return
    if keys.keys() & CHANGES["biases"] and not layer.biases:
        yield f"{layer.name} has a bias, and the model's has none"
        return
    given = {role: shapes[key] for role, key in keys.items()}
    for role, wanted in _expected(layer, given, model):
        # A matrix may be stored as a 1x1x1 kernel, and a kernel as a matrix; vectors in any shape.
        free = role in ("alpha", "magnitude", "modulation")
        fits = (free or given[role][:1] == wanted[:1]) and math.prod(given[role]) == math.prod(wanted)
        if not fits:
            yield f"{keys[role]} is {list(given[role])}, expected {list(wanted)}"


def _expected(
    layer: Layer, given: Mapping[str, Shape], model: Mapping[str, Shape]
) -> Iterator[tuple[str, Shape]]:
    """Yield the roles of a layer's tensors and the shapes that they must have."""
    rank = {role: next(iter(shape), 0) for role, shape in given.items()}
    rows = sum(model[name][0] for name in layer.weights)
    columns = model[layer.weights[0]][1:] if layer.weights else ()
    wanted: dict[str, Shape] = {
        "down": (rank.get("down", 0), *columns),
        "up": (rows, rank.get("down", 0)),
        "whole": (rows, *columns),
        "value": (rows, *columns),
        "one_a": (rows, rank.get("one_b", 0)),
        "one_b": (rank.get("one_b", 0), *columns),
        "two_a": (rows, rank.get("two_b", 0)),
        "two_b": (rank.get("two_b", 0), *columns),
        "alpha": (),
        "magnitude": columns[:1] if by_columns(given.get("magnitude", ()), columns) else (rows,),
    }
    for role in ("bias", "up_bias", "value_bias"):
        wanted[role] = (sum(model[name][0] for name in layer.biases),)
    wanted["modulation"] = model[layer.modulation[0]] if layer.modulation else ()
    yield from ((role, wanted[role]) for role in given if role in wanted)
    if given.keys() & LEFT:
        left = given["left"] if "left" in given else (*given["left_a"][:1], *given["left_b"][1:])
        height, width, area = next(iter(left), 0), math.prod(left[1:]), math.prod(columns)
        fits = height and width and rows % height == 0 and area % width == 0
        size = (rows // height, area // width) if fits else ()
        if "right" in given:
            yield "right", size
        else:
            yield "right_a", (*size[:1], rank["right_b"])
            yield "right_b", (rank["right_b"], *size[1:])


def by_columns(magnitude: Shape, columns: Shape) -> bool:
    """Return whether the magnitudes of DoRA are those of a weight's columns; otherwise they are its rows'."""
    return magnitude[:1] == (1,) and magnitude[1:2] == columns[:1]
