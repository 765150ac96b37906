"""The Wan transformer as diffusers' users use a model: compiled, exported, trained, cached, from one file."""

import json

import pytest
import torch
from diffusers import (
    AutoModel,
    HunyuanVideoTransformer3DModel,
    SkyReelsV2Transformer3DModel,
    WanTransformer3DModel,
)
from diffusers.hooks import (
    FirstBlockCacheConfig,
    HookRegistry,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
)
from peft import LoraConfig
from safetensors.torch import save_file
from torch._dynamo.testing import CompileCounter

from videogen.errors import CallError, CheckpointError
from videogen.models.components import take_over
from videogen.models.hunyuan.transformer import HunyuanDiT, make_dit
from videogen.models.wan.transformer import WanDiT

SIZES = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "ffn_dim": 32,
    "num_layers": 3,
}
WEIGHTS = "pytorch_lora_weights.safetensors"
IMAGE = {"image_dim": 8, "added_kv_proj_dim": 24}
HUNYUAN = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 10,
    "patch_size": 1,
    "guidance_embeds": True,
    "text_embed_dim": 16,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (2, 4, 4),
}
SPEECH = {"audio_dim": 8, "audio_features": 6, "audio_hidden_dim": 8, "audio_tokens": 4}


@pytest.fixture
def make():
    """Return a function that makes a network, with the same weights for the same arguments."""

    def build(kind=WanDiT, **more):
        torch.manual_seed(0)
        return kind(**{**SIZES, **more}).eval()

    torch.compiler.reset()
    return build


def inputs(timestep=(500.0,), **more):
    generator = torch.Generator().manual_seed(1)
    x, text, image = (
        torch.randn(shape, generator=generator) for shape in ((1, 4, 3, 8, 8), (1, 512, 16), (1, 257, 8))
    )
    given = {"hidden_states": x, "timestep": torch.tensor(timestep), "encoder_hidden_states": text, **more}
    return given | ({"encoder_hidden_states_image": image} if more.pop("image", None) else {})


CASES = {
    "text": ({}, inputs),
    "frame levels": ({}, lambda: inputs([[500.0, 0.0, 0.0]], frame_positions=torch.tensor([0, 1, 1024]))),
    "causal": ({}, lambda: inputs([[500.0, 400.0, 300.0]], visible_frames=[1, 2, 3])),
    "image": (IMAGE, lambda: inputs() | {"encoder_hidden_states_image": torch.ones(1, 257, 8)}),
    "frame rate": ({"inject_sample_info": True}, lambda: inputs(fps=torch.tensor([1]))),
    "two speakers": (
        SPEECH,
        lambda: inputs(
            encoder_hidden_states_audio=torch.ones(2, 9, 5, 2, 3),
            speaker_masks=(torch.arange(192).view(3, 8, 8) % 3 == 0).float(),
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_it_is_one_graph(make, case):
    more, given = CASES[case]
    model, given = make(**more, num_layers=1), given()
    expected = model(**given).sample
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    torch.testing.assert_close(compiled(**given).sample, expected, atol=1e-5, rtol=1e-5)
    other = dict(given)
    for name in {"timestep", "frame_positions"} & given.keys():  # other values are no other graph
        other[name] = given[name] + 3
    torch.testing.assert_close(compiled(**other).sample, model(**other).sample, atol=1e-5, rtol=1e-5)
    assert counter.frame_count == 1
    exported = torch.export.export(model, args=(), kwargs=given).module()
    torch.testing.assert_close(exported(**given).sample, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_swapping_a_lora_compiles_nothing_anew(make, tmp_path):
    given, results = inputs(), []
    for rank in (3, 5):
        donor = make(num_layers=1)
        torch.manual_seed(rank)
        donor.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, target_modules=["to_q", "to_v"], init_lora_weights=False)
        )
        donor.save_lora_adapter(tmp_path / str(rank))
        results.append(donor(**given).sample)
    model, counter = make(num_layers=1), CompileCounter()
    model.enable_lora_hotswap(target_rank=5)
    model.load_lora_adapter(tmp_path / "3" / WEIGHTS, adapter_name="style", prefix=None)
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    torch.testing.assert_close(compiled(**given).sample, results[0], atol=1e-5, rtol=1e-5)
    model.load_lora_adapter(tmp_path / "5" / WEIGHTS, adapter_name="style", prefix=None, hotswap=True)
    torch.testing.assert_close(compiled(**given).sample, results[1], atol=1e-5, rtol=1e-5)
    assert counter.frame_count == 1


@pytest.mark.parametrize("more", [{}, SPEECH])
def test_checkpointing_changes_no_gradient(make, more):
    given = inputs()
    if more:
        given["encoder_hidden_states_audio"] = torch.ones(1, 9, 5, 2, 3)
    gradients, runs = [], []
    for checkpointed in (False, True):
        model = make(**more).train()
        model.blocks[0].register_forward_pre_hook(lambda *_: runs.append(1))
        if checkpointed:
            model.enable_gradient_checkpointing()
        model(**given).sample.square().mean().backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
        model.disable_gradient_checkpointing()
        model(**given)
    assert len(runs) == 2 + 3  # the checkpointed block ran again for its gradients
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_a_network_trains_after_inference(make):
    model = make()
    with torch.inference_mode():
        model(**inputs())
    model.train()(**inputs()).sample.mean().backward()
    assert model.blocks[0].attn1.to_q.weight.grad is not None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"image_dim": 8, "added_kv_proj_dim": 12}, "added_kv_proj_dim=12: must be 24"),
        ({"added_kv_proj_dim": 24}, "must be None without image_dim"),
    ],
)
def test_image_attention_has_the_width_of_the_tokens(more, said):
    with pytest.raises(ValueError, match=said):
        WanDiT(**SIZES, **more)


