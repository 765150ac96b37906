"""Roles of the tensors of LoRA files, and what is wrong with a layer."""

import pytest

from videogen.checkpoints.lora_layers import (
    ROLE,
    Layer,
    by_columns,
    changed_twice,
    problems_of,
    takes_fewer_channels,
)

ROLES = {
    "q.lora_A.weight": "down",
    "q.lora_B.default.weight": "up",
    "q.lora_down.weight": "down",
    "q.lora.up.weight": "up",
    "q.lora_linear_layer.down.weight": "down",
    "q.lora_B.bias": "up_bias",
    "q.dora_scale": "magnitude",
    "q.lora_magnitude_vector.default": "magnitude",
    "q.alpha": "alpha",
    "q.diff": "whole",
    "q.diff_b": "bias",
    "q.diff_m": "modulation",
    "q.lokr_w1": "left",
    "q.lokr_w2_b": "right_b",
    "q.hada_w1_a": "one_a",
    "q.hada_w2_b.default": "two_b",
    "q.modules_to_save.default.weight": "value",
    "q.set_weight": "value",
    "q.bias": "value_bias",
}
MODEL = {"q.weight": (6, 4), "q.bias": (6,), "k.weight": (6, 4)}


def layer(weights=("q.weight",), biases=(), published="q", **keys):
    return Layer(name="l", published=published, weights=weights, biases=biases, modulation=(), keys=keys)


@pytest.mark.parametrize("name", ROLES)
def test_roles(name):
    assert ROLE.search(name).lastgroup == ROLES[name]


@pytest.mark.parametrize("name", ["q.lora_mid.weight", "q.oft_blocks", "q.lora_E"])
def test_other_tensors_have_no_role(name):
    found = ROLE.search(name)
    assert found is None or found.lastgroup == "value"


PROBLEMS = {
    "fits": ({"down": (2, 4), "up": (6, 2)}, []),
    "as a kernel": ({"down": (2, 4, 1, 1), "up": (6, 2, 1, 1)}, []),
    "alone": ({"down": (2, 4)}, ["l has a lora_down and no lora_up"]),
    "half of LoKr": ({"left": (2, 2)}, ["l has one factor of LoKr and not the other"]),
    "LoKr": ({"left": (2, 2), "right": (3, 2)}, []),
    "LoKr of products": (
        {"left": (2, 2), "right_a": (3, 1), "right_b": (1, 3)},
        ["right_b is [1, 3], expected [1, 2]"],
    ),
    "ranks": ({"down": (2, 4), "up": (6, 3)}, ["up is [6, 3], expected [6, 2]"]),
    "columns": ({"down": (2, 5), "up": (6, 2)}, ["down is [2, 5], expected [2, 4]"]),
    "bias": ({"down": (2, 4), "up": (6, 2), "up_bias": (6,)}, ["l has a bias, and the model's has none"]),
    "magnitudes of columns": ({"down": (2, 4), "up": (6, 2), "magnitude": (1, 4)}, []),
    "magnitudes": ({"down": (2, 4), "up": (6, 2), "magnitude": (4,)}, ["magnitude is [4], expected [6]"]),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_problems(case):
    shapes, problems = PROBLEMS[case]
    assert [*problems_of(layer(**{role: role for role in shapes}), shapes, MODEL)] == problems


def test_several_parameters_are_one_below_the_other():
    both = layer(weights=("q.weight", "k.weight"), down="down", up="up")
    assert [*problems_of(both, {"down": (2, 4), "up": (12, 2)}, MODEL)] == []
    assert [*problems_of(both, {"down": (2, 4), "up": (6, 2)}, MODEL)] == ["up is [6, 2], expected [12, 2]"]


def test_one_parameter_has_one_layer():
    first, second = layer(down="a"), layer(weights=("k.weight", "q.weight"), down="b")
    assert [*changed_twice([first, first])] == []  # the same name
    other = Layer(name="m", published="m", weights=second.weights, biases=(), modulation=(), keys={})
    assert [*changed_twice([first, other])] == ["l and m both change q.weight"]


def test_a_patch_embedding_without_image_channels():
    model = {"patch_embedding.weight": (6, 36, 1, 2, 2)}
    narrow = layer(weights=tuple(model), published="patch_embedding", whole="w")
    assert takes_fewer_channels(narrow, {"w": (6, 16, 1, 2, 2)}, model)
    assert not takes_fewer_channels(narrow, {"w": (6, 36, 1, 2, 2)}, model)


def test_pairs_and_magnitudes():
    assert layer(down="a", up="b", alpha="c").is_pair
    assert not layer(down="a", up="b", magnitude="c").is_pair
    assert by_columns((1, 4), (4,))
    assert not by_columns((4, 1), (4,))
