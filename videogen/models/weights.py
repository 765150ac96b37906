"""Reading weight files: names and shapes first, tensors after; mapped, strict, never running a pickle.

A checkpoint's own tensor names become ours through rename tables (data, below). ``skeleton`` builds a module
without memory for its parameters and compares every name and shape; ``fill`` assigns the mapped tensors,
casting one at a time where the precision asks for it: no second copy of the weights ever stands in memory.
"""

import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from videogen.errors import CheckpointError, first_line
from videogen.models.checkpoints import weight_files

Shape = tuple[int, ...]
LISTED = 5  # problems named in one error


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyTable:
    """How one published naming becomes ours.

    Args:
        sign: a pattern some name must match for the table to apply.
        rules: (pattern, replacement), applied in order to every name.
        unused: names (as published) that the network does not need.
        thirds: pattern of names (as published) whose rows are query, key and value stacked; the renamed name
            then contains "{}" for q, k and v.
    """

    sign: str
    rules: tuple[tuple[str, str], ...] = ()
    unused: str = r"(?!)"
    thirds: str = r"(?!)"

    def names(self, name: str) -> list[tuple[str, int | None]]:
        """Our names for a published one, each with the third of its rows it takes (None: all of them)."""
        if re.search(self.unused, name):
            return []
        renamed = name
        for pattern, replacement in self.rules:
            renamed = re.sub(pattern, replacement, renamed)
        if re.search(self.thirds, name):
            return [(renamed.format(part), third) for third, part in enumerate("qkv")]
        return [(renamed, None)]


