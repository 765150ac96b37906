"""Components from files: one row per component gives its class, config, key tables and precision.

A config comes from the component's config.json where there is one; what it does not say is read off the
tensor shapes, so tiny and unusual sizes load like the published ones.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import nn
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaConfig,
    LlavaModel,
    PreTrainedTokenizerBase,
    UMT5Config,
    UMT5EncoderModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from videogen.checkpoints import key_maps
from videogen.checkpoints.key_maps import Entry, KeyTable
from videogen.checkpoints.layouts import WEIGHTLESS
from videogen.checkpoints.model_features import HEAD_DIM
from videogen.errors import CheckpointError, first_line, reported_as
from videogen.files import read_json
from videogen.media.audio import SAMPLE_RATE
from videogen.models import weight_loader
from videogen.models.hunyuan import transformer
from videogen.models.wan.transformer import FLOAT32_PARTS, WanDiT
from videogen.models.wan.vae import WAN22_LATENTS_MEAN, WAN22_LATENTS_STD

HALF = ("image_encoder", "llava", "clip_text")  # components for which bfloat16 is too imprecise
CLIP_HEADS = 16  # of the published ViT-H/14; tensor shapes do not tell


class Shapes:
    """Tensor shapes of a component under our names; a missing name is a CheckpointError."""

    def __init__(self, place: Path, found: Mapping[str, Entry]) -> None:
        self.place, self.found = place, found

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def __getitem__(self, name: str) -> weight_loader.Shape:
        if name not in self.found:
            raise CheckpointError(f"{self.place}: does not fit the model: missing {name}")
        return self.found[name].shape

    def count(self, prefix: str) -> int:
        """Return how many numbered modules follow a prefix."""
        numbers = {
            match[1] for name in self.found if (match := re.match(rf"{re.escape(prefix)}(\d+)\.", name))
        }
        return len(numbers)


def wan_config(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Return WanDiT's arguments, from diffusers' or the published config names."""
    dim, channels = shapes["patch_embedding.weight"][:2]
    heads = config.get("num_attention_heads", config.get("num_heads", dim // HEAD_DIM))
    if not heads:
        raise ValueError("num_attention_heads is missing")
    inferred = {
        "in_channels": channels,
        "out_channels": shapes["proj_out.weight"][0] // 4,
        "text_dim": shapes["condition_embedder.text_embedder.linear_1.weight"][1],
        "freq_dim": shapes["condition_embedder.time_embedder.linear_1.weight"][1],
        "ffn_dim": shapes["blocks.0.ffn.net.0.proj.weight"][0],
        "num_layers": shapes.count("blocks."),
        "eps": 1e-6,
        "attention_head_dim": config.get("dim", dim) // heads,
        "inject_sample_info": "fps_embedding.weight" in shapes,
    }
    published = {"in_channels": "in_dim", "out_channels": "out_dim"}
    values = {
        name: config.get(name, config.get(published.get(name, name), value))
        for name, value in inferred.items()
    }
    return (
        values | {"num_attention_heads": heads} | _image_config(dim, shapes) | _audio_config(config, shapes)
    )


def _image_config(dim: int, shapes: Shapes) -> dict[str, Any]:
    norm = "condition_embedder.image_embedder.norm1.weight"
    return {"image_dim": shapes[norm][0], "added_kv_proj_dim": dim} if norm in shapes else {}


def _audio_config(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    if "audio_proj.norm.weight" not in shapes:
        return {}
    window = config.get("audio_window", 5)
    hidden, first = shapes["audio_proj.proj1.weight"]
    (audio_dim,) = shapes["audio_proj.norm.weight"]
    return {
        "audio_dim": audio_dim,
        "audio_window": window,
        "audio_features": first // window,
        "audio_hidden_dim": hidden,
        "audio_tokens": shapes["audio_proj.proj3.weight"][0] // audio_dim,
        "audio_stride": config.get("audio_stride", config.get("vae_scale", 4)),
    }


def vae_config(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Return AutoencoderKLWan's arguments; Wan2.2's own VAE adds those listed second."""
    inferred: dict[str, Any] = {
        "base_dim": shapes["encoder.conv_in.weight"][0],
        "decoder_base_dim": shapes["decoder.norm_out.gamma"][0],
        "z_dim": shapes["post_quant_conv.weight"][0],
    }
    if "encoder.down_blocks.0.resnets.0.conv1.weight" in shapes:
        channels = shapes["encoder.conv_in.weight"][1]
        inferred |= {
            "is_residual": True,
            "in_channels": channels,
            "out_channels": channels,
            "patch_size": 2,
            "scale_factor_spatial": 16,
            "latents_mean": WAN22_LATENTS_MEAN,
            "latents_std": WAN22_LATENTS_STD,
        }
    accepted = inspect.signature(AutoencoderKLWan.__init__).parameters
    return inferred | {key: value for key, value in config.items() if key in accepted}


def umt5_config(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Return UMT5Config's arguments (spec skyreels_v3 section 3)."""
    first = "encoder.block.0.layer."
    vocab, d_model = shapes["shared.weight"]
    buckets, heads = shapes[f"{first}0.SelfAttention.relative_attention_bias.weight"]
    inferred = {
        "vocab_size": vocab,
        "d_model": d_model,
        "num_heads": heads,
        "d_kv": shapes[f"{first}0.SelfAttention.q.weight"][0] // heads,
        "d_ff": shapes[f"{first}1.DenseReluDense.wi_0.weight"][0],
        "num_layers": shapes.count("encoder.block."),
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "gated-gelu",
    }
    return inferred | {key: config[key] for key in inferred if key in config}


def clip_config(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Return CLIPVisionConfig's arguments (spec skyreels_v2 section 8)."""
    width, _, patch, _ = shapes["embeddings.patch_embedding.weight"]
    positions = shapes["embeddings.position_embedding.weight"][-2]
    return {
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": shapes.count("encoder.layers."),
        "num_attention_heads": config.get("vision_heads", config.get("num_attention_heads", CLIP_HEADS)),
        "image_size": round((positions - 1) ** 0.5) * patch,
        "patch_size": patch,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    }


def wav2vec2_config(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Return Wav2Vec2Config's arguments, and preprocessor_config.json's ``do_normalize``.

    Defaults are the base model's (spec talking_avatar section 3).
    """
    convolutions = "feature_extractor.conv_layers."
    weight = [shapes[f"{convolutions}{i}.conv.weight"] for i in range(shapes.count(convolutions))]
    hidden = shapes["feature_projection.projection.weight"][0]
    position = shapes["encoder.pos_conv_embed.conv.parametrizations.weight.original1"]
    inferred = {
        "hidden_size": hidden,
        "intermediate_size": shapes["encoder.layers.0.feed_forward.intermediate_dense.weight"][0],
        "num_hidden_layers": shapes.count("encoder.layers."),
        "num_attention_heads": 12,
        "conv_dim": [shape[0] for shape in weight],
        "conv_kernel": [shape[2] for shape in weight],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
        "conv_bias": f"{convolutions}0.conv.bias" in shapes,
        "feat_extract_norm": "layer" if f"{convolutions}1.layer_norm.weight" in shapes else "group",
        "feat_extract_activation": "gelu",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "do_stable_layer_norm": False,
        "num_conv_pos_embeddings": position[2],
        "num_conv_pos_embedding_groups": hidden // position[1],
    }
    file = shapes.place / "preprocessor_config.json"
    prepared = read_json(file) if file.is_file() else {}
    if prepared.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise ValueError(f"{prepared['sampling_rate']} Hz, not {SAMPLE_RATE}")
    return (
        {key: config.get(key, value) for key, value in inferred.items()}
        | {
            "num_feat_extract_layers": len(weight),
            "do_normalize": prepared.get("do_normalize", config.get("do_normalize", True)),
        }
        | {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}  # for training; at 0: no mask embedding
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """Build recipe of one kind of component.

    Args:
        tables: namings it may come in.
        config: (config.json or {}, shapes) -> arguments of ``make``.
        make: arguments -> nn.Module.
        float32: pattern of parameter names kept in float32 whatever the precision.
    """

    tables: tuple[KeyTable, ...]
    config: Callable[[Mapping[str, Any], Shapes], dict[str, Any]]
    make: Callable[[dict[str, Any]], Any]
    float32: str = r"(?!)"


_WAN = Component(
    tables=key_maps.TRANSFORMERS["Wan"],
    config=wan_config,
    make=lambda values: WanDiT(**values),
    float32=rf"\b({'|'.join(FLOAT32_PARTS)})\b",
)
COMPONENTS: dict[str, Component] = {
    "transformer": _WAN,
    "transformer_2": _WAN,
    "shot_transformer": _WAN,
    "vae": Component(
        tables=(key_maps.WAN21_VAE, key_maps.WAN22_VAE, key_maps.DIFFUSERS_VAE),
        config=vae_config,
        make=lambda values: AutoencoderKLWan(**values),
        float32="",  # all of it
    ),
    "text_encoder": Component(
        tables=(key_maps.WAN_UMT5, key_maps.DIFFUSERS_UMT5),
        config=umt5_config,
        make=lambda values: UMT5EncoderModel(UMT5Config(**values)),
    ),
    "image_encoder": Component(
        tables=(key_maps.WAN_CLIP, key_maps.DIFFUSERS_CLIP),
        config=clip_config,
        make=lambda values: CLIPVisionModel(CLIPVisionConfig(**values)),
    ),
    "hunyuan_transformer": Component(
        tables=key_maps.TRANSFORMERS["HunyuanVideo"],
        config=transformer.dit_config,
        make=transformer.make_dit,
    ),
    "hunyuan_vae": Component(
        tables=(key_maps.HUNYUAN_VAE,),
        config=transformer.vae_config,
        make=transformer.make_vae,
        float32="",  # all of it
    ),
    "llava": Component(
        tables=(key_maps.LLAVA,),
        config=lambda config, _: dict(config),
        make=lambda values: LlavaModel(LlavaConfig.from_dict(values)),
    ),
    "clip_text": Component(
        tables=(key_maps.CLIP_TEXT,),
        config=lambda config, _: dict(config.get("text_config") or config),
        make=lambda values: CLIPTextModel(CLIPTextConfig.from_dict(values)),
    ),
    "audio_encoder": Component(
        tables=(key_maps.WAV2VEC2,),
        config=wav2vec2_config,
        make=lambda values: Wav2Vec2Model(Wav2Vec2Config(**values)),
        float32="",  # all of it
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentPlan:
    """Checked component whose weights are not read yet; ``module`` is on the meta device."""

    name: str
    module: Any
    found: Mapping[str, Entry]
    scales: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def load_weights(self, dtype: torch.dtype, device: torch.device | None = None) -> Any:
        """Load the weights to a device (None: the CPU) and return the module; float32 parts stay float32."""
        if self.name in WEIGHTLESS:
            return self.module
        # T5 overflows in float16, so it uses bfloat16. The components of HALF do not overflow, and float16,
        # their published dtype, is eight times as precise.
        dtype = torch.bfloat16 if self.name == "text_encoder" and dtype == torch.float16 else dtype
        dtype = torch.float16 if self.name in HALF and dtype == torch.bfloat16 else dtype
        float32 = COMPONENTS[self.name].float32
        module = weight_loader.load_weights(
            self.module, self.found, lambda key: torch.float32 if re.search(float32, key) else dtype, device
        )
        for name, scale in self.scales.items():
            transformer.use_scale(module.get_submodule(name), scale)
        return module


def plan_component(name: str, place: Path, arch: Mapping[str, Any] | None = None) -> ComponentPlan:
    """Check names and shapes of a component's tensors against the module that they are for.

    Args:
        name: component, a key of ``COMPONENTS``, or 'tokenizer'.
        place: its folder or weight file.
        arch: what neither config nor shapes tell (the checkpoint's tiny_arch.json entry).

    Raises:
        CheckpointError: unreadable files, or tensors that do not fit.
    """
    if name in WEIGHTLESS:
        return ComponentPlan(name=name, module=_load_weightless(name, place), found={})
    found = weight_loader.read_entries(place, COMPONENTS[name].tables)
    scales = weight_loader.read_scales(place, COMPONENTS[name].tables[0], found)
    config = read_json(place / "config.json") if (place / "config.json").is_file() else {}
    return ComponentPlan(
        name=name,
        module=build_meta_module(name, place, found, config | (arch if isinstance(arch, dict) else {})),
        found=found,
        scales=scales,
    )


def load_component(
    name: str,
    place: Path,
    dtype: torch.dtype = torch.float32,
    arch: Mapping[str, Any] | None = None,
    device: torch.device | None = None,
) -> Any:
    """Check and load one component of a checkpoint (see ``plan_component``)."""
    return plan_component(name, place, arch).load_weights(dtype, device)


def _read_transformer(file: Path, dtype: torch.dtype) -> WanDiT:
    return load_component("transformer", file, dtype)


WanDiT.read_file = staticmethod(_read_transformer)


def build_meta_module(
    name: str, place: Path, found: Mapping[str, Entry], config: Mapping[str, Any]
) -> nn.Module:
    """Build a component on the meta device and check it against the tensors that it will load.

    Raises:
        CheckpointError: see ``weight_loader.meta_module``; or a config that describes no such component.
    """
    component = COMPONENTS[name]
    what = f"{place}: its config does not describe a {name}"
    with reported_as(lambda why: CheckpointError(f"{what} ({why})")):
        values = component.config(config, Shapes(place, found))
        weight_loader.check_counts(values, found)
        return weight_loader.meta_module(lambda: component.make(values), place, found)


def _load_weightless(name: str, place: Path) -> PreTrainedTokenizerBase | CLIPImageProcessorPil:
    try:
        if name == "image_processor":  # the PIL-based one, as published
            return CLIPImageProcessorPil.from_pretrained(place, local_files_only=True)
        return AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        kind = "an image processor" if name == "image_processor" else "a tokenizer"
        raise CheckpointError(f"{place}: not {kind} ({first_line(error)}); download it again") from None
