"""HunyuanVideo's components: their configs, read off the tensor shapes where no file says them."""

from transformers import CLIPTextConfig, CLIPTextModel, LlavaConfig, LlavaModel

from videogen.checkpoints.networks.hunyuan import TABLES
from videogen.models.component import NOT_BFLOAT16, Arguments, Component, Shapes, stated
from videogen.models.hunyuan.transformer import make_dit, make_vae
from videogen.tasks.config import Config

# Input channels -> how the first frame conditions the network.
CONDITIONS = {16: "token_replace", 33: "latent_concat"}
ROPE_DIMS = (16, 56, 56)  # of the published head of 128; tensor shapes do not tell
TILE, TILE_FRAMES = 256, 64  # of the published VAE: pixels each side, video frames


def dit_config(config: Config, shapes: Shapes) -> Arguments:
    """Return HunyuanVideoTransformer3DModel's arguments (spec hunyuan section 6).

    Raises:
        ValueError: a config that contradicts the weights.
    """
    dim, channels = shapes["x_embedder.proj.weight"][:2]
    (head_dim,) = shapes["transformer_blocks.0.attn.norm_q.weight"]
    condition = CONDITIONS.get(channels)
    said = config.get("image_condition_type", condition)
    if condition is None or said != condition:
        raise ValueError(f"{channels} input channels are {condition or 'no known kind'}, not {said}")
    return {
        "in_channels": channels,
        "out_channels": shapes["proj_out.weight"][0] // 4,
        "num_attention_heads": dim // head_dim,
        "attention_head_dim": head_dim,
        "num_layers": shapes.count("transformer_blocks."),
        "num_single_layers": shapes.count("single_transformer_blocks."),
        "num_refiner_layers": shapes.count("context_embedder.token_refiner.refiner_blocks."),
        "mlp_ratio": shapes["transformer_blocks.0.ff.net.0.proj.weight"][0] / dim,
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in shapes,
        "text_embed_dim": shapes["context_embedder.proj_in.weight"][1],
        "pooled_projection_dim": shapes["time_text_embed.text_embedder.linear_1.weight"][1],
        "rope_axes_dim": tuple(config.get("rope_axes_dim", config.get("rope_dim_list", ROPE_DIMS))),
        "rope_theta": config.get("rope_theta", 256.0),
        "image_condition_type": condition,
    }


def vae_config(config: Config, shapes: Shapes) -> Arguments:
    """Return AutoencoderKLHunyuanVideo's arguments, and the tile sizes (spec hunyuan section 4)."""
    blocks = shapes.count("encoder.down_blocks.")
    widths = [shapes[f"encoder.down_blocks.{i}.resnets.0.conv1.conv.weight"][0] for i in range(blocks)]
    inferred = {"sample_size": TILE, "sample_tsize": TILE_FRAMES}
    return {
        **stated(config, inferred, "norm_num_groups", "scaling_factor", "mid_block_add_attention"),
        "latent_channels": shapes["post_quant_conv.weight"][0],
        "block_out_channels": tuple(widths),
        "layers_per_block": shapes.count("encoder.down_blocks.0.resnets."),
    }


COMPONENTS = {
    "hunyuan_transformer": Component(
        tables=(TABLES["DIT"], TABLES["DIFFUSERS_DIT"]),
        config=dit_config,
        make=make_dit,
        keeps_quantized=True,
    ),
    "hunyuan_vae": Component(
        tables=(TABLES["VAE"],),
        config=vae_config,
        make=make_vae,
        float32="",  # all of it
    ),
    "llava": Component(
        tables=(TABLES["LLAVA"],),
        config=lambda config, _: dict(config),
        make=lambda values: LlavaModel(LlavaConfig.from_dict(values)),
        instead=NOT_BFLOAT16,
    ),
    "clip_text": Component(
        tables=(TABLES["CLIP_TEXT"],),
        config=lambda config, _: dict(config.get("text_config") or config),
        make=lambda values: CLIPTextModel(CLIPTextConfig.from_dict(values)),
        instead=NOT_BFLOAT16,
    ),
}
