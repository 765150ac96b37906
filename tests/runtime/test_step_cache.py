"""diffusers' step caches on small transformers: what is left out, what begins anew, what stays as it was."""

import pytest
import torch
from torch import nn

from videogen.models.wan.transformer import WanDiT
from videogen.runtime import memory
from videogen.runtime.block_streaming import stream
from videogen.runtime.component_offload import Copier
from videogen.runtime.step_cache import CONFIGS, DiffusersCache
from videogen.tasks.step_caches import KINDS

ALL = {"first_block": 1e9, "magcache": 1e9, "taylorseer": 3, "taylorseer_lite": 3}
FLAT = {"steps": 6, "transformers": [{"cond": [1.0] * 6, "uncond": [1.0] * 6}]}
STEPS = (1000, 999, 998, 997, 996, 995)


def test_every_kind_has_a_config():
    assert list(KINDS) == list(CONFIGS)


def small():
    torch.manual_seed(0)
    model = WanDiT(
        num_attention_heads=2, attention_head_dim=24, ffn_dim=64, num_layers=3, freq_dim=32, text_dim=16
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def transformer():
    return small()


class Scene:
    """Calls a transformer as the pipelines do, levels for all frames alike or one for each."""

    def __init__(self, frames=2):
        generator = torch.Generator().manual_seed(frames)
        self.latents = torch.randn(1, 16, frames, 4, 4, generator=generator)
        self.texts = {name: torch.randn(1, 8, 16, generator=generator) for name in ("cond", "uncond")}

    @torch.no_grad()
    def __call__(self, model, level, branch="cond"):
        level = level if isinstance(level, torch.Tensor) else torch.tensor([[level]])
        with model.cache_context(branch):
            return model(
                hidden_states=self.latents * (1 + float(level.float().mean()) / 1000),
                timestep=level,
                encoder_hidden_states=self.texts[branch],
                return_dict=False,
            )[0]


def with_cache(model, name, threshold=None, ratios=FLAT):
    models = model if isinstance(model, list) else [model]
    given = ALL[name] if threshold is None else threshold
    return DiffusersCache(models, name, given, dtype=torch.float32, ratios=ratios)


@pytest.fixture
def attention_runs(transformer):
    """How often the last block's attention has really computed, as a list that grows."""
    runs = []
    transformer.blocks[-1].attn1.to_q.register_forward_hook(lambda *_: runs.append(1))
    return runs


@pytest.mark.parametrize(
    ("name", "computed"),
    [("first_block", 1), ("magcache", 2), ("taylorseer", 4), ("taylorseer_lite", 4)],
)
def test_a_cache_really_skips(transformer, attention_runs, name, computed):
    """In every branch alike. TaylorSeer: steps 0, 1, 2, then every third from 4 on; MagCache: the first
    fifth, and no more than three in a row left out."""
    scene = Scene()
    exact = [scene(transformer, level, branch) for level in STEPS for branch in scene.texts]
    attention_runs.clear()
    cache = with_cache(transformer, name)
    for _ in range(2):  # a loop begins anew
        cache.start_loop(len(STEPS))
        made = [scene(transformer, level, branch) for level in STEPS for branch in scene.texts]
        cache.end_loop()
    assert (cache.computed, cache.skipped) == (4 * computed, 4 * (6 - computed))
    assert len(attention_runs) == cache.computed
    assert torch.equal(made[0], exact[0])
    assert torch.equal(made[1], exact[1])
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(made, exact, strict=True)]
    assert 0 < max(errors) < 1
    cache.disable()
    again = [scene(transformer, level, branch) for level in STEPS for branch in scene.texts]
    assert all(torch.equal(a, b) for a, b in zip(again, exact, strict=True))
    assert "cache" not in str(transformer._diffusers_hook)


@pytest.mark.parametrize("name", ALL)
def test_nothing_new_is_nothing_lost(transformer, name):
    """Where all steps are the same, so are all results, and branches keep apart."""
    scene = Scene()
    exact = {branch: scene(transformer, 700, branch) for branch in scene.texts}
    cache = with_cache(transformer, name)
    cache.start_loop(len(STEPS))
    for _ in STEPS:
        for branch, expected in exact.items():
            assert torch.allclose(scene(transformer, 700, branch), expected, atol=1e-5)
    assert cache.skipped > 0


