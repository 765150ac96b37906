"""HunyuanVideo's transformer in float8, in ComfyUI's names and as GGUF, against its published file."""

import functools

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.golden.test_hunyuan import ARCH, CHECKPOINT, WEIGHTS
from videogen.checkpoints import tensor_headers
from videogen.checkpoints.networks.hunyuan import DIT
from videogen.checkpoints.tensor_headers import tensor_shapes
from videogen.errors import CheckpointError
from videogen.models import quantized_linear
from videogen.models.components import load_component
from videogen.models.weight_loader import Entry, rename


@pytest.fixture
def float8(tmp_path):
    """The transformer with float8 block weights and their scales; (folder, the weights they stand for)."""
    published = torch.load(CHECKPOINT / WEIGHTS, weights_only=True)["module"]
    scales, exact = {}, dict(published)
    for name, weight in published.items():
        if "_blocks." in name and name.endswith(".weight") and weight.ndim == 2:
            scale = weight.abs().max() / 448
            published[name] = (weight / scale).to(torch.float8_e4m3fn)
            scales[name.removesuffix(".weight")] = scale
            exact[name] = published[name].float() * scale
    torch.save({"module": published}, tmp_path / "mp_rank_00_model_states_fp8.pt")
    torch.save(scales, tmp_path / "mp_rank_00_model_states_fp8_map.pt")
    return tmp_path, exact


@torch.no_grad()
def test_float8_weights_compute_with_their_scales(float8):
    folder, exact = float8
    model = load_component("hunyuan_transformer", folder, arch=ARCH)
    assert model.transformer_blocks[0].attn.to_q.weight.dtype == torch.float8_e4m3fn
    assert tensor_shapes([folder / "mp_rank_00_model_states_fp8.pt"]).keys() == exact.keys()
    plain = load_component("hunyuan_transformer", (CHECKPOINT / WEIGHTS).parent, arch=ARCH)
    renamed = rename(folder, [Entry(k, tuple(v.shape), lambda v=v: v) for k, v in exact.items()], [DIT])
    plain.load_state_dict({name: entry.read() for name, entry in renamed.items()})
    given = {
        "hidden_states": torch.randn(1, 16, 2, 4, 6),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 5, 32),
        "encoder_attention_mask": torch.ones(1, 5, dtype=torch.long),
        "pooled_projections": torch.randn(1, 24),
        "guidance": torch.tensor([6000.0]),
    }
    torch.testing.assert_close(model(**given).sample, plain(**given).sample)


def test_float8_weights_whatever_their_file_is_called(float8):
    folder, _ = float8
    (folder / "mp_rank_00_model_states_fp8.pt").rename(folder / "mp_rank_00_model_states.pt")
    model = load_component("hunyuan_transformer", folder, arch=ARCH)
    assert isinstance(model.single_transformer_blocks[0].proj_mlp, quantized_linear.ScaledLinear)


def test_a_scale_too_few_is_refused(float8):
    folder, _ = float8
    scales = torch.load(folder / "mp_rank_00_model_states_fp8_map.pt", weights_only=True)
    del scales["single_blocks.0.linear2"]
    torch.save(scales, folder / "mp_rank_00_model_states_fp8_map.pt")
    with pytest.raises(CheckpointError, match=r"not those of .* \(single_transformer_blocks.0.proj_out\)"):
        load_component("hunyuan_transformer", folder, arch=ARCH)


def test_float8_weights_without_scales_are_refused(float8):
    folder, _ = float8
    (folder / "mp_rank_00_model_states_fp8_map.pt").unlink()
    with pytest.raises(Exception, match=r"float8 weights without scales; \w+_map\.pt is missing"):
        load_component("hunyuan_transformer", folder, arch=ARCH)


# The published names -> ComfyUI's.
COMFY = (
    ("txt_in.t_embedder.mlp.0.", "txt_in.t_embedder.in_layer."),
    ("txt_in.t_embedder.mlp.2.", "txt_in.t_embedder.out_layer."),
    ("txt_in.c_embedder.linear_1.", "txt_in.c_embedder.in_layer."),
    ("txt_in.c_embedder.linear_2.", "txt_in.c_embedder.out_layer."),
    ("_mod.linear.", "_mod.lin."),
    ("_attn_qkv.", "_attn.qkv."),
    ("mlp.fc1.", "mlp.0."),
    ("mlp.fc2.", "mlp.2."),
    ("_attn_q_norm.weight", "_attn.norm.query_norm.scale"),
    ("_attn_k_norm.weight", "_attn.norm.key_norm.scale"),
    (".q_norm.weight", ".norm.query_norm.scale"),
    (".k_norm.weight", ".norm.key_norm.scale"),
    ("_attn_proj.", "_attn.proj."),
    (".modulation.linear.", ".modulation.lin."),
    ("_in.mlp.0.", "_in.in_layer."),
    ("_in.mlp.2.", "_in.out_layer."),
)


