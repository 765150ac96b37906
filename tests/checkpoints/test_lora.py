"""LoRA files: every layer of every published transformer in every spelling, and what is read from them."""

import gzip
import json
import re
from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_musubi_wan_lora_to_diffusers,
    _convert_non_diffusers_wan_lora_to_diffusers,
)
from safetensors.torch import save_file

from tests.conftest import GOLDEN
from videogen.checkpoints import lora
from videogen.checkpoints.networks import NETWORKS
from videogen.errors import CheckpointError
from videogen.models import lora_weights
from videogen.planning import model_facts

MANIFESTS = json.loads(gzip.decompress((GOLDEN / "manifests.json.gz").read_bytes()))
# Of a block of Wan: published name, and ours.
LAYERS = {
    **{f"self_attn.{x}": f"attn1.to_{x}" for x in "qkv"},
    **{f"cross_attn.{x}": f"attn2.to_{x}" for x in "qkv"},
    **{"self_attn.o": "attn1.to_out.0", "cross_attn.o": "attn2.to_out.0"},
    **{"ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2"},
}


def matrices(tensors):
    return [name for name, shape in tensors.items() if name.endswith(".weight") and len(shape) > 1]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.kind)
def test_every_layer_is_known_in_every_spelling(network):
    table = network.published
    published = [
        name
        for kind, manifest in MANIFESTS.items()
        if any(re.search(table.fingerprint, name) for name in manifest["tensors"])
        and not re.search(r"t5|clip", kind)
        for name in matrices(manifest["tensors"])
    ]
    assert len(published) > 300
    for name in dict.fromkeys(published):
        layer, ours = name.removesuffix(".weight"), table.names(name)
        for prefix in lora.FLAT:
            assert lora.dotted_name(prefix + layer.replace(".", "_")) == layer
        assert lora.dotted_name(f"diffusion_model.{layer}") == layer
        assert [table.names(our) for our in ours] == [[our] for our in ours]


# How ComfyUI calls what HunyuanVideo's published files call otherwise.
COMFY = (
    (r"(img|txt|self)_attn_(qkv|proj)", r"\1_attn.\2"),
    (r"_mod\.linear", "_mod.lin"),
    (r"modulation\.linear", "modulation.lin"),
    (r"mlp\.fc1", "mlp.0"),
    (r"mlp\.fc2", "mlp.2"),
    (r"(_in|t_embedder)\.mlp\.0", r"\1.in_layer"),
    (r"(_in|t_embedder)\.mlp\.2", r"\1.out_layer"),
    (r"c_embedder\.linear_1", "c_embedder.in_layer"),
    (r"c_embedder\.linear_2", "c_embedder.out_layer"),
)


def test_every_layer_is_known_in_the_names_of_comfyui():
    """Dotted and flat, and also a prefix before them."""
    (table,) = (network.published for network in NETWORKS if network.kind == "HunyuanVideo")
    manifest = MANIFESTS["hunyuan/dit_i2v_token_replace.json"]["tensors"]
    changed = 0
    for name in matrices(manifest):
        layer = name.removesuffix(".weight")
        comfy = layer
        for pattern, replacement in COMFY:
            comfy = re.sub(pattern, replacement, comfy)
        changed += comfy != layer
        for spelling in (f"diffusion_model.{comfy}", "lora_unet_" + comfy.replace(".", "_")):
            assert table.names(f"{lora.dotted_name(spelling)}.weight") == table.names(name), spelling
    assert changed > 250


def wan_pairs(transformer, spelling, up="lora_up", down="lora_down", *, alpha=None):
    """A LoRA for every layer of every block; ``spelling``: published name -> name in the file."""
    generator, tensors = torch.Generator().manual_seed(1), {}
    for block in range(len(transformer.blocks)):
        for published, ours in LAYERS.items():
            rows, columns = transformer.get_submodule(f"blocks.{block}.{ours}").weight.shape
            name = spelling(f"blocks.{block}.{published}")
            tensors[f"{name}.{down}.weight"] = torch.randn(4, columns, generator=generator)
            tensors[f"{name}.{up}.weight"] = torch.randn(rows, 4, generator=generator)
            if alpha is not None:
                tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