@pytest.mark.parametrize("name", ALL)
def test_levels_per_frame_and_another_length_in_the_next_loop(transformer, name):
    cache = with_cache(transformer, name)
    for frames in (3, 2):
        scene = Scene(frames)
        cache.start_loop(len(STEPS))
        for level in STEPS:
            per_frame = torch.tensor([[0] + [level] * (frames - 1)])
            assert scene(transformer, per_frame).isfinite().all()
        cache.end_loop()
    assert cache.computed + cache.skipped == 12
    assert cache.skipped > 0


@pytest.mark.parametrize("name", ALL)
def test_memory_is_given_back(transformer, name):
    cache, scene = with_cache(transformer, name), Scene()
    cache.start_loop(len(STEPS))
    for level in STEPS[:4]:
        scene(transformer, level)
    assert held(transformer) > 0
    cache.end_loop()
    assert held(transformer) == 0


def held(model):
    """States that hooks of a model keep."""
    from diffusers.hooks.hooks import StateManager

    registries = [module._diffusers_hook for module in model.modules() if hasattr(module, "_diffusers_hook")]
    values = [value for r in registries for hook in r.hooks.values() for value in vars(hook).values()]
    return sum(len(value._state_cache) for value in values if isinstance(value, StateManager))


def test_a_first_block_that_changed_is_followed_by_the_others(transformer):
    scene = Scene()
    exact = [scene(transformer, level) for level in STEPS]
    cache = with_cache(transformer, "first_block", 1e-9)
    cache.start_loop(len(STEPS))
    assert all(torch.equal(scene(transformer, lv), e) for lv, e in zip(STEPS, exact, strict=True))
    assert (cache.computed, cache.skipped) == (6, 0)


def test_two_experts_have_a_cache_each():
    """The second begins by computing, and the first then holds nothing any more."""
    high, low = small(), small()
    scene = Scene()
    ratios = {"steps": 6, "transformers": [{"cond": [1.0] * 3}, {"cond": [1.0] * 3}]}
    for name, computed in (("first_block", 2), ("magcache", 2), ("taylorseer", 6)):
        cache = with_cache([high, low], name, ratios=ratios)
        cache.start_loop(6)
        for index, level in enumerate(STEPS):
            scene(high if index < 3 else low, level)
            assert (held(high) > 0) == (index < 3)
        assert (cache.computed, cache.skipped) == (computed, 6 - computed)
        cache.end_loop()
        cache.disable()


def test_magcache_measures_then_skips(transformer, capsys):
    scene = Scene()
    exact = [scene(transformer, level, branch) for level in STEPS for branch in scene.texts]
    cache = DiffusersCache([transformer], "magcache", None, dtype=torch.float32)
    for _ in range(2):  # the ratios are those of the first loop
        cache.start_loop(len(STEPS))
        made = [scene(transformer, level, branch) for level in STEPS for branch in scene.texts]
        cache.end_loop()
    assert all(torch.equal(a, b) for a, b in zip(made, exact, strict=True))
    assert (cache.computed, cache.skipped) == (24, 0)
    assert capsys.readouterr().out == ""  # diffusers would print them
    ratios = cache.ratios
    cache.disable()
    assert ratios["steps"] == 6
    (branches,) = ratios["transformers"]
    assert {name: len(found) for name, found in branches.items()} == {"cond": 6, "uncond": 6}
    assert branches["cond"][0] == 1
    assert branches["cond"] != branches["uncond"]

    cache = with_cache(transformer, "magcache", 0.5, ratios)
    seen = []
    transformer.register_forward_hook(lambda *_: seen.append(cache.cached[0].config.mag_ratios))
    cache.start_loop(len(STEPS))
    for level in STEPS:
        for branch in scene.texts:
            scene(transformer, level, branch)
    cache.end_loop()
    assert cache.skipped > 0
    assert not cache.ratios  # what is used is not measured anew
    assert seen == [branches["cond"], branches["uncond"]] * 6
    cache.start_loop(12)  # a loop of another length
    scene(transformer, 1000)
    assert len(seen[-1]) == 12
    assert seen[-1][-1] == pytest.approx(branches["cond"][-1])
    with pytest.raises(ValueError, match="needs ratios"):
        DiffusersCache([transformer], "magcache", 0.5, dtype=torch.float32)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("ours", [True, False], ids=["low_vram", "group offload"])
