"""LoRA files of every kind and naming: the weights in use follow the formula, and the old bits come back."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.loras import (
    ALPHA,
    BIAS,
    DOWN,
    HADA,
    KINDS,
    LAYER,
    ONE,
    OTHER,
    PAIR,
    PRODUCT,
    UNUSABLE,
    UP,
    W1,
    W2,
    changed,
    numbers,
    weights_in_use,
)
from videogen.errors import CheckpointError

# How a file may call that layer.
NAMES = (
    *(
        "diffusion_model.blocks.0.self_attn.q",
        "lora_unet_blocks_0_self_attn_q",
        "lora_unet_blocks_0.self_attn.q",
    ),
    *("lycoris_blocks_0_self_attn_q", "lycoris_blocks_0_attn1_to_q", "transformer.blocks.0.attn1.to_q"),
    *("base_model.model.blocks.0.self_attn.q", "base_model.model.base_model.model.blocks.0.attn1.to_q"),
    *("module.blocks.0.self_attn.q", "transformer._orig_mod.blocks.0.attn1.to_q", "net.blocks.0.self_attn.q"),
    *("lora_unet_diffusion_model_blocks_0_self_attn_q", "lora_dit_blocks_0_self_attn_q"),
    *(
        "model.diffusion_model.blocks.0.self_attn.q",
        "blocks.0.self_attn.q",
        "lora_unet__blocks_0_self_attn_q",
    ),
)


@pytest.fixture
def applied(tiny_pipeline, tmp_path):
    """Load a file; returns (parameters before, parameters in use), and checks that the old bits come back."""
    before = weights_in_use(tiny_pipeline.transformer)

    def load(tensors, scale=1.0, *, metadata=None, config=None, suffix=".safetensors"):
        file = tmp_path / f"lora{suffix}"
        save_file(tensors, file, metadata) if suffix == ".safetensors" else torch.save(tensors, file)
        if config is not None:
            (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        tiny_pipeline.load_lora_weights(file, adapter_name="one")
        tiny_pipeline.set_adapters(["one"], [scale])
        return before, weights_in_use(tiny_pipeline.transformer)

    yield load
    tiny_pipeline.unload_lora_weights()
    after = weights_in_use(tiny_pipeline.transformer)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "suffixes", [("lora_down", "lora_up"), ("lora_A", "lora_B"), ("lora_A.mine", "lora_B.mine")]
)
def test_names(applied, name, suffixes):
    down, up = suffixes
    before, after = applied({f"{name}.{down}.weight": DOWN, f"{name}.{up}.weight": UP}, 0.5)
    assert changed(before, after) == {f"{LAYER}.weight"}
    torch.testing.assert_close(after[f"{LAYER}.weight"], before[f"{LAYER}.weight"] + 0.5 * PRODUCT)


STRENGTHS = {
    "alpha tensor": ({"alpha": ALPHA}, None, None, 2.0),
    "alpha in float8": ({"alpha": ALPHA.to(torch.float8_e4m3fn)}, None, None, 2.0),
    "config": ({}, None, {"r": 4, "lora_alpha": 16}, 4.0),
    "tensor before config": ({"alpha": ALPHA}, None, {"r": 4, "lora_alpha": 16}, 2.0),
    "rank stabilized": ({}, None, {"r": 4, "lora_alpha": 16, "use_rslora": True}, 8.0),
    "pattern": (
        {}, None, {"r": 4, "lora_alpha": 16, "alpha_pattern": {r"blocks\.\d+\.self_attn\.q": 2}}, 0.5
    ),
    "rank pattern": (
        {}, None, {"r": 16, "lora_alpha": 16, "rank_pattern": {"self_attn.q": 4}}, 4.0
    ),
    "another file's config": ({}, None, {"r": 64, "lora_alpha": 16}, 1.0),
    "diffusers' header": (
        {}, {"lora_adapter_metadata": '{"transformer.r": 4, "transformer.lora_alpha": 2}'}, None, 0.5
    ),
    "kohya's header": ({}, {"ss_network_alpha": "2", "ss_network_dim": "4"}, None, 0.5),
    "alpha in the header": ({}, {"lora_alpha": "12"}, None, 3.0),
    "alpha and rank in the header": ({}, {"alpha": "8", "rank": "4"}, None, 2.0),
    "no alpha in kohya's header": ({}, {"ss_network_alpha": "None"}, None, 1.0),
    "PEFT's config in the header": ({}, {"lora_config": '{"r": 4, "lora_alpha": 16}'}, None, 4.0),
    "nothing": ({}, None, None, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("case", STRENGTHS)
@pytest.mark.parametrize("name", ["base_model.model.blocks.0.self_attn.q", "lora_unet_blocks_0_self_attn_q"])
def test_strength(applied, case, name):
    more, header, config, factor = STRENGTHS[case]
    tensors = {f"{name}.lora_A.weight": DOWN, f"{name}.lora_B.weight": UP}
    tensors |= {f"{name}.{part}": value for part, value in more.items()}
    before, after = applied(tensors, 2.0, metadata=header, config=config)
    torch.testing.assert_close(
        after[f"{LAYER}.weight"], before[f"{LAYER}.weight"] + 2.0 * factor * PRODUCT, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_kinds(applied, kind, scale):
    """Also beside a layer with a plain pair."""
    tensors, formula = KINDS[kind]
    file = {f"lora_unet_blocks_0_self_attn_q.{part}": value for part, value in tensors.items()}
    file |= {f"lora_unet_blocks_0_self_attn_k.{part}": value.clone() for part, value in PAIR.items()}
    before, after = applied(file, scale)
    torch.testing.assert_close(
        after[f"{LAYER}.weight"], formula(before[f"{LAYER}.weight"], scale), rtol=1e-5, atol=1e-5
    )
    other = LAYER.replace("to_q", "to_k") + ".weight"
    torch.testing.assert_close(after[other], before[other] + scale * PRODUCT, rtol=1e-5, atol=1e-5)
    assert changed(before, after) == {f"{LAYER}.weight", other}


def test_differences_of_norms_biases_and_modulation(applied):
    values = {
        "blocks.0.norm3.diff": ("blocks.0.norm2.weight", numbers(48)),
        "blocks.0.norm3.diff_b": ("blocks.0.norm2.bias", numbers(48, seed=1)),
        "blocks.0.self_attn.norm_q.diff": ("blocks.0.attn1.norm_q.weight", numbers(48, seed=2)),
        "blocks.0.self_attn.o.diff_b": ("blocks.0.attn1.to_out.0.bias", numbers(48, seed=3)),
        "blocks.0.diff_m": ("blocks.0.scale_shift_table", numbers(1, 6, 48)),
        "head.diff_m": ("scale_shift_table", numbers(1, 2, 48)),
        "patch_embedding.diff_b": ("patch_embedding.bias", numbers(48, seed=4)),
    }
    before, after = applied({f"diffusion_model.{key}": value for key, (_, value) in values.items()}, 0.5)
    for name, value in values.values():
        torch.testing.assert_close(after[name], before[name] + 0.5 * value)
    assert changed(before, after) == {name for name, _ in values.values()}


def test_the_bias_of_a_pair_has_its_strength(applied):
    name = "base_model.model.blocks.0.self_attn.q"
    tensors = {f"{name}.lora_A.weight": DOWN, f"{name}.lora_B.weight": UP, f"{name}.lora_B.bias": BIAS}
    before, after = applied(tensors, 2.0, config={"r": 4, "lora_alpha": 16})
    torch.testing.assert_close(after[f"{LAYER}.bias"], before[f"{LAYER}.bias"] + 8.0 * BIAS)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16, torch.float16])
def test_types(applied, dtype):
    tensors = {f"lora_unet_blocks_0_self_attn_q.{part}": value.to(dtype) for part, value in PAIR.items()}
    before, after = applied(tensors | {"lora_unet_blocks_0_self_attn_q.alpha": ALPHA.to(dtype)})
    down, up = (tensors[f"lora_unet_blocks_0_self_attn_q.{part}"].float() for part in PAIR)
    torch.testing.assert_close(after[f"{LAYER}.weight"], before[f"{LAYER}.weight"] + 2 * up @ down)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_pickles_of_tensors(applied, suffix):
    tensors = {f"blocks.0.self_attn.q.{part}": value for part, value in PAIR.items()}
    before, after = applied(tensors | {"blocks.0.self_attn.q.alpha": 2.0}, suffix=suffix)
    torch.testing.assert_close(after[f"{LAYER}.weight"], before[f"{LAYER}.weight"] + PRODUCT / 2)


def test_a_pickle_of_training_code(applied):
    tensors = {f"blocks.0.self_attn.q.{part}": value for part, value in PAIR.items()}
    content = {"lora": tensors, "optimizer": {"state": {0: {"exp_avg": DOWN}}}, "step": 7}
    before, after = applied(content, suffix=".pt")
    torch.testing.assert_close(after[f"{LAYER}.weight"], before[f"{LAYER}.weight"] + PRODUCT)


def test_a_layer_in_two_namings_is_refused(tiny_pipeline, tmp_path):
    file = {f"{name}.{part}": value.clone() for name in NAMES[:2] for part, value in PAIR.items()}
    save_file(file, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match=f"{NAMES[0]} and {NAMES[1]} both change {LAYER}.weight"):
        tiny_pipeline.load_lora_weights(tmp_path / "lora.safetensors")


@pytest.mark.parametrize("name", [NAMES[0], NAMES[1]])
def test_unknown_kinds_do_not_blame_the_model(tiny_pipeline, tmp_path, name):
    save_file({f"{name}.fourierft_spectrum": torch.ones(9)}, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match="holds fourierft_spectrum of this model's layers, a kind"):
        tiny_pipeline.load_lora_weights(tmp_path / "lora.safetensors")


def test_metadata_of_macos_is_no_second_file(tiny_pipeline, tmp_path):
    save_file({f"{NAMES[0]}.{part}": value for part, value in PAIR.items()}, tmp_path / "lora.safetensors")
    (tmp_path / "._lora.safetensors").write_bytes(b"\0\5\x16\7")
    tiny_pipeline.load_lora_weights(tmp_path)
    tiny_pipeline.unload_lora_weights()


def test_what_is_not_used_is_counted(applied, caplog):
    tensors = {f"diffusion_model.blocks.0.self_attn.q.{part}": value for part, value in PAIR.items()}
    tensors |= {"lora_te_layers_0_q.lora_down.weight": DOWN.clone(), "strange": torch.ones(1)}
    tensors |= {"diffusion_model.patch_embedding.diff": torch.ones(48, 8, 1, 2, 2)}
    applied(tensors)
    assert "2 of its 5 tensors are not used: text encoder (1), unknown names (1)" in caplog.text
    assert "patch_embedding takes fewer channels than the model's and is left out" in caplog.text


def test_biases_and_modules_that_peft_saves_whole(applied):
    """They are values, not differences."""
    layer, head = "base_model.model.blocks.0.attn1.to_q", "base_model.model.proj_out"
    value = numbers(64, 48, seed=9)
    tensors = {f"{layer}.lora_A.weight": DOWN, f"{layer}.lora_B.weight": UP}
    tensors |= {
        f"{layer}.base_layer.bias": BIAS,
        f"{head}.weight": value,
        f"{head}.bias": value[:, 0].clone(),
    }
    before, after = applied(tensors, config={"r": 4, "lora_alpha": 4, "modules_to_save": ["proj_out"]})
    torch.testing.assert_close(after[f"{LAYER}.weight"], before[f"{LAYER}.weight"] + PRODUCT)
    torch.testing.assert_close(after[f"{LAYER}.bias"], BIAS)
    torch.testing.assert_close(after["proj_out.weight"], value)
    torch.testing.assert_close(after["proj_out.bias"], value[:, 0])


@pytest.mark.parametrize("kind", ["LOKR", "LOHA"])
def test_folders_of_peft(applied, kind):
    """Alpha and rank are for all layers, also for those of whole matrices."""
    name = "base_model.model.blocks.0.self_attn.q"
    tensors = {"lokr_w1": W1, "lokr_w2": W2} if kind == "LOKR" else HADA
    product = torch.kron(W1, W2) if kind == "LOKR" else (ONE[0] @ ONE[1]) * (OTHER[0] @ OTHER[1])
    config = {"peft_type": kind, "r": 3, "alpha": 6, "rank_pattern": {}, "alpha_pattern": {}}
    before, after = applied({f"{name}.{part}": value for part, value in tensors.items()}, config=config)
    torch.testing.assert_close(
        after[f"{LAYER}.weight"], before[f"{LAYER}.weight"] + 2 * product, rtol=1e-5, atol=1e-5
    )


def test_a_distillation_for_every_layer_of_the_head(applied):
    """As lightx2v's files: pairs, whole differences of what has none, and of every bias and norm."""
    prefix, head = "diffusion_model.", numbers(64, 48, seed=3)
    tensors = {
        "time_embedding.0.lora_down.weight": numbers(4, 64), "time_embedding.0.lora_up.weight": UP,
        "time_embedding.0.diff_b": BIAS, "head.head.diff": head, "head.head.diff_b": head[:, 0].clone(),
        "text_embedding.2.diff_b": BIAS.clone(), "time_projection.1.diff_b": numbers(288),
        "blocks.0.ffn.0.lora_down.weight": DOWN, "blocks.0.ffn.0.lora_up.weight": numbers(96, 4),
        "blocks.0.cross_attn.norm_q.diff": BIAS.clone(), "blocks.0.diff_m": numbers(1, 6, 48),
    }  # fmt: skip
    before, after = applied({prefix + key: value for key, value in tensors.items()})
    embedder = "condition_embedder"
    wanted = {
        f"{embedder}.time_embedder.linear_1.weight": UP @ numbers(4, 64),
        f"{embedder}.time_embedder.linear_1.bias": BIAS,
        f"{embedder}.text_embedder.linear_2.bias": BIAS,
        f"{embedder}.time_proj.bias": numbers(288),
        "proj_out.weight": head, "proj_out.bias": head[:, 0],
        "blocks.0.ffn.net.0.proj.weight": numbers(96, 4) @ DOWN,
        "blocks.0.attn2.norm_q.weight": BIAS, "blocks.0.scale_shift_table": numbers(1, 6, 48),
    }  # fmt: skip
    assert changed(before, after) == wanted.keys()
    for name, change in wanted.items():
        torch.testing.assert_close(after[name], before[name] + change, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", UNUSABLE)
def test_kinds_that_cannot_be_applied_are_counted(applied, caplog, kind):
    """The layer is left out whole: the rest of its tensors means something else without them."""
    name = "lora_unet_blocks_0_self_attn_q"
    tensors = {f"{name}.{part}": value.clone() for part, value in UNUSABLE[kind].items()}
    pair = {f"lora_unet_blocks_0_self_attn_k.{part}": value.clone() for part, value in PAIR.items()}
    before, after = applied(tensors | pair)
    assert changed(before, after) == {LAYER.replace("to_q", "to_k") + ".weight"}
    said = f"{len(tensors)} of its {len(tensors) + 2} tensors are not used: {' '.join(kind.split()[:2])}"
    assert said.replace("OFT in", "OFT") in caplog.text
