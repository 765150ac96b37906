"""Names of Wan's tensors, and of those of the encoders beside it."""

from videogen.checkpoints.key_maps import KeyTable, NetworkNames

# Verified maps: specs skyreels_v3 section 12, skyreels_v2 section 12, talking_avatar section 13, wan22
# sections 9, 10.
DIT = KeyTable(
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
_VAE_UP = tuple(
    (
        rf"^decoder\.upsamples\.{4 * block + unit}\.",
        f"decoder.up_blocks.{block}." + (f"resnets.{unit}." if unit < 3 else "upsamplers.0."),
    )
    for block in range(4)
    for unit in range(4)
)
VAE = KeyTable(
    fingerprint=r"^decoder\.upsamples\.0\.residual\.",
    rules=(*_VAE_UP, (r"^encoder\.downsamples\.", "encoder.down_blocks."), *_VAE_LEAVES),
)
RESIDUAL_VAE = KeyTable(
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

UMT5 = KeyTable(
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

# llama.cpp's names, in GGUF files.
GGUF_UMT5 = KeyTable(
    fingerprint=r"^enc\.blk\.\d+\.attn_q\.",
    rules=(
        (r"^token_embd\.", "shared."),
        (r"^enc\.output_norm\.", "encoder.final_layer_norm."),
        (r"^enc\.blk\.(\d+)\.attn_([qkvo])\.", r"encoder.block.\1.layer.0.SelfAttention.\2."),
        (
            r"^enc\.blk\.(\d+)\.attn_rel_b\.",
            r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.",
        ),
        (r"^enc\.blk\.(\d+)\.attn_norm\.", r"encoder.block.\1.layer.0.layer_norm."),
        (r"^enc\.blk\.(\d+)\.ffn_norm\.", r"encoder.block.\1.layer.1.layer_norm."),
        (r"^enc\.blk\.(\d+)\.ffn_gate\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
        (r"^enc\.blk\.(\d+)\.ffn_up\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
        (r"^enc\.blk\.(\d+)\.ffn_down\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
    ),
)

CLIP = KeyTable(
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

NETWORK = NetworkNames(
    kind="Wan",
    published=DIT,
    ours=DIFFUSERS_DIT,
    patch_embedding=("patch_embedding.weight",),
    layers=r"blocks\.\d+\.",
    traits={
        "image": r"(img_emb|condition_embedder\.image_embedder)\.",
        "audio": r"audio_proj\.",
        "fps": r"fps_embedding\.weight$",
    },
    feed_forward=("blocks.0.ffn.0.weight", "blocks.0.ffn.net.0.proj.weight"),
    float32=r"\b(time_embedding|time_projection|time_embedder|time_proj)\b",
    words=(
        *("self_attn", "cross_attn", "k_img", "v_img", "time_embedding", "text_embedding", "time_projection"),
        *("img_emb", "fps_embedding", "fps_projection", "patch_embedding", "audio_proj", "proj1_vf"),
        *("audio_cross_attn", "q_linear", "kv_linear", "norm_q", "norm_k", "norm_k_img"),
    ),
)