def test_on_streamed_blocks(transformer, name, ours):
    """The hooks that stream lie inside of the cache's (the CPU stands in for the GPU)."""
    scene = Scene()

    def run():
        cache = with_cache(transformer, name)
        cache.start_loop(len(STEPS))
        made = [scene(transformer, level, branch) for level in STEPS for branch in scene.texts]
        cache.end_loop()
        cache.disable()
        return made, cache.computed

    expected, computed = run()
    cpu = torch.device("cpu")
    if ours:
        stream(transformer, [memory.blocks(transformer)], Copier(cpu))
    else:
        transformer.enable_group_offload(
            onload_device=cpu, offload_device=cpu, offload_type="block_level", num_blocks_per_group=1
        )
    made, again = run()
    assert again == computed
    assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.in_blocks])
def test_compiled_blocks_are_called_from_outside(transformer, name):
    """A cache inside of them would break the graph, which fullgraph refuses."""
    scene = Scene()
    exact = [scene(transformer, level) for level in STEPS]
    graphs = []
    for block in memory.blocks(transformer):
        block._compiled_call_impl = "compiled"  # as block.compile(fullgraph=True) leaves it
    compiling = torch.compile
    torch.compile = lambda function, **options: graphs.append(options) or function
    try:
        cache = with_cache(transformer, name)
    finally:
        torch.compile = compiling
    assert graphs == [{"fullgraph": True}] * 3
    cache.start_loop(len(STEPS))
    made = [scene(transformer, level) for level in STEPS]
    assert cache.skipped > 0
    assert torch.equal(made[0], exact[0])
    cache.disable()
    assert torch.equal(scene(transformer, STEPS[1]), exact[1])


def hunyuan(kind):
    from videogen.models.hunyuan.transformer import HunyuanDiT

    torch.manual_seed(0)
    model = HunyuanDiT(
        in_channels=16,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=8,
        pooled_projection_dim=8,
        rope_axes_dim=(8, 4, 4),
        image_condition_type=kind,
    )
    return model.eval()


@pytest.mark.parametrize("kind", ["token_replace", "latent_concat"])
@pytest.mark.parametrize(
    ("name", "computed"),
    [("first_block", 1), ("magcache", 2), ("taylorseer", 4), ("taylorseer_lite", 4)],
)
@torch.no_grad()
def test_hunyuan(kind, name, computed):
    model = hunyuan(kind)
    latents, text = torch.randn(1, 16, 2, 4, 4), torch.randn(1, 5, 8)

    def call(level):
        with model.cache_context("cond"):
            return model(
                hidden_states=latents,
                timestep=torch.tensor([level]),
                encoder_hidden_states=text,
                encoder_attention_mask=torch.ones(1, 5, dtype=torch.long),
                pooled_projections=text[:, 0],
                guidance=torch.tensor([6000.0]),
                return_dict=False,
            )[0]

    exact = [call(level) for level in STEPS]
    runs = []
    model.single_transformer_blocks[-1].attn.to_q.register_forward_hook(lambda *_: runs.append(1))
    cache = with_cache(model, name)
    cache.start_loop(len(STEPS))
    made = [call(level) for level in STEPS]
    cache.end_loop()
    assert (cache.computed, cache.skipped) == (computed, 6 - computed)
    assert len(runs) == computed
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(made, exact, strict=True)]
    assert errors[0] == 0
    assert 0 < max(errors) < 1
    cache.disable()
    assert torch.equal(call(STEPS[-1]), exact[-1])
