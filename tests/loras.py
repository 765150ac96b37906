"""LoRA tensors of every kind for one layer, and the weights in use that they lead to."""

import re

import torch

LAYER, ROWS, COLUMNS = "blocks.0.attn1.to_q", 48, 48


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


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


DOWN, UP = numbers(4, COLUMNS), numbers(ROWS, 4)
PRODUCT = UP @ DOWN


# What states the strength: (tensors besides the pair, header, adapter_config.json, factor).
ALPHA = torch.tensor(8.0)
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
