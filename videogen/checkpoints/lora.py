"""LoRA files: their layers, kinds and strengths, validated against a model by names and shapes.

Layer names may be diffusers' or those of the published checkpoints, with "_" or "." between their words and
any of the usual prefixes. Only headers are read and no torch is needed, so a file is judged before anything
is loaded; ``models/lora_weights.py`` reads the tensors.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from videogen.checkpoints.key_maps import Entry, KeyTable
from videogen.checkpoints.layouts import Checkpoint
from videogen.checkpoints.lora_layers import (
    CHANGES,
    ROLE,
    UNSCALED,
    VALUES,
    Layer,
    changed_twice,
    problems_of,
    takes_fewer_channels,
)
from videogen.checkpoints.lora_strength import Strength, read_strength
from videogen.checkpoints.networks import NETWORKS
from videogen.checkpoints.stored_tensors import is_quantized, transformer_entries
from videogen.checkpoints.tensor_headers import Shape, tensor_shapes
from videogen.errors import CheckpointError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
# Prefixes of layer names, as often as they occur.
DOTTED = re.compile(
    r"^(?:(?:base_model\.model|model|module|_orig_mod|transformer|diffusion_model|unet|dit|net|pipe)\.)+"
)
# Before names with "_" for ".".
FLAT = (*UNSCALED, "lora_unet_diffusion_model_", "lora_unet_", "lora_transformer_", "lora_dit_", "lycoris_")
# Words of published layer names that have "_" inside; of two that begin alike the longer counts.
WORDS = sorted((word for network in NETWORKS for word in network.words), key=len, reverse=True)
WORD = re.compile(rf"(?:{'|'.join(WORDS)})(?=_|$)|[^_]+")
# Names of tensors that are no part of what is read here -> what they are, for the warning.
OTHERS = (
    (r"lora_te|text_encoder|text_model|te\d?_", "text encoder"),
    (r"lokr_t2|hada_t[12]|lora_mid", "Tucker factors"),
    (r"oft_|boft_", "OFT"),
    (r"lora_E|ranknum", "AdaLoRA"),
    (r"vera_lambda|vera_[AB]", "VeRA"),
    (r"ia3", "IA3"),
    (r"\b[ab][12]\.weight$", "GLoRA"),
    (r"lora_embedding", "embeddings"),
    (r"norm", "norms"),
)
# Tensors without which the others of their layer mean something else.
UNUSABLE = re.compile(
    r"^(.+?)\.(?:lora_mid|lokr_t2|hada_t[12]|lora_E|ranknum|b?oft_\w+|[ab][12]|vera_\w+|ia3_\w+)(?:\.|$)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraFile:
    """A validated file: the layers that fit the model, and a warning about what else it holds."""

    path: Path
    layers: tuple[Layer, ...]
    strength: Strength
    warning: str | None


def check(path: Path, checkpoint: Checkpoint, parts: Sequence[str] = ("transformer",)) -> str | None:
    """Validate a LoRA against a model's transformers by their headers; return a warning if only a part fits.

    Args:
        parts: the transformers that it goes into, which have the same layers.

    Raises:
        CheckpointError: it is not for this model, or changes quantized weights as no pair does.
    """
    model = transformer_entries(checkpoint.place(parts[0]))
    if not model:  # a pickle that only torch can read
        return None
    found = validate(path, {name: entry.shape for name, entry in model.items()})
    merged = [layer for layer in found.layers if layer.weights and not layer.is_pair]
    for part in parts if merged else ():
        stored = transformer_entries(checkpoint.place(part))
        if fixed := [
            layer for layer in merged if any(_stays_quantized(stored, own) for own in layer.weights)
        ]:
            count, dtype = (
                f"{len(fixed)} of its {len(found.layers)} layers",
                stored[fixed[0].weights[0]].dtype,
            )
            what = f"{count} are not low-rank pairs ({fixed[0].name}), which alone fit onto {dtype} weights"
            fix = "use a checkpoint in bfloat16, maybe with --quantize"
            raise CheckpointError(f"--lora {path}: {what}; {fix}")
    return found.warning


def _stays_quantized(stored: Mapping[str, Entry], name: str) -> bool:
    """Return whether a layer's weight is quantized on the device as well."""
    if name not in stored or len(stored[name].shape) != 2 or not is_quantized(stored[name].dtype):
        return False
    return not any(re.search(network.float32, name) for network in NETWORKS)


def validate(path: Path, model: Mapping[str, Shape], shapes: Mapping[str, Shape] | None = None) -> LoraFile:
    """Return what of a file belongs to a model.

    Args:
        path: LoRA file, or the folder that holds the only one.
        model: shapes of the model's parameters, under our names.
        shapes: shapes of the file's tensors, where they are known already.

    Raises:
        CheckpointError: no layer belongs to the model, or the first one that does not fit.
    """
    file = file_of(path)
    shapes = tensor_shapes([file]) if shapes is None else shapes
    unusable = _unusable(shapes)
    layers = _layers(shapes, model, unusable)
    known = [layer for layer in layers if layer.weights or layer.biases or layer.modulation]
    if not known:
        why = _why_nothing_fits(layers, shapes, unusable, model)
        raise CheckpointError(f"--lora {path}: {why}")
    narrow = [layer for layer in known if takes_fewer_channels(layer, shapes, model)]
    fitting = tuple(layer for layer in known if layer not in narrow)
    problems = [problem for layer in fitting for problem in problems_of(layer, shapes, model)]
    problems += changed_twice(fitting)
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise CheckpointError(f"--lora {path}: {problems[0]}{more}; is it whole, and for this model?")
    strength, warnings = read_strength(file, fitting, shapes)
    if len(known) < len(layers):
        warnings.append(f"{len(known)} of its {len(layers)} layers are this model's")
    warnings += [f"{layer.name} takes fewer channels than the model's and is left out" for layer in narrow]
    seen = {key for layer in layers for key in layer.keys.values()}
    if rest := Counter(_kind(key, unusable) for key in shapes if key not in seen):
        kinds = ", ".join(f"{kind} ({count})" for kind, count in rest.most_common())
        warnings.append(f"{rest.total()} of its {len(shapes)} tensors are not used: {kinds}")
    warning = f"--lora {path.name}: {'; '.join(warnings)}" if warnings else None
    return LoraFile(path=file, layers=fitting, strength=strength, warning=warning)


