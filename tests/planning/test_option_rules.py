"""Runtime options: what does not go together, what is not installed, and warnings."""

import pytest

from videogen.errors import InputError
from videogen.planning import option_rules
from videogen.tasks.options import Options

OPTIONS = Options(guidance_scale=1.0, num_inference_steps=4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cache": "taylorseer:5", "compile": True}, "--cache taylorseer: .*--compile; use taylorseer_lite"),
        ({"cache": "first_block:0.1", "use_usp": True}, "--cache first_block: .*--use_usp; use magcache"),
        ({"cache": "magcache:calibrate", "use_usp": True}, "--cache magcache:calibrate: .*on one GPU"),
        ({"float8_matmul": True, "dtype": "float32"}, "--float8_matmul: needs bfloat16.*--dtype bfloat16"),
        ({"float8_matmul": True, "device": "cpu"}, "--float8_matmul: needs a GPU .*8.9.*, not cpu"),
        ({"attention_backend": "cudnn", "device": "cpu"}, "cudnn: does not run on cpu; use native"),
    ],
)
def test_what_does_not_go_together(values, message):
    with pytest.raises(InputError, match=message):
        option_rules.check(OPTIONS.replace(**values))


@pytest.mark.parametrize(
    "values",
    [
        {"cache": "taylorseer_lite:5", "compile": True},
        {"cache": "magcache:0.1", "use_usp": True},
        {"cache": "first_block:0.1", "compile": True},
        {"float8_matmul": True},
    ],
)
def test_what_does(values):
    option_rules.check(OPTIONS.replace(**values))


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({}, ["offload", "low_vram"]),
        ({"offload": True}, ["low_vram"]),
        ({"low_vram": True}, []),
        ({"quantize": "int8"}, ["offload"]),
        ({"use_usp": True}, ["offload"]),
        ({"float8_matmul": True}, []),
    ],
)
def test_what_may_be_added(given, left):
    options = OPTIONS.replace(**given)
    assert [name for name in ("offload", "low_vram") if option_rules.may_be_added(name, options)] == left


@pytest.mark.parametrize("name", option_rules.PACKAGES)
def test_a_kernel_that_is_not_installed(monkeypatch, name):
    monkeypatch.setattr(option_rules, "find_spec", lambda module: None)
    package = option_rules.PACKAGES[name]
    with pytest.raises(InputError, match=f"{name}: needs the package {package.module}") as refused:
        option_rules.check(OPTIONS.replace(attention_backend=name))
    assert package.how in str(refused.value)
    with pytest.raises(InputError, match=r"--float8_matmul: needs the package torchao.*pip install"):
        option_rules.check(OPTIONS.replace(float8_matmul=True))


def test_warnings():
    def count(**values):
        return len(list(option_rules.warnings(OPTIONS.replace(**values))))

    lcm = {"sample_solver": "lcm", "lora": ("x",)}
    assert count() == count(**lcm) == 0
    assert count(sample_solver="lcm") == 1
    assert count(**lcm, guidance_scale=5.0) == count(**lcm, guidance_scale=(1.0, 3.0)) == 1
    assert count(**lcm, num_inference_steps=50) == 1
    assert count(float8_matmul=True) == 1
    assert count(float8_matmul=True, compile=True) == 0
