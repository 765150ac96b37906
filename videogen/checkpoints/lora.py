"""LoRA files: validated against a model by names and shapes, and read under diffusers' names.

Names may be diffusers', those of the published checkpoints, or the latter with "_" for "."; one table reads
them all. Validation only needs the headers and no torch, so it runs before anything is loaded.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from videogen.checkpoints.key_maps import Entry, KeyTable, rename
from videogen.checkpoints.layouts import Checkpoint, weight_files
from videogen.checkpoints.networks import NETWORKS
from videogen.checkpoints.tensor_headers import Shape, tensor_shapes
from videogen.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

# Prefixes of layer names.
OURS = "transformer."
DOTTED = re.compile(r"^(transformer|diffusion_model|base_model\.model)\.")
UNSCALED = tuple(network.lora_prefix for network in NETWORKS if network.lora_prefix)
FLAT = (*UNSCALED, "lora_unet_")
# Flat layer names write "_" for ".", except inside these words; of two that begin alike the longer counts.
WORDS = sorted((word for network in NETWORKS for word in network.words), key=len, reverse=True)
WORD = re.compile(rf"(?:{'|'.join(WORDS)})(?=_|$)|[^_]+")
# Role of a tensor in its layer, by its suffix: one of two low-rank matrices, or a full-rank difference.
ROLE = re.compile(
    r"\.(?:lora(?:_linear_layer)?[._](?:(?P<down>A|down)|(?P<up>B|up))(?:\.default)?\.weight"
    r"|(?P<alpha>alpha)|(?P<bias>diff_b|lora_B\.bias)|(?P<whole>diff))$"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One layer that a LoRA file adapts.

    Args:
        name: name in the file.
        published: name in published checkpoints, or already ours.
        ours: names of our layers that it corresponds to.
        keys: role of a tensor -> the tensor's name.
    """

    name: str
    published: str
    ours: tuple[str, ...]
    keys: Mapping[str, str]

    @property
    def is_diffusers_format(self) -> bool:
        """Return whether diffusers can read the layer as it is."""
        pair = {f"{self.name}.lora_{part}" for part in ("A.weight", "B.weight", "B.bias")}
        return self.name == OURS + self.ours[0] and pair.issuperset(self.keys.values())

    def expected_shapes(self, model: Mapping[str, Shape], rank: int) -> dict[str, Shape]:
        """Return the expected shapes of its tensors."""
        rows, columns = sum(model[name][0] for name in self.ours), model[self.ours[0]][1:]
        return {"down": (rank, *columns), "up": (rows, rank), "bias": (rows,), "whole": (rows, *columns)}


def check(path: Path, checkpoint: Checkpoint) -> str | None:
    """Validate a LoRA against a model's transformer by their headers; return a warning if only a part fits.

    Raises:
        CheckpointError: it is not for this model.
    """
    place = checkpoint.place("transformer")
    published = [Entry(name, shape, _unread) for name, shape in tensor_shapes(weight_files(place)).items()]
    if not published:  # a pickle that only torch can read
        return None
    found = rename(
        place, published, [table for network in NETWORKS for table in (network.published, network.ours)]
    )
    return _validate(path, _matrices((name, entry.shape) for name, entry in found.items()))[1]


def read(path: Path, transformer: "nn.Module") -> "tuple[dict[str, Tensor] | None, str | None]":
    """Return (tensors under diffusers' names, or None if the file has these already; a warning).

    If one published layer is several of ours, all share its first matrix.

    Raises:
        CheckpointError: it is not for this transformer.
    """
    weights = ((name, getattr(module, "weight", None)) for name, module in transformer.named_modules())
    model = _matrices((f"{name}.weight", tuple(w.shape)) for name, w in weights if w is not None)
    layers, note = _validate(path, model)
    if all(layer.is_diffusers_format for layer in layers):
        return None, note
    table = _table(model)
    state: dict[str, Tensor] = {}
    with safe_open(_file(path), framework="pt") as opened:
        for layer in layers:
            tensors = {role: opened.get_tensor(key) for role, key in layer.keys.items()}
            state.update(_convert(layer, tensors, model, table))
    return state, note


def _unread() -> None:
    raise AssertionError


def _file(path: Path) -> Path:
    """Return the LoRA file at a path, or the only one in a folder."""
    if path.is_file():
        return path
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        raise CheckpointError(f"--lora {path}: holds {len(files)} .safetensors files; name the one")
    return files[0]


def _matrices(shapes: Iterable[tuple[str, Shape]]) -> dict[str, Shape]:
    """Return the layers whose weight is a matrix or a convolution kernel."""
    return {
        name.removesuffix(".weight"): shape
        for name, shape in shapes
        if name.endswith(".weight") and len(shape) > 1
    }


