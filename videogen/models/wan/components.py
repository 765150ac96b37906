"""Wan's components: their configs, read off the tensor shapes where no file says them, and their classes."""

import inspect

import torch
from diffusers import AutoencoderKLWan
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    UMT5Config,
    UMT5EncoderModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from videogen.checkpoints.json_files import read_json
from videogen.checkpoints.model_features import HEAD_DIM
from videogen.checkpoints.networks.wan import TABLES
from videogen.media.inputs import SAMPLE_RATE
from videogen.models.component import NOT_BFLOAT16, Arguments, Component, Shapes, stated
from videogen.models.wan.transformer import FLOAT32_PARTS, WanDiT
from videogen.tasks.config import Config, read

CLIP_HEADS = 16  # of the published ViT-H/14; tensor shapes do not tell
UNMASKED = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}  # masks are for training


def wan_config(config: Config, shapes: Shapes) -> Arguments:
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
    norm = "condition_embedder.image_embedder.norm1.weight"
    image = {"image_dim": shapes[norm][0]} if norm in shapes else {}
    if "blocks.0.attn2.add_k_proj.weight" in shapes:
        image["added_kv_proj_dim"] = dim
    if (positions := "condition_embedder.image_embedder.pos_embed") in shapes:
        image["pos_embed_seq_len"] = shapes[positions][1]
    published = {"in_channels": "in_dim", "out_channels": "out_dim"}
    values = {
        name: config.get(name, config.get(published.get(name, name), value))
        for name, value in inferred.items()
    }
    return values | {"num_attention_heads": heads} | image | _audio_config(config, shapes)


def _audio_config(config: Config, shapes: Shapes) -> Arguments:
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


def vae_config(config: Config, shapes: Shapes) -> Arguments:
    """Return AutoencoderKLWan's arguments; a residual VAE (Wan2.2's) has more."""
    inferred: Arguments = {
        "base_dim": shapes["encoder.conv_in.weight"][0],
        "decoder_base_dim": shapes["decoder.norm_out.gamma"][0],
        "z_dim": shapes["post_quant_conv.weight"][0],
    }
    if "encoder.down_blocks.0.resnets.0.conv1.weight" in shapes:
        channels = shapes["encoder.conv_in.weight"][1]
        inferred |= {"in_channels": channels, "out_channels": channels, **read("residual_vae")}
    return stated(config, inferred, *inspect.signature(AutoencoderKLWan.__init__).parameters)


def umt5_config(config: Config, shapes: Shapes) -> Arguments:
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
    }
    others = ("relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj")
    return stated(config, inferred, *others)


def clip_config(config: Config, shapes: Shapes) -> Arguments:
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
    }


def wav2vec2_config(config: Config, shapes: Shapes) -> Arguments:
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
        "conv_dim": [shape[0] for shape in weight],
        "conv_kernel": [shape[2] for shape in weight],
        "conv_bias": f"{convolutions}0.conv.bias" in shapes,
        "feat_extract_norm": "layer" if f"{convolutions}1.layer_norm.weight" in shapes else "group",
        "num_conv_pos_embeddings": position[2],
        "num_conv_pos_embedding_groups": hidden // position[1],
    }
    file = shapes.place / "preprocessor_config.json"
    prepared = read_json(file) if file.is_file() else {}
    if prepared.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise ValueError(f"{prepared['sampling_rate']} Hz, not {SAMPLE_RATE}")
    others = ("num_attention_heads", "conv_stride", "feat_extract_activation", "hidden_act", "layer_norm_eps",
              "do_stable_layer_norm")  # fmt: skip
    return {
        **stated(config, inferred, *others),
        "num_feat_extract_layers": len(weight),
        "do_normalize": prepared.get("do_normalize", config.get("do_normalize", True)),
        **UNMASKED,
    }


_TRANSFORMER = Component(
    tables=(TABLES["DIT"], TABLES["DIFFUSERS_DIT"]),
    config=wan_config,
    make=lambda values: WanDiT(**values),
    float32=rf"\b({'|'.join(FLOAT32_PARTS)})\b",
    keeps_quantized=True,
)
COMPONENTS = {
    "transformer": _TRANSFORMER,
    "transformer_2": _TRANSFORMER,
    "shot_transformer": _TRANSFORMER,
    "vae": Component(
        tables=(TABLES["VAE"], TABLES["RESIDUAL_VAE"], TABLES["DIFFUSERS_VAE"]),
        config=vae_config,
        make=lambda values: AutoencoderKLWan(**values),
        float32="",  # all of it
    ),
    "text_encoder": Component(
        tables=(TABLES["UMT5"], TABLES["DIFFUSERS_UMT5"], TABLES["GGUF_UMT5"]),
        config=umt5_config,
        make=lambda values: UMT5EncoderModel(UMT5Config(**values)),
        instead={torch.float16: torch.bfloat16},  # it overflows in float16
    ),
    "image_encoder": Component(
        tables=(TABLES["CLIP"], TABLES["DIFFUSERS_CLIP"]),
        config=clip_config,
        make=lambda values: CLIPVisionModel(CLIPVisionConfig(**values)),
        instead=NOT_BFLOAT16,
    ),
    "audio_encoder": Component(
        tables=(TABLES["WAV2VEC2"],),
        config=wav2vec2_config,
        make=lambda values: Wav2Vec2Model(Wav2Vec2Config(**values)),
        float32="",  # all of it
    ),
}