def file_of(path: Path) -> Path:
    """Return the LoRA file at a path, or the only one in a folder; .safetensors go first.

    Raises:
        CheckpointError: the folder holds none, or several.
    """
    if path.is_file():
        return path
    by_suffix = [sorted(path.glob(f"[!.]*{suffix}")) for suffix in SUFFIXES]
    files = next((files for files in by_suffix if files), [])
    if len(files) != 1:
        what = f"{len(files)} {files[0].suffix} files" if files else "no LoRA file"
        raise CheckpointError(f"--lora {path}: holds {what}; give the one file")
    return files[0]


def _layers(
    shapes: Mapping[str, Shape], model: Mapping[str, Shape], unusable: Mapping[str, str]
) -> list[Layer]:
    """Return the layers that a file changes, those of other models too."""
    found: dict[str, dict[str, str]] = {}
    for key in shapes:
        match = ROLE.search(key)
        if match is None or match.lastgroup is None or re.search(OTHERS[0][0], key):
            continue
        if (name := key[: match.start()]) not in unusable:
            found.setdefault(name, {})[match.lastgroup] = key
    if all(keys.keys() <= {*VALUES} for keys in found.values()):  # a model, and no LoRA
        return []
    table, flat = _table(model), {name.replace(".", "_"): name for name in model}
    layers = []
    for name, keys in found.items():
        if keys.keys() == {"alpha"}:
            continue
        published = dotted_name(name)
        ours = {
            part: _parameters(f"{published}{suffix}", table, flat)
            for part, suffix in (("weights", ".weight"), ("biases", ".bias"), ("modulation", ".modulation"))
        }
        ours["weights"] = ours["weights"] or _parameters(published, table, flat)
        ours |= {part: () for part, roles in CHANGES.items() if not keys.keys() & roles}
        if keys.keys() <= {*VALUES} and not any(ours.values()):
            continue
        swap = bool(re.search(table.swap_halves, f"{published}.weight"))
        layers.append(Layer(name=name, published=published, keys=keys, swap_halves=swap, **ours))
    return layers


def dotted_name(name: str) -> str:
    """Return a layer's name as checkpoints write it."""
    name = DOTTED.sub("", name)
    flat = next((prefix for prefix in FLAT if name.startswith(prefix)), None)
    if flat is None:
        return name
    words = [".".join(WORD.findall(part)) for part in DOTTED.sub("", name.removeprefix(flat)).split(".")]
    return ".".join(words)


def _parameters(published: str, table: KeyTable, flat: Mapping[str, str]) -> tuple[str, ...]:
    """Return the model's parameters for a published name, or for one of ours in any spelling."""
    if own := flat.get(published.replace(".", "_")):
        return (own,)
    names = [flat.get(name.replace(".", "_"), "") for name in table.names(published)]
    return tuple(names) if all(names) else ()


def _table(model: Iterable[str]) -> KeyTable:
    """Return the key table from published names to those of this network."""
    names = "\n".join(model)
    return next(
        network.published for network in NETWORKS if re.search(network.ours.fingerprint, names, re.MULTILINE)
    )


def _unusable(shapes: Iterable[str]) -> dict[str, str]:
    """Return the layers with tensors that cannot be applied -> what these are."""
    return {match[1]: _kind(key, {}) for key in shapes if (match := UNUSABLE.match(key))}


def _kind(key: str, unusable: Mapping[str, str]) -> str:
    """Return what a tensor is that belongs to no layer that can be used."""
    if (match := ROLE.search(key)) and key[: match.start()] in unusable:
        return unusable[key[: match.start()]]
    return next((kind for pattern, kind in OTHERS if re.search(pattern, key)), "unknown names")


def _why_nothing_fits(
    layers: Sequence[Layer],
    shapes: Mapping[str, Shape],
    unusable: Mapping[str, str],
    model: Iterable[str],
) -> str:
    kinds = {kind for key in shapes if (kind := _kind(key, unusable)) not in ("unknown names", "norms")}
    if not layers and kinds:
        return f"holds {', '.join(sorted(kinds))}, which cannot be applied"
    roles = {match.lastgroup for key in shapes if (match := ROLE.search(key))}
    if roles and roles <= {*VALUES}:
        return "holds whole weights and no LoRA"
    if not layers and (ends := _unknown_roles(shapes, model)):
        return f"holds {', '.join(ends[:3])} of this model's layers, a kind that cannot be applied"
    if not shapes:
        return "holds no table of tensors"
    asked = f"{len(layers)} layers" if layers else f"{len(shapes)} tensors"
    return f"0 of its {asked} belong to this model; check --model_id"


def _unknown_roles(names: Iterable[str], model: Iterable[str]) -> list[str]:
    """Return the ends of names that begin with a layer of the model."""
    table, flat = _table(model), {name.replace(".", "_"): name for name in model}
    parts = ((key[: dot.start()], key[dot.end() :]) for key in names for dot in re.finditer(r"\.", key))
    own = (end for layer, end in parts if _parameters(f"{dotted_name(layer)}.weight", table, flat))
    return list(dict.fromkeys(own))