def _table(model: Iterable[str]) -> KeyTable:
    """Return the key table from published names to those of this network."""
    names = "\n".join(model)
    return next(
        network.published for network in NETWORKS if re.search(network.ours.fingerprint, names, re.MULTILINE)
    )


def _validate(path: Path, model: Mapping[str, Shape]) -> tuple[list[Layer], str | None]:
    """Return (layers of a file that belong to the model, a warning if others do not).

    Raises:
        CheckpointError: none are, or the first that does not fit.
    """
    shapes = tensor_shapes([_file(path)])
    layers = _layers(shapes, _table(model))
    known = [layer for layer in layers if layer.ours and model.keys() >= set(layer.ours)]
    if not known:
        asked = f"{len(layers)} layers" if layers else f"{len(shapes)} tensors"
        raise CheckpointError(f"--lora {path}: 0 of its {asked} belong to this model; check --model_id")
    problems = [problem for layer in known for problem in _problems(layer, shapes, model)]
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise CheckpointError(f"--lora {path}: {problems[0]}{more}; is it whole, and for this model?")
    if len(known) == len(layers):
        return known, None
    return known, f"--lora {path.name}: {len(known)} of its {len(layers)} layers are this model's"


def _layers(shapes: Mapping[str, Shape], table: KeyTable) -> list[Layer]:
    """Return the layers for which a file has matrices."""
    found: dict[str, dict[str, str]] = {}
    for key, shape in shapes.items():
        match = ROLE.search(key)
        if match and match.lastgroup and not (match.lastgroup == "whole" and len(shape) < 2):
            found.setdefault(key[: match.start()], {})[match.lastgroup] = key
    layers = []
    for name, keys in found.items():
        if keys.keys() & {"down", "up", "whole"}:
            published = _dotted_name(name)
            ours = tuple(our.removesuffix(".weight") for our in table.names(f"{published}.weight"))
            layers.append(Layer(name=name, published=published, ours=ours, keys=keys))
    return layers


def _dotted_name(name: str) -> str:
    """Return a layer's name as checkpoints write it."""
    flat = next((prefix for prefix in FLAT if name.startswith(prefix)), None)
    return DOTTED.sub("", name) if flat is None else ".".join(WORD.findall(name.removeprefix(flat)))


def _problems(layer: Layer, shapes: Mapping[str, Shape], model: Mapping[str, Shape]) -> Iterator[str]:
    """Yield what is wrong with a layer that belongs to the model."""
    keys = layer.keys
    for one, other in (("down", "up"), ("up", "down")):
        if one in keys and other not in keys:
            yield f"{layer.name} has a lora_{one} and no lora_{other}"
            return
    rank = next(iter(shapes[keys["down"]]), 0) if "down" in keys else 0
    for role, wanted in layer.expected_shapes(model, rank).items():
        given = shapes[keys[role]] if role in keys else wanted
        # A matrix may be stored as a 1x1x1 kernel, and a kernel as a matrix.
        if given[:1] != wanted[:1] or math.prod(given[1:]) != math.prod(wanted[1:]):
            yield f"{keys[role]} is {list(given)}, expected {list(wanted)}"


def _convert(
    layer: Layer, tensors: "dict[str, Tensor]", model: Mapping[str, Shape], table: KeyTable
) -> "Iterator[tuple[str, Tensor]]":
    """Yield a layer's tensors under diffusers' names.

    Stored alphas are applied, except those that the published code ignores.
    """
    if "down" in tensors:
        down, up = tensors["down"], tensors["up"].flatten(1)
        if "alpha" in tensors and not layer.name.startswith(UNSCALED):
            down = down * (tensors["alpha"].item() / down.shape[0])
    else:  # a full-rank difference
        down = tensors["whole"]
        up = down.new_ones(down.shape[0]).diag()
    later: dict[str, Any] = {"weight": up}
    if "bias" in tensors:
        later["bias"] = tensors["bias"]
    if re.search(table.swap_halves, f"{layer.published}.weight"):
        later = {kind: rows.roll(len(rows) // 2, dims=0) for kind, rows in later.items()}
    for name in layer.ours:
        yield f"{OURS}{name}.lora_A.weight", down.reshape(-1, *model[name][1:])
    heights = [model[name][0] for name in layer.ours]
    for kind, stacked in later.items():
        for name, rows in zip(layer.ours, stacked.split(heights), strict=True):
            kernel = (1,) * (len(model[name]) - 2) if kind == "weight" else ()
            yield f"{OURS}{name}.lora_B.{kind}", rows.reshape(*rows.shape, *kernel).contiguous()