def comfy_name(name):
    return functools.reduce(lambda text, rule: text.replace(*rule), COMFY, name)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "model.model."])
def test_the_names_of_comfyui(tmp_path, prefix):
    published = tensor_headers.unwrapped(torch.load(CHECKPOINT / WEIGHTS, weights_only=True))
    save_file(
        {prefix + comfy_name(name): tensor for name, tensor in published.items()}, tmp_path / "f.safetensors"
    )
    model = load_component("hunyuan_transformer", tmp_path / "f.safetensors", arch=ARCH).state_dict()
    plain = load_component("hunyuan_transformer", (CHECKPOINT / WEIGHTS).parent, arch=ARCH).state_dict()
    assert model.keys() == plain.keys()
    assert all(torch.equal(model[name], plain[name]) for name in plain)


@torch.no_grad()
@pytest.mark.parametrize("per_row", [False, True])
def test_scaled_float8_in_the_names_of_comfyui(tmp_path, per_row):
    """Every row of a fused weight keeps its own scale when it is split."""
    stored, exact = {}, {}
    for name, weight in tensor_headers.unwrapped(torch.load(CHECKPOINT / WEIGHTS, weights_only=True)).items():
        stored[comfy_name(name)] = exact[name] = weight
        if weight.ndim == 2 and name.endswith(".weight"):
            scale = (weight.abs().amax(dim=1, keepdim=True) if per_row else weight.abs().max()) / 448
            stored[comfy_name(name)] = (weight / scale).to(torch.float8_e4m3fn)
            stored[comfy_name(name).removesuffix("weight") + "scale_weight"] = scale
            exact[name] = stored[comfy_name(name)].float() * scale
    files = {kind: tmp_path / f"{kind}.safetensors" for kind in ("stored", "exact")}
    save_file(stored, files["stored"])
    save_file(exact, files["exact"])
    model, plain = (load_component("hunyuan_transformer", file, arch=ARCH) for file in files.values())
    assert isinstance(model.transformer_blocks[0].attn.to_q, quantized_linear.Float8Linear)
    for name, layer in model.named_modules():
        if isinstance(layer, quantized_linear.QuantizedLinear):
            weight = plain.get_parameter(f"{name}.weight")
            torch.testing.assert_close(layer.dequantized(torch.float32), weight, rtol=0, atol=0)


@torch.no_grad()
def test_gguf_in_the_names_of_comfyui(tmp_path):
    gguf = pytest.importorskip("gguf")
    kind, exact = gguf.GGMLQuantizationType.Q8_0, {}
    writer = gguf.GGUFWriter(tmp_path / "f.gguf", "hyvid")
    for name, weight in tensor_headers.unwrapped(torch.load(CHECKPOINT / WEIGHTS, weights_only=True)).items():
        stored = kind if weight.ndim == 2 and weight.shape[1] % 32 == 0 else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(weight.float().numpy(), stored)
        writer.add_tensor(comfy_name(name), data, raw_dtype=stored)
        exact[name] = torch.from_numpy(np.array(gguf.quants.dequantize(data, stored))).reshape(weight.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(exact, tmp_path / "exact.safetensors")
    files = (tmp_path / "f.gguf", tmp_path / "exact.safetensors")
    model, plain = (load_component("hunyuan_transformer", file, arch=ARCH) for file in files)
    kept = [name for name, layer in model.named_modules() if isinstance(layer, quantized_linear.GgufLinear)]
    assert "transformer_blocks.0.ff.net.2" in kept
    for name in kept:
        weight = plain.get_parameter(f"{name}.weight")
        torch.testing.assert_close(model.get_submodule(name).dequantized(torch.float32), weight)


def test_a_fused_gguf_weight_is_split_between_its_rows():
    stored = torch.arange(6 * 34, dtype=torch.uint8).reshape(6, 34)  # a block of Q8_0 per row
    entries = [
        Entry("img_in.proj.weight", (2, 16, 1, 2, 2), lambda: torch.zeros(2, 16, 1, 2, 2)),
        Entry("double_blocks.0.img_attn.qkv.weight", (6, 32), lambda: stored, "Q8_0"),
    ]
    found = rename(CHECKPOINT, entries, [DIT])
    for number, name in enumerate("qkv"):
        part = found[f"transformer_blocks.0.attn.to_{name}.weight"]
        assert (part.shape, part.dtype) == ((2, 32), "Q8_0")
        assert torch.equal(part.read(), stored[2 * number : 2 * number + 2])
