"""Weights that stay in the format of their file compute as the numbers that they stand for."""

import functools
import math
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import GOLDEN
from tests.manifests import MANIFESTS
from videogen.checkpoints.model_features import LINEAR
from videogen.checkpoints.networks import NETWORKS
from videogen.checkpoints.stored_tensors import IN_BLOCK
from videogen.errors import CheckpointError
from videogen.models.components import load_component
from videogen.models.quantized_linear import Float8Linear, GgufLinear, dequantize_gguf
from videogen.models.wan.transformer import WanDiT

gguf = pytest.importorskip("gguf")

# Ours -> the published names, for the layers that are tested.
PUBLISHED = (
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^proj_out\.", "head.head."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"\.scale_shift_table$", ".modulation"),
    (r"\.norm2\.", ".norm3."),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
)
# transformers' names -> those of llama.cpp.
LLAMA_CPP = (
    (r"^shared\.", "token_embd."),
    (r"^encoder\.final_layer_norm\.", "enc.output_norm."),
    (
        r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias\.",
        r"enc.blk.\1.attn_rel_b.",
    ),
    (r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.([qkvo])\.", r"enc.blk.\1.attn_\2."),
    (r"^encoder\.block\.(\d+)\.layer\.0\.layer_norm\.", r"enc.blk.\1.attn_norm."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.layer_norm\.", r"enc.blk.\1.ffn_norm."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_0\.", r"enc.blk.\1.ffn_gate."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_1\.", r"enc.blk.\1.ffn_up."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo\.", r"enc.blk.\1.ffn_down."),
)
UMT5 = GOLDEN / "wan22/checkpoint-t2v-a14b/models_t5_umt5-xxl-enc-bf16.pth"
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
LAYER = "blocks.0.self_attn.q"


@pytest.fixture(scope="module")
def published():
    """A small Wan transformer under published names; its width is that of the K formats' blocks."""
    torch.manual_seed(0)
    model = WanDiT(num_attention_heads=2, ffn_dim=512, num_layers=1, text_dim=32)
    return {renamed(name, PUBLISHED): tensor for name, tensor in model.state_dict().items()}


def renamed(name, table):
    return functools.reduce(lambda text, rule: re.sub(*rule, text), table, name)


@torch.no_grad()
def forward(model):
    generator = torch.Generator().manual_seed(1)
    latents, text = (torch.randn(shape, generator=generator) for shape in ((1, 16, 2, 4, 4), (1, 5, 32)))
    return model(latents, torch.tensor([500.0]), text, return_dict=False)[0]


def is_large(name, tensor):
    return tensor.ndim == 2 and name.startswith("blocks.") and name.endswith(".weight")


def scaled(published, prefix="", key="scale_weight", per_row=False, dtype=torch.float8_e4m3fn):
    """Return a file as ComfyUI writes it, and the numbers that it stands for."""
    stored, plain = {}, {}
    for name, tensor in published.items():
        stored[prefix + name] = plain[name] = tensor
        if is_large(name, tensor):
            scale = tensor.abs().amax(dim=1, keepdim=True) if per_row else tensor.abs().max()
            scale = scale / torch.finfo(dtype).max
            stored[prefix + name] = (tensor / scale).to(dtype)
            stored[prefix + name.removesuffix("weight") + key] = scale.squeeze() if per_row else scale
            plain[name] = stored[prefix + name].float() * scale
    return {**stored, f"{prefix}scaled_fp8": torch.zeros(2, dtype=dtype)}, plain


def load(tmp_path, tensors, name="file.safetensors"):
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / name)
    return load_component("transformer", tmp_path / name)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize(("key", "per_row"), [("scale_weight", False), ("weight_scale", True)])
def test_scaled_float8(tmp_path, published, prefix, key, per_row):
    stored, plain = scaled(published, prefix, key, per_row)
    model = load(tmp_path, stored)
    assert isinstance(model.blocks[0].attn1.to_q, Float8Linear)
    assert model.blocks[0].attn1.to_q.weight.dtype == torch.float8_e4m3fn
    torch.testing.assert_close(forward(model), forward(load(tmp_path, plain, "plain.safetensors")))


@pytest.mark.parametrize("dtype", FLOAT8)
def test_plain_casts(tmp_path, published, dtype):
    stored = {name: tensor.to(dtype) for name, tensor in published.items()}  # all, norms and biases as well
    plain = {name: tensor.float() for name, tensor in stored.items()}
    model = load(tmp_path, stored)
    assert model.blocks[0].ffn.net[2].weight.dtype == dtype
    assert model.condition_embedder.time_proj.weight.dtype == torch.float32
    torch.testing.assert_close(forward(model), forward(load(tmp_path, plain, "plain.safetensors")))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision(tmp_path, published, half):
    stored = {f"model.diffusion_model.{name}": tensor.to(half) for name, tensor in published.items()}
    plain = {name: tensor.to(half).float() for name, tensor in published.items()}
    torch.testing.assert_close(
        forward(load(tmp_path, stored)), forward(load(tmp_path, plain, "plain.safetensors"))
    )