# Verified maps: specs skyreels_v3 section 12, skyreels_v2 section 12, talking_avatar section 13, wan22
# sections 9, 10.
WAN_DIT = KeyTable(
    sign=r"^blocks\.\d+\.self_attn\.",
    rules=(
        (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
        (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
        (r"^time_projection\.1\.", "condition_embedder.time_proj."),
        (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
        (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
        (r"^img_emb\.proj\.0\.", "condition_embedder.image_embedder.norm1."),
        (r"^img_emb\.proj\.1\.", "condition_embedder.image_embedder.ff.net.0.proj."),
        (r"^img_emb\.proj\.3\.", "condition_embedder.image_embedder.ff.net.2."),
        (r"^img_emb\.proj\.4\.", "condition_embedder.image_embedder.norm2."),
        (r"^head\.head\.", "proj_out."),
        (r"^head\.modulation$", "scale_shift_table"),
        (r"\.modulation$", ".scale_shift_table"),
        (r"\.norm3\.", ".norm2."),
        (r"\.self_attn\.", ".attn1."),
        (r"\.cross_attn\.", ".attn2."),
        (r"\.(attn[12])\.([qkv])\.", r".\1.to_\2."),
        (r"\.(attn[12])\.o\.", r".\1.to_out.0."),
        (r"\.attn2\.([kv])_img\.", r".attn2.add_\1_proj."),
        (r"\.attn2\.norm_k_img\.", ".attn2.norm_added_k."),
        (r"\b(ffn|fps_projection)\.0\.", r"\1.net.0.proj."),
        (r"\b(ffn|fps_projection)\.2\.", r"\1.net.2."),
    ),
)
DIFFUSERS_DIT = KeyTable(sign=r"^blocks\.\d+\.attn1\.", unused=r"\.norm_added_q\.")

_VAE_LEAVES = (
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in."),
    (r"\.head\.0\.", ".norm_out."),
    (r"\.head\.2\.", ".conv_out."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
)
_VAE21_UP = tuple(
    (
        rf"^decoder\.upsamples\.{4 * block + unit}\.",
        f"decoder.up_blocks.{block}." + (f"resnets.{unit}." if unit < 3 else "upsamplers.0."),
    )
    for block in range(4)
    for unit in range(4)
)
WAN21_VAE = KeyTable(
    sign=r"^decoder\.upsamples\.0\.residual\.",
    rules=(*_VAE21_UP, (r"^encoder\.downsamples\.", "encoder.down_blocks."), *_VAE_LEAVES),
)
WAN22_VAE = KeyTable(
    sign=r"^decoder\.upsamples\.0\.upsamples\.",
    rules=(
        (
            r"^encoder\.downsamples\.(\d+)\.downsamples\.\d+\.(resample|time_conv)",
            r"encoder.down_blocks.\1.downsampler.\2",
        ),
        (r"^encoder\.downsamples\.(\d+)\.downsamples\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2."),
        (
            r"^decoder\.upsamples\.(\d+)\.upsamples\.\d+\.(resample|time_conv)",
            r"decoder.up_blocks.\1.upsampler.\2",
        ),
        (r"^decoder\.upsamples\.(\d+)\.upsamples\.(\d+)\.", r"decoder.up_blocks.\1.resnets.\2."),
        *_VAE_LEAVES,
    ),
)
DIFFUSERS_VAE = KeyTable(sign=r"^decoder\.up_blocks\.")

WAN_UMT5 = KeyTable(
    sign=r"^blocks\.\d+\.pos_embedding\.",
    rules=(
        (r"^token_embedding\.", "shared."),
        (r"^norm\.", "encoder.final_layer_norm."),
        (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
        (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
        (r"^blocks\.(\d+)\.attn\.", r"encoder.block.\1.layer.0.SelfAttention."),
        (
            r"^blocks\.(\d+)\.pos_embedding\.embedding\.",
            r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.",
        ),
        (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
        (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
        (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
    ),
)
# The embedding is tied; a file holds it under one name or both.
DIFFUSERS_UMT5 = KeyTable(
    sign=r"^encoder\.block\.\d+\.layer\.0\.SelfAttention\.", rules=((r"^encoder\.embed_tokens\.", "shared."),)
)

WAN_CLIP = KeyTable(
    sign=r"^visual\.transformer\.",
    unused=r"^(textual\.|log_scale$|visual\.head$)",
    thirds=r"\.attn\.to_qkv\.",
    rules=(
        (r"^visual\.", ""),
        (r"^cls_embedding$", "embeddings.class_embedding"),
        (r"^pos_embedding$", "embeddings.position_embedding.weight"),
        (r"^patch_embedding\.", "embeddings.patch_embedding."),
        (r"^pre_norm\.", "pre_layrnorm."),
        (r"^post_norm\.", "post_layernorm."),
        (r"^transformer\.", "encoder.layers."),
        (r"\.norm([12])\.", r".layer_norm\1."),
        (r"\.attn\.to_qkv\.", ".self_attn.{}_proj."),
        (r"\.attn\.proj\.", ".self_attn.out_proj."),
        (r"\.mlp\.0\.", ".mlp.fc1."),
        (r"\.mlp\.2\.", ".mlp.fc2."),
    ),
)
# transformers puts the tower below "vision_model." or, from version 5 on, at the top.
DIFFUSERS_CLIP = KeyTable(
    sign=r"\bencoder\.layers\.\d+\.self_attn\.",
    unused=r"\.position_ids$|^(text_model|text_projection|visual_projection|logit_scale)\b",
    rules=((r"^vision_model\.", ""),),
)

# Weight norm's magnitude and direction have these names since torch 2.0's parametrizations. Without training
# nothing is masked, quantized or projected.
WAV2VEC2 = KeyTable(
    sign=r"\bencoder\.pos_conv_embed\.conv\.",
    unused=r"\bmasked_spec_embed$|^(quantizer|project_hid|project_q|lm_head)\b",
    rules=(
        (r"^wav2vec2\.", ""),
        (r"\.weight_g$", ".parametrizations.weight.original0"),
        (r"\.weight_v$", ".parametrizations.weight.original1"),
    ),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One of our tensors as it lies in a file; ``read`` maps it."""

    key: str
    shape: Shape
    read: Callable[[], Tensor]


def read_entries(place: Path, tables: Iterable[KeyTable]) -> dict[str, Entry]:
    """Our name -> where it lies, over all weight files of a component. Reads headers only.

    Raises:
        CheckpointError: an unreadable, truncated or unsafe file, or names that no table knows.
    """
    return rename(place, [entry for file in weight_files(place) for entry in _headers(file)], tables)


def rename(place: Path, published: Sequence[Entry], tables: Iterable[KeyTable]) -> dict[str, Entry]:
    """Published entries under our names, by the one table whose sign they bear.

    Raises:
        CheckpointError: names that no table knows.
    """
    table = next((t for t in tables if any(re.search(t.sign, entry.key) for entry in published)), None)
    if table is None:
        some = ", ".join(entry.key for entry in published[:3]) or "no tensors at all"
        raise CheckpointError(f"{place}: tensor names of no known model ({some}); is this the right file?")
    return {name: _part(entry, third) for entry in published for name, third in table.names(entry.key)}


def _part(entry: Entry, third: int | None) -> Entry:
    """An entry, or one third of its rows."""
    if third is None:
        return entry
    rows = entry.shape[0] // 3
    chosen = slice(third * rows, (third + 1) * rows)
    return Entry(entry.key, (rows, *entry.shape[1:]), lambda: entry.read()[chosen])


def _headers(file: Path) -> Iterator[Entry]:
    """Every tensor of a file, unread."""
    if file.suffix != ".safetensors":
        for key, tensor in _load_pickle(file).items():
            if isinstance(tensor, Tensor):
                yield Entry(key, tuple(tensor.shape), partial(_identity, tensor))
        return
    try:
        handle = safe_open(file, framework="pt")  # stays open: its tensors map the file
        for key in handle.keys():  # noqa: SIM118 - not a dict
            yield Entry(key, tuple(handle.get_slice(key).get_shape()), partial(handle.get_tensor, key))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: broken or truncated ({error}); download it again") from None


def _identity(tensor: Tensor) -> Tensor:
    return tensor


def _load_pickle(file: Path) -> Mapping[str, object]:
    """A .pth state dict, memory-mapped; a pickle that holds anything but plain data is refused."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and "unsupported" in str(error).lower():
            raise CheckpointError(
                f"{file}: refused, because reading this pickle would run code; convert it to safetensors"
            ) from None
        raise CheckpointError(
            f"{file}: broken or truncated ({first_line(error)}); download it again"
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: holds a {type(content).__name__}, not a table of tensors")
    return content


def skeleton(build: Callable[[], nn.Module], place: Path, found: Mapping[str, Entry]) -> nn.Module:
    """Build a module without memory for its parameters, and compare every name and shape with a checkpoint.

    Raises:
        CheckpointError: missing, unexpected or wrong-shaped tensors; the first few are listed.
    """
    with init_empty_weights():
        module = build()
    expected = {name: tuple(tensor.shape) for name, tensor in _weights(module)}
    missing = [f"missing {name}" for name in expected if name not in found]
    unexpected = [f"unexpected {entry.key}" for name, entry in found.items() if name not in expected]
    shapes = [
        f"{entry.key} is {list(entry.shape)}, expected {list(expected[name])}"
        for name, entry in found.items()
        if name in expected and not _same(expected[name], entry.shape)
    ]
    problems = missing + unexpected + shapes
    if problems:
        more = f" and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        listed = "; ".join(problems[:LISTED])
        raise CheckpointError(f"{place}: does not fit the model: {listed}{more}; check --model_id")
    return module


def _same(expected: Shape, found: Shape) -> bool:
    """Equal, or with leading ones that ours has not (published embeddings keep a batch axis)."""
    extra = len(found) - len(expected)
    return expected == found or (extra > 0 and set(found[:extra]) == {1} and found[extra:] == expected)


def fill(module: nn.Module, found: Mapping[str, Entry], dtype_of: Callable[[str], torch.dtype]) -> nn.Module:
    """Give a skeleton its tensors: mapped as they are where the dtype fits, else cast one at a time."""
    state = {
        name: _convert(found[name].read().view(tensor.shape), dtype_of(name))
        for name, tensor in _weights(module)
    }
    module.load_state_dict(state, strict=False, assign=True)  # skeleton() has been strict; tied names follow
    if hasattr(module, "tie_weights"):
        cast(PreTrainedModel, module).tie_weights()
    left = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    assert not left, left
    return module.eval().requires_grad_(False)


def _weights(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The module's own tensors, each once: tied names count as the one they are tied to."""
    tied = set(getattr(module, "_tied_weights_keys", None) or ())
    return [(name, tensor) for name, tensor in module.state_dict().items() if name not in tied]


def _convert(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
