"""Options that are not the default, options that differ, options to arrange by."""

import pytest

from tests.review.results import write_result
from videogen.errors import InputError
from videogen.review.found import find
from videogen.review.settings import axis, changed_options, differences, shown, values_of

A14B = {"model_id": "Wan-AI/Wan2.2-T2V-A14B", "num_inference_steps": 40, "shift": 12.0}


@pytest.fixture
def made(tmp_path):
    """Return a function that makes a result with these options."""
    numbers = iter(range(99))

    def make(record=None, **request):
        path = write_result(tmp_path, f"{next(numbers)}.npy", request=request, record=record)
        return find("--show", str(path))

    return make


def test_only_what_is_not_the_default_of_task_and_model(made):
    usual = {"height": 32, "width": 32, "guidance_scale": 6.0, "fps": 24, "dtype": "bfloat16"}
    found = made(**usual, offload=True, num_inference_steps=4)
    changed = {name: (default, value) for name, default, value in changed_options(found)}
    assert changed == {
        **{"height": (None, 32), "width": (None, 32)},
        **{"num_inference_steps": (30, 4), "offload": (False, True)},
    }
    assert changed_options(made(**A14B)) == [], "those of its own model"
    local = {"model_id": "local:mine", "num_inference_steps": 40, "shift": 12.0}
    layout = {"model": {"id": "mine", "layout": "Wan2.2 A14B"}}
    assert {each.name for each in changed_options(made(**local))} == {"num_inference_steps", "shift"}
    assert layout


def test_differences(made):
    one, other = made(seed=1, shift=5.0, offload=False), made(seed=2, shift=5, lora=["a:1"])
    assert [tuple(each) for each in differences(one, other)] == [("seed", 1, 2), ("lora", None, ["a:1"])]
    assert differences(one, one) == []


def test_values_are_shown_as_they_are_typed():
    values = (5.0, 0.25, True, False, None, [1.5, 2], ["a", "b"], "text", 3)
    assert [*map(shown, values)] == ["5", "0.25", "on", "off", "not set", "1.5,2", "a,b", "text", "3"]


def test_values_are_in_order(made):
    results = [made(shift=shift) for shift in (12.0, 5.0, 5, 8.5)]
    assert values_of("shift", results) == ["5", "8.5", "12"]
    results = [made(prompt=prompt) for prompt in ("b", "10", "a")]
    assert values_of("prompt", results) == ["10", "a", "b"]


@pytest.mark.parametrize("given", ["num_inference_steps", "--num-inference-steps", "sample_steps"])
def test_an_option_may_be_named_as_its_flags_are(made, given):
    assert axis("--rows", given, [made()]) == "num_inference_steps"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("shfit", "--rows shfit: is not an option; nearest shift"),
        ("bananas", "--rows bananas: is not an option; these results differ in seed, shift"),
        ("output", "--rows output: is not recorded with results; these results differ in seed, shift"),
        ("jobs", "--rows jobs: is not recorded with results; these results differ in seed, shift"),
        ("audio", "--rows audio: none of these results has it; these results differ in seed, shift"),
    ],
)
def test_an_option_that_cannot_be_arranged_by(made, given, complaint):
    with pytest.raises(InputError, match=complaint):
        axis("--rows", given, [made(seed=1), made(seed=2, shift=3.0)])
