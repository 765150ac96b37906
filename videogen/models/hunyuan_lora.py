"""LoRA in the names of HunyuanVideo's own training code, as diffusers reads it (spec hunyuan section 11)."""

import logging
from pathlib import Path

from diffusers import HunyuanVideoTransformer3DModel
from safetensors import safe_open
from torch import Tensor

from videogen.models.key_tables import HUNYUAN_DIT
from videogen.models.weights import Entry, renamed

logger = logging.getLogger(__name__)

PREFIX = "Hunyuan_video_I2V_lora_"
DOWN, UP = ".lora_down.weight", ".lora_up.weight"
# Layers of the published network whose weights are matrices: once, per double, single and refiner block.
ONCE = (
    *("txt_in.input_embedder", "txt_in.c_embedder.linear_1", "txt_in.c_embedder.linear_2"),
    *("txt_in.t_embedder.mlp.0", "txt_in.t_embedder.mlp.2", "time_in.mlp.0", "time_in.mlp.2"),
    *("guidance_in.mlp.0", "guidance_in.mlp.2", "vector_in.in_layer", "vector_in.out_layer"),
    *("final_layer.linear", "final_layer.adaLN_modulation.1"),
)
DOUBLE = ("attn_qkv", "attn_proj", "mod.linear", "mlp.fc1", "mlp.fc2")
SINGLE = ("linear1", "linear2", "modulation.linear")
REFINER = ("self_attn_qkv", "self_attn_proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")


def published_layers(transformer: HunyuanVideoTransformer3DModel) -> list[str]:
    """Names of all layers that a LoRA may speak of."""
    config = transformer.config
    return [
        *(name for name in ONCE if config.guidance_embeds or not name.startswith("guidance_in.")),
        *(
            f"double_blocks.{i}.{stream}_{layer}"
            for i in range(config.num_layers)
            for stream in ("img", "txt")
            for layer in DOUBLE
        ),
        *(f"single_blocks.{i}.{layer}" for i in range(config.num_single_layers) for layer in SINGLE),
        *(
            f"txt_in.individual_token_refiner.blocks.{i}.{layer}"
            for i in range(config.num_refiner_layers)
            for layer in REFINER
        ),
    ]


def read_kohya(file: Path, transformer: HunyuanVideoTransformer3DModel) -> dict[str, Tensor] | None:
    """A LoRA file under diffusers' names; None where it has other names than the published ones.

    The stored alphas are ignored, as published. Where one layer became several, all share the first matrix.

    Raises:
        ValueError: none of its layers is one of the transformer's.
    """
    with safe_open(file, framework="pt") as opened:
        tensors = {key.removeprefix(PREFIX): opened.get_tensor(key) for key in opened.keys() if PREFIX in key}  # noqa: SIM118
    asked = {key.removesuffix(UP) for key in tensors if key.endswith(UP)}
    if not asked:
        return None
    if halves := sorted(name for name in asked if name + DOWN not in tensors):
        raise ValueError(f"{halves[0]} has no {DOWN[1:]}")
    layers = {name.replace(".", "_"): name for name in published_layers(transformer)}
    known = sorted(asked & set(layers))
    if not known:
        raise ValueError(f"0 of its {len(asked)} layers are this model's")
    if len(known) < len(asked):
        logger.warning("%s: %d of its %d layers are this model's", file.name, len(known), len(asked))
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    state = {}
    for flat in known:
        up = tensors[flat + UP]
        entry = Entry(f"{layers[flat]}.weight", tuple(up.shape), lambda up=up: up)  # type: ignore[misc]
        for name, part in renamed(entry, HUNYUAN_DIT, width):
            module = f"transformer.{name.removesuffix('.weight')}"
            state[f"{module}.lora_A.weight"] = tensors[flat + DOWN].flatten(1)
            state[f"{module}.lora_B.weight"] = part.read().flatten(1).contiguous()
    return state
