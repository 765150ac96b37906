"""``python -m benchmarks.simulate``: what it prints of one job, and its table."""

import re

import pytest

from benchmarks import simulate
from tests.simulated.guard import has_compiler
from tests.simulated.ledger import Kernel
from tests.simulated.roofline import part_of
from videogen.errors import InputError

SMALL = ("image_to_video", {"model_id": "Skywork/SkyReels-V2-I2V-1.3B-540P"})


@pytest.mark.parametrize(
    ("name", "functions", "part"),
    [
        ("_scaled_dot_product_cudnn_attention", "", "attention"),
        ("addmm", "WanAttention.forward", "products"),
        ("copy for a convolution", "", "convolutions"),
        ("mul_", "apply_rotary < WanAttention.forward", "rotary"),
        ("rms_norm_rotary", "", "rotary"),
        ("clone", "_native_cudnn_attention < dispatch_attention_fn", "attention copies"),
        ("add_layer_norm", "WanBlock.forward", "norms"),
        ("addcmul", "gated_residual < WanBlock.forward", "residuals"),
        ("gelu_", "WanFeedForward.forward", "activation"),
        ("constant_pad_nd", "WanCausalConv3d.forward", "padding and joins"),
        ("add", "UniPC.step", "rest"),
    ],
)
def test_parts_of_a_network(name, functions, part):
    assert part_of(Kernel("denoise", 1, name, "", functions, "half", 0, 0)) == part


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="needs g++ for the device guard")
def test_a_report(capsys, monkeypatch):
    task, options = SMALL
    words = ["simulate", task, "--model_id", options["model_id"], "--gpu", "4090", "--frames", "5"]
    monkeypatch.setattr("sys.argv", [*words, "--num_inference_steps", "10"])
    simulate.main()
    out = capsys.readouterr().out
    assert re.search(r"^peak memory: 1\d\.\d GB; --dry_run says", out, re.MULTILINE)
    for line in (
        "one forward",
        "the whole video, 10 steps, 20 forwards",
        "synchronisations",
        "copies",
        "Not seen",
    ):
        assert f"\n{line}" in out
    for part in ("attention", "products", "norms", "rotary", "decode", "vae encode"):
        assert re.search(rf"^  {part} +[\d.]+ +[\d.]+% ", out, re.MULTILINE), part


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="needs g++ for the device guard")
def test_a_table(monkeypatch):
    monkeypatch.setattr(simulate, "FAMILIES", (("small", *SMALL),))
    monkeypatch.setattr(simulate, "MODES", {"plain": {}, "offload": {"offload": True}})
    header, line, row, _, note = simulate.table(simulate.GPUS["H100"], frames=5)
    assert header.count("|") == line.count("|") == row.count("|")
    assert re.search(r"\| small \| 1\d\.\d / 1\d\.\d \([+-]\d\.\d%", row)
    assert note.startswith("On one H100. Not seen: fragmentation")


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--foo", "3"], "--foo"), (["--size", "1*x"], "--size"), (["--num_frames=ten"], "ten")],
)
def test_flags_are_those_of_the_command_line(words, said):
    with pytest.raises(InputError, match=said):
        simulate.options_of(words)


def test_flags_may_have_an_equals_sign():
    assert simulate.options_of(["--size=960*544", "--offload"]) == {"size": "960*544", "offload": True}