SPELLINGS = {
    "dotted": (lambda name: f"diffusion_model.{name}", {}, _convert_non_diffusers_wan_lora_to_diffusers),
    "dotted with alphas": (
        *(lambda name: f"diffusion_model.{name}", {"alpha": 2.0}),
        _convert_non_diffusers_wan_lora_to_diffusers,
    ),
    "A and B": (
        *(lambda name: f"diffusion_model.{name}", {"up": "lora_B", "down": "lora_A"}),
        _convert_non_diffusers_wan_lora_to_diffusers,
    ),
    "flat": (
        *(lambda name: "lora_unet_" + name.replace(".", "_"), {"alpha": 2.0}),
        _convert_musubi_wan_lora_to_diffusers,
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_published_names_are_read_as_diffusers_reads_them(tiny_pipeline, tmp_path, spelling):
    name, kinds, convert = SPELLINGS[spelling]
    tensors = wan_pairs(tiny_pipeline.transformer, name, **kinds)
    save_file(tensors, tmp_path / "lora.safetensors")
    read = lora_weights.read(tmp_path / "lora.safetensors", tiny_pipeline.transformer)
    state = read.pairs
    expected = convert(dict(tensors))
    assert state.keys() == expected.keys()
    assert read.warning is None and not read.changes
    for layer in {key.rpartition(".lora_")[0] for key in expected}:  # alphas may go into either matrix
        one, other = (
            found[f"{layer}.lora_B.weight"] @ found[f"{layer}.lora_A.weight"] for found in (state, expected)
        )
        torch.testing.assert_close(one, other)


def test_two_loras_and_one_that_fits_in_part(tiny_pipeline, tmp_path, caplog):
    """Layers that are another model's are left out, with a warning, also where names are not diffusers'."""
    pair = {
        f"diffusion_model.{layer}.lora_{x}.weight": torch.ones(*shape)
        for layer in ("blocks.0.self_attn.q", "blocks.99.self_attn.q")
        for x, shape in (("down", (2, 48)), ("up", (48, 2)))
    }
    save_file(pair, tmp_path / "lora.safetensors")
    try:
        for name in ("one", "two"):
            tiny_pipeline.load_lora_weights(tmp_path / "lora.safetensors", adapter_name=name)
        assert tiny_pipeline.get_list_adapters() == {"transformer": ["one", "two"]}
    finally:
        tiny_pipeline.unload_lora_weights()
    assert "1 of its 2 layers are this model's" in caplog.text


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lora_down": (2, 47), "lora_up": (48, 2)}, r"q.lora_down.weight is \[2, 47\], expected \[2, 48\]"),
        ({"lora_down": (2, 48), "lora_up": (48, 3)}, r"q.lora_up.weight is \[48, 3\], expected \[48, 2\]"),
        ({"lora_down": (2, 48)}, "q has a lora_down and no lora_up"),
        ({"lora_B": (48, 2)}, "q has a lora_up and no lora_down"),
        ({"lora_A": (), "lora_B": (48, 2)}, r"lora_A.weight is \[\]"),
    ],
)
def test_layers_that_do_not_fit(tiny_pipeline, tmp_path, tensors, message):
    name = "diffusion_model.blocks.0.self_attn.q"
    file = tmp_path / "lora.safetensors"
    save_file({f"{name}.{part}.weight": torch.ones(shape) for part, shape in tensors.items()}, file)
    with pytest.raises(CheckpointError, match=message):
        lora_weights.read(file, tiny_pipeline.transformer)


def test_a_folder_of_several(tiny_pipeline, tmp_path):
    for name in "ab":
        save_file({name: torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="holds 2"):
        lora_weights.read(Path(tmp_path), tiny_pipeline.transformer)


def test_a_replaced_file_has_another_digest(tmp_path):
    file = tmp_path / "lora.safetensors"
    file.write_bytes(b"one")
    first = model_facts._lora_digest(file)
    assert model_facts._lora_digest(file) == first
    file.write_bytes(b"three")
    assert model_facts._lora_digest(file) != first