STEP_CACHES = {
    "first block": FirstBlockCacheConfig(threshold=1.0),
    "magnitudes": MagCacheConfig(
        num_inference_steps=2, retention_ratio=0.0, threshold=100.0, mag_ratios=[1.0, 1.0]
    ),
    "TaylorSeer": TaylorSeerCacheConfig(cache_interval=3, disable_cache_before_step=1),
    "TaylorSeer lite": TaylorSeerCacheConfig(
        cache_interval=3, disable_cache_before_step=1, use_lite_mode=True
    ),
    "pyramid": PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500
    ),
}


@pytest.mark.parametrize("name", STEP_CACHES)
@torch.no_grad()
def test_caches_of_diffusers_skip_and_leave(make, name):
    model, first = make(), inputs()
    second = first | {"hidden_states": first["hidden_states"] * 1.5}
    exact = model(**second).sample
    runs = []
    model.blocks[1].attn1.to_q.register_forward_hook(lambda *_: runs.append(1))
    model.enable_cache(STEP_CACHES[name])
    with model.cache_context("cond"):
        model(**first)
        cached = model(**second).sample
    assert len(runs) == 1
    assert (cached - exact).abs().max() > 1e-4
    model.disable_cache()
    assert torch.equal(model(**second).sample, exact)


def test_pyramid_broadcast_knows_self_from_cross_attention(make):
    """Each has a range of its own, as on diffusers' network."""
    hook, hooked = "pyramid_attention_broadcast", {}
    for kind in ("spatial", "cross"):
        model = make(**SPEECH)
        config = PyramidAttentionBroadcastConfig(current_timestep_callback=lambda: 500)
        setattr(config, f"{kind}_attention_block_skip_range", 2)
        model.enable_cache(config)
        hooked[kind] = [
            name
            for name, module in model.blocks[0].named_modules()
            if hasattr(module, "_diffusers_hook")
            and HookRegistry.check_if_exists_or_initialize(module).get_hook(hook) is not None
        ]
    assert hooked == {"spatial": ["attn1"], "cross": ["attn2", "audio_cross_attn"]}


THEIRS = {
    "Wan": (WanTransformer3DModel, {}),
    "Wan with an image": (WanTransformer3DModel, IMAGE),
    "image beside the text": (WanTransformer3DModel, {"image_dim": 8}),
    "first and last image": (WanTransformer3DModel, IMAGE | {"pos_embed_seq_len": 514}),
    "frame rate": (SkyReelsV2Transformer3DModel, {"inject_sample_info": True}),
}


