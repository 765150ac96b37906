"""LoRA files of every kind and naming: the weights in use follow the formula, and the old bits come back."""

import json
import math
import re

import pytest
import torch
from safetensors.torch import save_file

from videogen.errors import CheckpointError

LAYER, ROWS, COLUMNS = "blocks.0.attn1.to_q", 48, 48
# How a file may call that layer.
NAMES = (
    *(
        "diffusion_model.blocks.0.self_attn.q",
        "lora_unet_blocks_0_self_attn_q",
        "lora_unet_blocks_0.self_attn.q",
    ),
    *("lycoris_blocks_0_self_attn_q", "lycoris_blocks_0_attn1_to_q", "transformer.blocks.0.attn1.to_q"),
    *("base_model.model.blocks.0.self_attn.q", "base_model.model.base_model.model.blocks.0.attn1.to_q"),
    *(
        "model.diffusion_model.blocks.0.self_attn.q",
        "blocks.0.self_attn.q",
        "lora_unet__blocks_0_self_attn_q",
    ),
)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape) + seed)) / 4


def weights_in_use(transformer):
    """Every parameter with its adapters: W + scale B A."""
    found = {}
    for name, value in transformer.named_parameters():
        if not re.search(r"\.lora_[AB]\.", name):
            found[name.replace(".base_layer.", ".")] = value.detach().clone()
    for name, module in transformer.named_modules():
        if hasattr(module, "lora_A"):
            for adapter in module.active_adapters:
                found[f"{name}.weight"] += module.get_delta_weight(adapter).detach()
    return found


def row_lengths(weight):
    return weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))


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


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


DOWN, UP = numbers(4, COLUMNS), numbers(ROWS, 4)
PRODUCT = UP @ DOWN


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "suffixes", [("lora_down", "lora_up"), ("lora_A", "lora_B"), ("lora_A.mine", "lora_B.mine")]
)
def test_names(applied, name, suffixes):
    down, up = suffixes
    before, after = applied({f"{name}.{down}.weight": DOWN, f"{name}.{up}.weight": UP}, 0.5)
    assert changed(before, after) == {f"{LAYER}.weight"}
    torch.testing.assert_close(after[f"{LAYER}.weight"], before[f"{LAYER}.weight"] + 0.5 * PRODUCT)


# What states the strength: (tensors besides the pair, header, adapter_config.json, factor).
ALPHA = torch.tensor(8.0)
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


PAIR = {"lora_down.weight": DOWN, "lora_up.weight": UP}
LENGTHS, HEIGHTS = numbers(ROWS, 1).abs() + 1, numbers(1, COLUMNS).abs() + 1
W1, W2, W1A, W1B = numbers(4, 6), numbers(12, 8), numbers(4, 2), numbers(2, 6)
W2A, W2B, RANK3 = numbers(12, 3), numbers(3, 8), torch.tensor(6.0)
ONE, OTHER = (numbers(ROWS, 3), numbers(3, COLUMNS)), (numbers(ROWS, 3, seed=1), numbers(3, COLUMNS, seed=1))
HADA = {"hada_w1_a": ONE[0], "hada_w1_b": ONE[1], "hada_w2_a": OTHER[0], "hada_w2_b": OTHER[1]}
WHOLE, BIAS = numbers(ROWS, COLUMNS, seed=5), numbers(ROWS)


def with_lengths(weight, magnitude=LENGTHS):
    return magnitude * weight / row_lengths(weight)


# Kind -> (tensors of the layer, weight with scale s).
KINDS = {
    "DoRA": (PAIR | {"alpha": ALPHA, "dora_scale": LENGTHS}, lambda w, s: with_lengths(w + 2 * s * PRODUCT)),
    "DoRA of PEFT": (
        {"lora_A.weight": DOWN, "lora_B.weight": UP, "lora_magnitude_vector": LENGTHS[:, 0]},
        lambda w, s: with_lengths(w + s * PRODUCT),
    ),
    "DoRA of columns": (
        PAIR | {"dora_scale": HEIGHTS},
        lambda w, s: HEIGHTS * (w + s * PRODUCT) / (w + s * PRODUCT).norm(dim=0, keepdim=True),
    ),
    "LoKr of matrices": (
        {"lokr_w1": W1, "lokr_w2": W2, "alpha": ALPHA}, lambda w, s: w + s * torch.kron(W1, W2)
    ),
    "LoKr of products": (
        {"lokr_w1_a": W1A, "lokr_w1_b": W1B, "lokr_w2": W2, "alpha": ALPHA},
        lambda w, s: w + 4 * s * torch.kron(W1A @ W1B, W2),
    ),
    "LoKr, right": (
        {"lokr_w1": W1, "lokr_w2_a": W2A, "lokr_w2_b": W2B, "alpha": RANK3},
        lambda w, s: w + 2 * s * torch.kron(W1, W2A @ W2B),
    ),
    "LoHa": (HADA | {"alpha": RANK3}, lambda w, s: w + 2 * s * (ONE[0] @ ONE[1]) * (OTHER[0] @ OTHER[1])),
    "LoHa with lengths": (
        HADA | {"dora_scale": LENGTHS},
        lambda w, s: with_lengths(w + s * (ONE[0] @ ONE[1]) * (OTHER[0] @ OTHER[1])),
    ),
    "whole": ({"diff": WHOLE}, lambda w, s: w + s * WHOLE),
    "whole value": (
        PAIR | {"modules_to_save.default.weight": WHOLE}, lambda w, s: w + s * PRODUCT + s * (WHOLE - w)
    ),
    "value of ComfyUI": ({"set_weight": WHOLE}, lambda w, s: w + s * (WHOLE - w)),
    "LoKr of PEFT": ({"lokr_w1.default": W1, "lokr_w2.default": W2}, lambda w, s: w + s * torch.kron(W1, W2)),
    "LoHa of PEFT": (
        {f"{name}.default": value for name, value in HADA.items()},
        lambda w, s: w + s * (ONE[0] @ ONE[1]) * (OTHER[0] @ OTHER[1]),
    ),
    "a pair of parameters": ({"lora_A": DOWN, "lora_B": UP}, lambda w, s: w + s * PRODUCT),
    "whole and a pair": (PAIR | {"diff": WHOLE, "alpha": ALPHA}, lambda w, s: w + s * (2 * PRODUCT + WHOLE)),
}  # fmt: skip


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


