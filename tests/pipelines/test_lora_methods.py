"""Adapters on a pipeline: switched, weighted, fused and removed; and files that are refused."""

import math

import pytest
import torch
from safetensors.torch import save_file

from tests.loras import (
    BIAS,
    COLUMNS,
    KINDS,
    LAYER,
    ONE,
    PAIR,
    ROWS,
    UNUSABLE,
    UP,
    W1,
    WHOLE,
    changed,
    numbers,
    weights_in_use,
)
from videogen.errors import CheckpointError


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["DoRA", "a pair of parameters"])
def test_after_compiling(tiny_pipeline, tmp_path, kind):
    """The compiled forward sees what is loaded after it was compiled, and what is unloaded."""
    file = {f"lora_unet_blocks_0_self_attn_q.{part}": value for part, value in KINDS[kind][0].items()}
    save_file(file, tmp_path / "lora.safetensors")
    plain, text_width = tiny_pipeline.transformer, tiny_pipeline.transformer.config.text_dim
    compiled = torch.compile(plain, backend="eager")

    @torch.no_grad()
    def forward(model):
        return model(numbers(1, 16, 2, 4, 4), torch.tensor([500.0]), numbers(1, 5, text_width))[0]

    without = forward(compiled)
    tiny_pipeline.transformer = compiled
    try:
        tiny_pipeline.load_lora_weights(tmp_path / "lora.safetensors")
        with_lora = forward(compiled)
        torch.testing.assert_close(with_lora, forward(plain))
        assert (with_lora - without).abs().max() > 0.1
    finally:
        tiny_pipeline.unload_lora_weights()
        tiny_pipeline.transformer = plain
    torch.testing.assert_close(forward(compiled), without)


BROKEN = {
    "alpha of the wrong shape": (PAIR | {"alpha": torch.ones(3)}, None, r"q\.alpha is \[3\], expected \[\]"),
    "DoRA of the wrong size": (PAIR | {"dora_scale": torch.ones(7)}, None, r"dora_scale is \[7\]"),
    "alpha that is no number": (
        PAIR | {"alpha": torch.tensor(math.nan)},
        None,
        "infinite values in .*q.alpha;",
    ),
    "infinite values": (
        PAIR | {"lora_up.weight": torch.full_like(UP, math.inf)},
        None,
        "lora.safetensors: NaN or infinite values in lora_unet_blocks_0_self_attn_q.lora_up.weight;",
    ),
    "NaN in one number": (
        {"diff": WHOLE.index_fill(1, torch.tensor([3]), math.nan), "diff_b": torch.full_like(BIAS, math.nan)},
        None,
        r"NaN or infinite values in \S+diff_?b?, \S+diff_?b?; is it whole",
    ),
    "half of LoHa": ({"hada_w1_a": ONE[0]}, None, "has a hada_w1_a and no hada_w1_b"),
    "half of LoKr": ({"lokr_w1": W1}, None, "has one factor of LoKr and not the other"),
    "LoKr of another size": (
        {"lokr_w1": W1, "lokr_w2": W1.clone()},
        None,
        r"lokr_w2 is \[4, 6\], expected \[12, 8\]",
    ),
    "no JSON": (PAIR, "<html>", "adapter_config.json: does not hold JSON"),
    "no number": (PAIR, '{"r": 4, "lora_alpha": "a lot"}', "is no number"),
    "nothing": ({}, None, "holds no table of tensors"),
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


EMPTY = {
    "untrained pair": PAIR | {"lora_up.weight": torch.zeros_like(UP), "alpha": torch.tensor(8.0)},
    "zeros": {"diff": torch.zeros_like(WHOLE), "diff_b": torch.zeros_like(BIAS)},
    "float8 zeros": {name: torch.zeros_like(one).to(torch.float8_e4m3fn) for name, one in PAIR.items()},
}


@pytest.mark.parametrize("case", EMPTY)
def test_a_file_without_effect_is_noticed(tiny_pipeline, tmp_path, caplog, case):
    layer = "lora_unet_blocks_0_self_attn_q"
    zero = {f"{layer}.{part}": value for part, value in EMPTY[case].items()}
    save_file(zero, tmp_path / "lora.safetensors")
    tiny_pipeline.load_lora_weights(tmp_path / "lora.safetensors")
    tiny_pipeline.unload_lora_weights()
    said = "--lora lora.safetensors has no effect: what it adds is all zero"
    assert [record.message for record in caplog.records].count(said) == 1

    caplog.clear()
    second = {f"{layer.replace('0', '1')}.{part}": value.clone() for part, value in KINDS["LoHa"][0].items()}
    save_file(zero | second, tmp_path / "lora.safetensors")  # one layer that has an effect
    tiny_pipeline.load_lora_weights(tmp_path / "lora.safetensors")
    tiny_pipeline.unload_lora_weights()
    assert "no effect" not in caplog.text


def test_a_pickle_with_code_is_refused(tiny_pipeline, tmp_path):
    torch.save({"blocks.0.self_attn.q.lora_A.weight": math.sqrt, **PAIR}, tmp_path / "lora.pt")
    with pytest.raises(CheckpointError, match="not only tensors"):
        tiny_pipeline.load_lora_weights(tmp_path / "lora.pt")


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