@pytest.mark.parametrize("case", THEIRS)
@torch.no_grad()
def test_a_transformer_of_diffusers_is_taken_over(make, case):
    kind, more = THEIRS[case]
    theirs = make(kind, **more)
    ours = take_over(theirs)
    assert type(ours) is WanDiT
    assert not ours.training
    where = {name: tensor.data_ptr() for name, tensor in theirs.state_dict().items()}
    assert {name: tensor.data_ptr() for name, tensor in ours.state_dict().items()} == where  # no copies
    given = inputs()
    if "image_dim" in more:
        images = 2 if "pos_embed_seq_len" in more else 1
        given["encoder_hidden_states_image"] = torch.linspace(0, 1, 257 * 8 * images).view(images, 257, 8)
    fps = [{}, {}] if kind is WanTransformer3DModel else [{"fps": torch.tensor([1])}, {"fps": [1]}]
    torch.testing.assert_close(
        ours(**given, **fps[0]).sample, theirs(**given, **fps[1]).sample, atol=2e-5, rtol=2e-5
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"cross_attn_norm": False}, r"missing blocks\.0\.norm2\.weight"),
    ],
)
def test_what_ours_cannot_hold_is_not_taken_over(make, more, said):
    with pytest.raises(CheckpointError, match=said):
        take_over(make(WanTransformer3DModel, **more))


def test_hooks_are_not_lost_in_silence(make):
    theirs = make(WanTransformer3DModel)
    theirs.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    with pytest.raises(CheckpointError, match="has hooks of diffusers"):
        take_over(theirs)


@torch.no_grad()
def test_one_file_is_read_as_diffusers_reads_it(make, tmp_path):
    """From a file, a folder or a state dict; heads that are not 128 wide are said by a config."""
    model = make()
    expected = model(**inputs()).sample
    state = {f"model.diffusion_model.{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "wan.safetensors")
    (tmp_path / "config" / "transformer").mkdir(parents=True)
    config = {"_class_name": "WanTransformer3DModel", **SIZES}
    (tmp_path / "config" / "transformer" / "config.json").write_text(json.dumps(config))
    heads = {"config": str(tmp_path / "config"), "subfolder": "transformer"}
    for source in (state, tmp_path / "wan.safetensors", str(tmp_path / "wan.safetensors")):
        loaded = WanDiT.from_single_file(source, dtype=torch.float32, device="cpu", **heads)
        torch.testing.assert_close(loaded(**inputs()).sample, expected)
    assert WanDiT.from_single_file(state, **heads).blocks[0].ffn.net[2].weight.dtype == torch.bfloat16
    with pytest.raises(CheckpointError, match="state dict: its config does not describe"):
        WanDiT.from_single_file(state)
    with pytest.raises(CallError, match="quantization_config=: is no argument"):
        WanDiT.from_single_file("https://huggingface.co/a/b/blob/main/c.safetensors", quantization_config={})


def test_diffusers_opens_what_it_can_hold(make, tmp_path):
    for more, kind in (({}, WanTransformer3DModel), (IMAGE, WanTransformer3DModel)):
        make(**more).save_pretrained(tmp_path / "saved")
        assert type(AutoModel.from_pretrained(str(tmp_path / "saved"))) is kind
        again = WanDiT.from_pretrained(tmp_path / "saved")
        assert {name: again.config[name] for name in SIZES} == SIZES
    for more in (SPEECH, {"inject_sample_info": True}):
        make(**more).save_pretrained(tmp_path / "own")
        assert json.loads((tmp_path / "own/config.json").read_text())["_class_name"] == "WanDiT"
    hunyuan = HunyuanDiT(num_layers=1, num_single_layers=1, num_refiner_layers=1, **HUNYUAN)
    hunyuan.save_pretrained(tmp_path / "hunyuan")
    assert type(AutoModel.from_pretrained(str(tmp_path / "hunyuan"))) is HunyuanVideoTransformer3DModel


@pytest.mark.slow
@torch.no_grad()
def test_the_other_network_is_one_graph():
    torch.compiler.reset()
    model = make_dit({**HUNYUAN, "num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 1}).eval()
    given = {
        "hidden_states": torch.randn(1, 4, 2, 8, 8),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 6, 16),
        "encoder_attention_mask": torch.ones(1, 6),
        "pooled_projections": torch.randn(1, 8),
        "guidance": torch.tensor([6000.0]),
    }
    expected = model(**given).sample
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**given).sample, expected, atol=1e-5, rtol=1e-5)
    exported = torch.export.export(model, args=(), kwargs=given).module()
    torch.testing.assert_close(exported(**given).sample, expected, atol=1e-5, rtol=1e-5)