def test_what_is_not_used_is_counted(applied, caplog):
    tensors = {f"diffusion_model.blocks.0.self_attn.q.{part}": value for part, value in PAIR.items()}
    tensors |= {"lora_te_layers_0_q.lora_down.weight": DOWN.clone(), "strange": torch.ones(1)}
    tensors |= {"diffusion_model.patch_embedding.diff": torch.ones(48, 8, 1, 2, 2)}
    applied(tensors)
    assert "2 of its 5 tensors are not used: text encoder (1), unknown names (1)" in caplog.text
    assert "patch_embedding takes fewer channels than the model's and is left out" in caplog.text


def test_adapters_are_switched_weighted_and_deleted(tiny_pipeline, tmp_path):
    pipe, name = tiny_pipeline, f"{LAYER}.weight"
    before = weights_in_use(pipe.transformer)
    file = {f"lora_unet_blocks_0_self_attn_q.{part}": value for part, value in KINDS["LoHa"][0].items()}
    save_file(file, tmp_path / "lora.safetensors")
    change = KINDS["LoHa"][1](torch.zeros(ROWS, COLUMNS), 1.0)

    def strength():
        difference = weights_in_use(pipe.transformer)[name] - before[name]
        return (difference.norm() / change.norm()).item()

    try:
        for adapter in ("one", "two"):
            pipe.load_lora_weights(tmp_path / "lora.safetensors", adapter_name=adapter)
        pipe.set_adapters(["one", "two"], [0.5, 0.25])
        assert strength() == pytest.approx(0.75, abs=1e-4)
        pipe.disable_lora()
        assert strength() == 0
        pipe.enable_lora()
        assert strength() == pytest.approx(0.75, abs=1e-4)
        pipe.delete_adapters("one")
        assert strength() == pytest.approx(0.25, abs=1e-4)
    finally:
        pipe.unload_lora_weights()
    assert strength() == 0


def test_fuse_and_unfuse_give_the_old_bits(tiny_pipeline, tmp_path):
    before = weights_in_use(tiny_pipeline.transformer)
    file = {f"lora_unet_blocks_0_self_attn_q.{part}": value * 100 for part, value in PAIR.items()}
    save_file(file, tmp_path / "lora.safetensors")
    tiny_pipeline.load_lora_weights(tmp_path / "lora.safetensors")
    for _ in range(2):
        tiny_pipeline.fuse_lora()
        assert not torch.equal(
            dict(tiny_pipeline.transformer.named_parameters())[f"{LAYER}.base_layer.weight"],
            before[f"{LAYER}.weight"],
        )
        tiny_pipeline.unfuse_lora()
    tiny_pipeline.fuse_lora()
    tiny_pipeline.unload_lora_weights()
    after = weights_in_use(tiny_pipeline.transformer)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_after_compiling(tiny_pipeline, tmp_path, monkeypatch):
    file = {f"lora_unet_blocks_0_self_attn_q.{part}": value for part, value in KINDS["DoRA"][0].items()}
    save_file(file, tmp_path / "lora.safetensors")
    plain = tiny_pipeline.transformer
    compiled = torch.compile(plain, backend="eager")
    tiny_pipeline.transformer = compiled
    try:
        tiny_pipeline.load_lora_weights(tmp_path / "lora.safetensors")
        weight = plain.get_parameter(f"{LAYER}.weight").detach().clone()
    finally:
        tiny_pipeline.unload_lora_weights()
        tiny_pipeline.transformer = plain
    torch.testing.assert_close(row_lengths(weight), LENGTHS)


