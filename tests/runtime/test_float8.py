"""Float8 products: which layers take part, and, with torchao's look at the GPU left out, that they work."""

import pytest
import torch
from torch import nn

from videogen.errors import InputError
from videogen.models.wan.transformer import FLOAT32_PARTS, WanDiT
from videogen.runtime import float8

CPU = torch.device("cpu")
SMALL = {"num_attention_heads": 2, "attention_head_dim": 32, "ffn_dim": 64, "freq_dim": 32, "text_dim": 16}


def small(**options):
    """A bfloat16 transformer with its float32 parts."""
    torch.manual_seed(0)
    model = WanDiT(**{**SMALL, "num_layers": 4, **options})
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=0.15)
        if not any(part in name for part in FLOAT32_PARTS):
            parameter.data = parameter.data.bfloat16()
    return model.eval()


def names(model):
    return [names for _, names in float8.convertible_layers(model)]


ATTENTION = [
    f"{attn}.{layer}" for attn in ("attn1", "attn2") for layer in ("to_q", "to_k", "to_v", "to_out.0")
]
FEED_FORWARD = ["ffn.net.0.proj", "ffn.net.2"]


def test_layers_of_all_blocks_but_the_first_and_the_last():
    model = small()
    assert [block for block, _ in float8.convertible_layers(model)] == list(model.blocks)[1:3]
    assert names(model) == [[*ATTENTION, *FEED_FORWARD]] * 2


def test_image_and_audio_layers_take_part():
    model = small(image_dim=16, added_kv_proj_dim=64, audio_dim=16, audio_features=16, audio_hidden_dim=16)
    (found, _) = names(model)
    more = {"attn2.add_k_proj", "attn2.add_v_proj"}
    more |= {f"audio_cross_attn.{layer}" for layer in ("q_linear", "kv_linear", "proj")}
    assert set(found) == {*ATTENTION, *FEED_FORWARD, *more}


def test_hunyuan_keeps_its_modulation():
    from diffusers import HunyuanVideoTransformer3DModel

    model = HunyuanVideoTransformer3DModel(
        **{"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "num_single_layers": 3},
        **{"num_refiner_layers": 1, "text_embed_dim": 8, "pooled_projection_dim": 8},
        rope_axes_dim=(8, 4, 4),
        image_condition_type="token_replace",
    )
    double, *single = names(model)
    assert len(single) == 2
    assert not [name for name in (*double, *single[0]) if "norm" in name]
    assert "norm.linear" in dict(model.single_transformer_blocks[0].named_modules())
    assert {"attn.to_q", "attn.add_q_proj", "ff.net.2", "ff_context.net.0.proj"} <= set(double)
    assert {"attn.to_q", "proj_mlp", "proj_out"} <= set(single[0])


def test_of_a_lora_only_the_layer_that_it_changes():
    from peft import LoraConfig

    model = small()
    model.add_adapter(LoraConfig(r=16, target_modules=["to_q"]))
    (found, _) = names(model)
    assert "attn1.to_q.base_layer" in found
    assert not [name for name in found if "lora" in name]
    assert len(found) == 10


def test_odd_sizes_stay():
    assert names(small(ffn_dim=72)) == [[*ATTENTION]] * 2


@pytest.fixture
def anywhere(monkeypatch):
    """torchao asks for a GPU; what it then does runs on a CPU as well, slowly."""
    quant_api = pytest.importorskip("torchao.quantization.quant_api")
    monkeypatch.setattr(quant_api, "_check_hardware_support", lambda granularity: None)


@torch.no_grad()
def test_it_computes_nearly_the_same(anywhere):
    model = small()
    generator = torch.Generator().manual_seed(0)
    latents, text = (torch.randn(*shape, generator=generator) for shape in ((1, 16, 2, 8, 8), (1, 8, 16)))

    def call():
        return model(latents.bfloat16(), torch.tensor([[500]]), text.bfloat16(), return_dict=False)[0].float()

    exact = call()
    float8.quantize(model, CPU)
    assert 0 < (call() - exact).norm() / exact.norm() < 0.1
    kinds = [type(block.ffn.net[2].weight.data).__name__ for block in model.blocks]
    assert kinds == ["Tensor", "Float8Tensor", "Float8Tensor", "Tensor"]
    assert type(model.proj_out.weight.data) is torch.Tensor
    assert not names(model)[0]  # all done


def test_nothing_to_convert_is_an_error(anywhere):
    with pytest.raises(InputError, match=r"--float8_matmul: no layer of this model"):
        float8.quantize(small(num_layers=2), CPU)


def test_devices_that_cannot(monkeypatch):
    with pytest.raises(
        InputError, match=r"--float8_matmul: needs a GPU of compute capability 8\.9 or more, not cpu"
    ):
        float8.check(CPU)
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(InputError, match=r"or more; NVIDIA A100 has 8\.0; leave it out"):
        float8.check(cuda)
    for capability in ((8, 9), (9, 0), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        float8.check(cuda)
