"""Names of HunyuanVideo's tensors, and of those of its VAE and text encoders."""

from videogen.checkpoints.key_maps import KeyTable, NetworkNames

# ComfyUI's names -> the published ones.
_COMFY = (
    (r"_attn\.(qkv|proj)\.", r"_attn_\1."),
    (r"_attn\.norm\.query_norm\.(?:scale|weight)$", "_attn_q_norm.weight"),
    (r"_attn\.norm\.key_norm\.(?:scale|weight)$", "_attn_k_norm.weight"),
    (r"\.norm\.query_norm\.(?:scale|weight)$", ".q_norm.weight"),
    (r"\.norm\.key_norm\.(?:scale|weight)$", ".k_norm.weight"),
    (r"_mod\.lin\.", "_mod.linear."),
    (r"\.modulation\.lin\.", ".modulation.linear."),
    (r"(_mlp|_refiner\.blocks\.\d+\.mlp)\.0\.", r"\1.fc1."),
    (r"(_mlp|_refiner\.blocks\.\d+\.mlp)\.2\.", r"\1.fc2."),
    (r"^(time_in|guidance_in|txt_in\.t_embedder)\.in_layer\.", r"\1.mlp.0."),
    (r"^(time_in|guidance_in|txt_in\.t_embedder)\.out_layer\.", r"\1.mlp.2."),
    (r"^txt_in\.c_embedder\.in_layer\.", "txt_in.c_embedder.linear_1."),
    (r"^txt_in\.c_embedder\.out_layer\.", "txt_in.c_embedder.linear_2."),
)
# Spec hunyuan section 6. Feed-forwards are "ff", or "mlp" in the text refiner.
_STREAM = (
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
DIT = KeyTable(
    fingerprint=r"^double_blocks\.\d+\.img_attn[._]qkv\.",
    rules=(
        *_COMFY,
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
        *_STREAM,
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
DIFFUSERS_DIT = KeyTable(fingerprint=r"^single_transformer_blocks\.\d+\.attn\.")
# Names are diffusers'. Some files hold other networks too, and prefix the VAE's names.
VAE = KeyTable(
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

NETWORK = NetworkNames(
    kind="HunyuanVideo",
    published=DIT,
    ours=DIFFUSERS_DIT,
    patch_embedding=("img_in.proj.weight", "x_embedder.proj.weight"),
    layers=r"(transformer_|single_transformer_|double_|single_)blocks\.\d+\.",
    traits={"guidance": r"(guidance_in|time_text_embed\.guidance_embedder)\."},
    head_norms=(
        *("img_attn_q_norm.weight", "img_attn.norm.query_norm.scale"),
        "transformer_blocks.0.attn.norm_q.weight",
    ),
    words=(
        *("double_blocks", "single_blocks", "final_layer", "adaLN_modulation", "individual_token_refiner"),
        *("img_attn_qkv", "img_attn_proj", "img_mod", "img_mlp", "txt_attn_qkv", "txt_attn_proj", "txt_mod"),
        *("txt_mlp", "self_attn_qkv", "self_attn_proj", "img_in", "txt_in", "time_in", "guidance_in"),
        *("vector_in", "in_layer", "out_layer", "input_embedder", "c_embedder", "t_embedder", "linear_1"),
        *("linear_2", "img_attn", "txt_attn", "q_norm", "k_norm"),
    ),
    lora_prefix="Hunyuan_video_I2V_lora_",  # spec hunyuan section 11
)
