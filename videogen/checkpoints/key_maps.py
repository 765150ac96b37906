"""Key tables: maps from the tensor names of published checkpoints to ours. Needs no torch."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
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


# Verified maps: specs skyreels_v3 section 12, skyreels_v2 section 12, talking_avatar section 13, wan22
# sections 9, 10.
WAN_DIT = KeyTable(
    fingerprint=r"^blocks\.\d+\.self_attn\.",
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
DIFFUSERS_DIT = KeyTable(fingerprint=r"^blocks\.\d+\.attn1\.", ignored=r"\.norm_added_q\.")

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
    fingerprint=r"^decoder\.upsamples\.0\.residual\.",
    rules=(*_VAE21_UP, (r"^encoder\.downsamples\.", "encoder.down_blocks."), *_VAE_LEAVES),
)
WAN22_VAE = KeyTable(
    fingerprint=r"^decoder\.upsamples\.0\.upsamples\.",
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
DIFFUSERS_VAE = KeyTable(fingerprint=r"^decoder\.up_blocks\.")

WAN_UMT5 = KeyTable(
    fingerprint=r"^blocks\.\d+\.pos_embedding\.",
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
# The embedding is tied; files store it under one name or both.
DIFFUSERS_UMT5 = KeyTable(
    fingerprint=r"^encoder\.block\.\d+\.layer\.0\.SelfAttention\.",
    rules=((r"^encoder\.embed_tokens\.", "shared."),),
)

WAN_CLIP = KeyTable(
    fingerprint=r"^visual\.transformer\.",
    ignored=r"^(textual\.|log_scale$|visual\.head$)",
    fused_qkv=((r"\.self_attn\.\{\}_proj\.", ("q", "k", "v")),),
    width="visual.patch_embedding.weight",
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
# transformers prefixes the tower with "vision_model.", from version 5 on with nothing.
DIFFUSERS_CLIP = KeyTable(
    fingerprint=r"\bencoder\.layers\.\d+\.self_attn\.",
    ignored=r"\.position_ids$|^(text_model|text_projection|visual_projection|logit_scale)\b",
    rules=((r"^vision_model\.", ""),),
)

# Spec hunyuan section 6. Feed-forwards are "ff", or "mlp" in the text refiner.
_HUNYUAN_STREAM = (
    (r"\.img_attn_qkv\.", ".attn.to_{}."),
    (r"\.txt_attn_qkv\.", ".attn.add_{}_proj."),
    (r"\.img_attn_([qk])_norm\.", r".attn.norm_\1."),
    (r"\.txt_attn_([qk])_norm\.", r".attn.norm_added_\1."),
    (r"\.img_attn_proj\.", ".attn.to_out.0."),
    (r"\.txt_attn_proj\.", ".attn.to_add_out."),
    (r"\.img_mod\.linear\.", ".norm1.linear."),
    (r"\.txt_mod\.linear\.", ".norm1_context.linear."),
    (r"\.img_mlp\.", ".ff."),
    (r"\.txt_mlp\.", ".ff_context."),
)
HUNYUAN_DIT = KeyTable(
    fingerprint=r"^double_blocks\.\d+\.img_attn_qkv\.",
    rules=(
        (r"^img_in\.proj\.", "x_embedder.proj."),
        (r"^txt_in\.input_embedder\.", "context_embedder.proj_in."),
        (r"^txt_in\.c_embedder\.", "context_embedder.time_text_embed.text_embedder."),
        (r"^txt_in\.t_embedder\.", "context_embedder.time_text_embed.timestep_embedder."),
        (r"^txt_in\.individual_token_refiner\.blocks\.", "context_embedder.token_refiner.refiner_blocks."),
        (r"^time_in\.", "time_text_embed.timestep_embedder."),
        (r"^guidance_in\.", "time_text_embed.guidance_embedder."),
        (r"^vector_in\.in_layer\.", "time_text_embed.text_embedder.linear_1."),
        (r"^vector_in\.out_layer\.", "time_text_embed.text_embedder.linear_2."),
        (r"\btimestep_embedder\.mlp\.0\.", "timestep_embedder.linear_1."),
        (r"\btimestep_embedder\.mlp\.2\.", "timestep_embedder.linear_2."),
        (r"\bguidance_embedder\.mlp\.0\.", "guidance_embedder.linear_1."),
        (r"\bguidance_embedder\.mlp\.2\.", "guidance_embedder.linear_2."),
        (r"\.self_attn_qkv\.", ".attn.to_{}."),
        (r"\.self_attn_proj\.", ".attn.to_out.0."),
        (r"\brefiner_blocks\.(\d+)\.mlp\.", r"refiner_blocks.\1.ff."),
        (r"\brefiner_blocks\.(\d+)\.adaLN_modulation\.1\.", r"refiner_blocks.\1.norm_out.linear."),
        (r"^double_blocks\.", "transformer_blocks."),
        *_HUNYUAN_STREAM,
        (r"\.(ff|ff_context)\.fc1\.", r".\1.net.0.proj."),
        (r"\.(ff|ff_context)\.fc2\.", r".\1.net.2."),
        (r"^single_blocks\.", "single_transformer_blocks."),
        (r"\.linear1\.", ".{}."),
        (r"\.linear2\.", ".proj_out."),
        (r"\.([qk])_norm\.", r".attn.norm_\1."),
        (r"\.modulation\.linear\.", ".norm.linear."),
        (r"^final_layer\.linear\.", "proj_out."),
        (r"^final_layer\.adaLN_modulation\.1\.", "norm_out.linear."),
    ),
    fused_qkv=(
        (r"\.attn\.(to_\{\}|add_\{\}_proj)\.", ("q", "k", "v")),
        (r"^single_transformer_blocks\.\d+\.\{\}\.", ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")),
    ),
    width="img_in.proj.weight",
    swap_halves=r"^final_layer\.adaLN_modulation\.1\.",  # diffusers has scale before shift
)
DIFFUSERS_HUNYUAN_DIT = KeyTable(fingerprint=r"^single_transformer_blocks\.\d+\.attn\.")
# Network -> its key tables: published names, and diffusers' names, which are ours.
TRANSFORMERS = {
    "Wan": (WAN_DIT, DIFFUSERS_DIT),
    "HunyuanVideo": (HUNYUAN_DIT, DIFFUSERS_HUNYUAN_DIT),
}
# Names are diffusers'. Some files hold other networks too, and prefix the VAE's names.
HUNYUAN_VAE = KeyTable(
    fingerprint=r"^(vae\.)?decoder\.up_blocks\.",
    rules=((r"^vae\.", ""),),
    ignored=r"^(?!vae\.|encoder\.|decoder\.|quant_conv\.|post_quant_conv\.)",
)
# Before transformers 5 the towers were one level deeper; the language model head is not needed.
LLAVA = KeyTable(
    fingerprint=r"\blanguage_model\.(model\.)?layers\.\d+\.",
    ignored=r"(\.position_ids|\brotary_emb\.inv_freq)$|^(language_model\.)?lm_head\.",
    rules=(
        (r"^model\.", ""),
        (r"^language_model\.model\.", "language_model."),
        (r"^vision_tower\.vision_model\.", "vision_tower."),
    ),
)
CLIP_TEXT = KeyTable(
    fingerprint=r"\bencoder\.layers\.\d+\.self_attn\.",
    ignored=r"\.position_ids$|^(vision_model|text_projection|visual_projection|logit_scale)\b",
    rules=((r"^text_model\.", ""),),
)

# Since torch 2.0 weight norm is a parametrization with these names. Masking, quantization and projection are
# only for training.
WAV2VEC2 = KeyTable(
    fingerprint=r"\bencoder\.pos_conv_embed\.conv\.",
    ignored=r"\bmasked_spec_embed$|^(quantizer|project_hid|project_q|lm_head)\b",
    rules=(
        (r"^wav2vec2\.", ""),
        (r"\.weight_g$", ".parametrizations.weight.original0"),
        (r"\.weight_v$", ".parametrizations.weight.original1"),
    ),
)