BROKEN = {
    "alpha of the wrong shape": (PAIR | {"alpha": torch.ones(3)}, None, r"q\.alpha is \[3\], expected \[\]"),
    "DoRA of the wrong size": (PAIR | {"dora_scale": torch.ones(7)}, None, r"dora_scale is \[7\]"),
    "alpha that is no number": (PAIR | {"alpha": torch.tensor(math.nan)}, None, "q.alpha is nan"),
    "half of LoHa": ({"hada_w1_a": ONE[0]}, None, "has a hada_w1_a and no hada_w1_b"),
    "half of LoKr": ({"lokr_w1": W1}, None, "has one factor of LoKr and not the other"),
    "LoKr of another size": (
        {"lokr_w1": W1, "lokr_w2": W1.clone()},
        None,
        r"lokr_w2 is \[4, 6\], expected \[12, 8\]",
    ),
    "no JSON": (PAIR, "<html>", "adapter_config.json: does not hold JSON"),
    "no number": (PAIR, '{"r": 4, "lora_alpha": "a lot"}', "is no number"),
    "NaN": (PAIR, '{"r": 4, "lora_alpha": "nan"}', "is no number"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(tiny_pipeline, tmp_path, case):
    tensors, config, message = BROKEN[case]
    file = {f"lora_unet_blocks_0_self_attn_q.{part}": value for part, value in tensors.items()}
    save_file(file, tmp_path / "lora.safetensors")
    if config:
        (tmp_path / "adapter_config.json").write_text(config, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        tiny_pipeline.load_lora_weights(tmp_path / "lora.safetensors")


def test_a_pickle_with_code_is_refused(tiny_pipeline, tmp_path):
    torch.save({"blocks.0.self_attn.q.lora_A.weight": math.sqrt, **PAIR}, tmp_path / "lora.pt")
    with pytest.raises(CheckpointError, match="not only tensors"):
        tiny_pipeline.load_lora_weights(tmp_path / "lora.pt")


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


UNUSABLE = {
    "GLoRA": {f"{part}.weight": DOWN.clone() for part in ("a1", "a2", "b1", "b2")},
    "OFT": {"oft_blocks": torch.ones(4, 12, 12), "alpha": ALPHA},
    "OFT in one tensor": {"oft_R.weight": torch.ones(4, 66)},
    "IA3": {"ia3_l": torch.ones(48, 1)},
    "Tucker factors": {"lora_mid.weight": torch.ones(4, 4, 1, 1), **PAIR},
    "Tucker factors of LoKr": {
        "lokr_w1": W1,
        "lokr_t2": torch.ones(3, 3, 1, 1),
        "lokr_w2_a": W2A,
        "lokr_w2_b": W2B,
    },
    "AdaLoRA": {"lora_A": DOWN, "lora_B": UP, "lora_E": torch.ones(4, 1)},
}


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


def test_a_file_of_such_a_kind_alone(tiny_pipeline, tmp_path):
    file = {f"lora_unet_blocks_0_self_attn_q.{part}": value for part, value in UNUSABLE["GLoRA"].items()}
    save_file(file, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match="holds GLoRA, which cannot be applied"):
        tiny_pipeline.load_lora_weights(tmp_path / "lora.safetensors")


def test_a_model_is_no_lora(tiny_pipeline, tmp_path):
    """Its weights must not be taken for values that PEFT saved."""
    weights = {f"{LAYER}.weight": torch.zeros(ROWS, COLUMNS), f"{LAYER}.bias": torch.zeros(ROWS)}
    save_file(weights, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match="holds whole weights and no LoRA"):
        tiny_pipeline.load_lora_weights(tmp_path / "lora.safetensors")


def test_tensors_of_a_caller_are_read_like_a_file(tiny_pipeline, caplog):
    """Also what diffusers would drop: differences of norms."""
    name, norm = "diffusion_model.blocks.0.self_attn.q", "blocks.0.attn1.norm_q.weight"
    tensors = {f"{name}.{part}": value for part, value in PAIR.items()}
    tensors |= {"diffusion_model.blocks.0.self_attn.norm_q.diff": BIAS, "strange": torch.ones(1)}
    before = weights_in_use(tiny_pipeline.transformer)
    try:
        tiny_pipeline.load_lora_weights(tensors, adapter_name="one")
        after = weights_in_use(tiny_pipeline.transformer)
    finally:
        tiny_pipeline.unload_lora_weights()
    assert changed(before, after) == {f"{LAYER}.weight", norm}
    torch.testing.assert_close(after[norm], before[norm] + BIAS)
    assert "1 of its 4 tensors are not used: unknown names (1)" in caplog.text


def test_a_repository_that_is_not_here(tiny_pipeline):
    with pytest.raises(CheckpointError, match=r"style:x.*not in the cache"):
        tiny_pipeline.load_lora_weights("some/style", weight_name="x.safetensors")