def broken(stored, kind):
    key = f"{LAYER}.scale_weight"
    if kind == "lost":
        del stored[key]
    elif kind == "all lost":
        for name in [name for name in stored if name.endswith("scale_weight")]:
            del stored[name]
    else:
        stored[key] = torch.ones(3)
    return stored


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("lost", rf"float8 weights without scales: {LAYER}.weight; "),
        ("all lost", r"float8 weights without scales: .* and 9 more"),
        ("shape", r"scale_weight is \[3\], expected one number, or one for each of 256 rows"),
    ],
)
def test_scales_that_are_not_those(tmp_path, published, kind, message):
    stored, _ = scaled(published)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path, broken(stored, kind))


def blocks(rows, columns, kind, rng):
    """Return blocks of a kind with random bits, but for the float16 scales in them."""
    per_block, size = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (rows * columns // per_block, size), dtype=np.uint8)
    scales = {"Q6_K": (208,), "Q5_K": (0, 2), "Q4_K": (0, 2), "Q8_0": (0,), "Q4_0": (0,)}[kind.name]
    for place in scales:
        data[:, place : place + 2] = np.frombuffer(np.float16(1e-5).tobytes(), np.uint8)
    return data.reshape(rows, -1)


def write_gguf(file, published, kind):
    """Write a GGUF file; return the numbers that it stands for."""
    rng, writer, plain = np.random.default_rng(0), gguf.GGUFWriter(file, "wan"), {}
    for name, tensor in published.items():
        data, stored = tensor.float().numpy(), gguf.GGMLQuantizationType.F32
        if is_large(name, tensor):
            stored = kind
            data = data.astype(np.float16) if kind.name == "F16" else blocks(*tensor.shape, kind, rng)
        writer.add_tensor(name, data, raw_dtype=stored)
        numbers = gguf.quants.dequantize(data, stored)
        plain[name] = torch.from_numpy(np.array(numbers, dtype=np.float32)).reshape(tensor.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return plain


@pytest.mark.parametrize("name", ["F16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0"])
def test_gguf(tmp_path, published, name):
    kind, file = gguf.GGMLQuantizationType[name], tmp_path / "file.gguf"
    plain = write_gguf(file, published, kind)
    model = load_component("transformer", file)
    layer = model.blocks[0].attn1.to_q
    if name != "F16":
        assert isinstance(layer, GgufLinear)
        per_block, size = gguf.GGML_QUANT_SIZES[kind]
        assert layer.weight.nbytes == 256 * 256 // per_block * size
        numbers = dequantize_gguf(layer.weight, name)
        torch.testing.assert_close(numbers, plain[f"{LAYER}.weight"], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(forward(model), forward(load(tmp_path, plain)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("part", [3, 100, 0.5, 0.999])
def test_truncated_gguf(tmp_path, published, part):
    file = tmp_path / "file.gguf"
    write_gguf(file, published, gguf.GGMLQuantizationType.Q8_0)
    content = file.read_bytes()
    file.write_bytes(content[: part if part >= 1 else int(part * len(content))])
    with pytest.raises(CheckpointError, match="broken or truncated GGUF"):
        load_component("transformer", file)


def test_a_text_encoder_in_the_names_of_llama_cpp(tmp_path):
    plain = load_component("text_encoder", UMT5)
    writer = gguf.GGUFWriter(tmp_path / "umt5.gguf", "t5encoder")
    for name, tensor in plain.state_dict().items():
        if name != "encoder.embed_tokens.weight":
            writer.add_tensor(renamed(name, LLAMA_CPP), tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = load_component("text_encoder", tmp_path / "umt5.gguf")
    tokens = torch.tensor([[3, 5, 1]])
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).last_hidden_state, plain(tokens).last_hidden_state)


def test_a_text_encoder_with_scaled_float8(tmp_path):
    plain = load_component("text_encoder", UMT5)
    marker, tokenizer = torch.zeros(2, dtype=FLOAT8[0]), torch.zeros(9, dtype=torch.uint8)
    stored, exact = {"scaled_fp8": marker, "spiece_model": tokenizer}, {}
    for name, tensor in plain.state_dict().items():
        stored[name] = exact[name] = tensor
        if tensor.ndim == 2 and "block" in name and "bias" not in name:
            scale = tensor.abs().max() / 448
            stored[name] = (tensor / scale).to(FLOAT8[0])
            stored[name.removesuffix("weight") + "scale_weight"] = scale
            exact[name] = stored[name].float() * scale
    stored.pop("encoder.embed_tokens.weight", None)
    save_file(stored, tmp_path / "umt5_fp8_scaled.safetensors")
    model = load_component("text_encoder", tmp_path / "umt5_fp8_scaled.safetensors").state_dict()
    assert all(torch.equal(model[name], exact[name]) for name in model)


def test_the_share_of_published_models_that_can_be_quantized():
    """What an estimate takes for it before a download is the least of all, within 3 %."""
    exact = "|".join(network.float32 for network in NETWORKS)
    shares = []
    for name, manifest in MANIFESTS.items():
        counts = {key: math.prod(shape) for key, shape in manifest["tensors"].items()}
        blocks = [key for key in counts if IN_BLOCK.search(key) and len(manifest["tensors"][key]) == 2]
        if len(blocks) > 200 and not re.search("t5|clip|vae", name):
            linear = [key for key in blocks if key.endswith(".weight") and not re.search(exact, key)]
            shares.append(sum(counts[key] for key in linear) / sum(counts.values()))
    assert len(shares) == 16
    assert LINEAR <= min(shares) <= max(shares) <= LINEAR + 0.03
