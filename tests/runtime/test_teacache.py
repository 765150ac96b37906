"""TeaCache: the published decisions, and the hook on a small transformer."""

import pytest
import torch
from torch import nn

from videogen.models.wan.transformer import WanDiT
from videogen.runtime.teacache import Fixed, Published, TeaCache
from videogen.tasks.teacache_tables import Table, choose_table

LINEAR = Table("linear", (1.0, 0.0), (1.0, 0.0))  # what accumulates is the distance itself


def test_published_decisions(golden):
    records = golden("skyreels_v2/teacache_decisions").about["records"]
    assert len(records) == 96
    for record in records:
        table = choose_table(None, record["ckpt_path"], None, image=False)
        coefficients = table.coefficients(record["use_ret_steps"])
        assert list(coefficients) == record["coefficients"]
        counting = Published(
            coefficients, threshold=record["teacache_thresh"], use_ret_steps=record["use_ret_steps"]
        )
        counting.reset(record["num_steps"])
        counting.start_loop(record["num_steps"])
        decisions = [counting.decide("", lambda state, d=distance: d) for distance in record["rel_l1"]]
        assert [d.count for d in decisions] == record["cnt"]
        assert [d.state == "even" for d in decisions] == record["believed_cond"]
        assert [d.distance for d in decisions] == record["rel_l1"]
        assert [d.accumulated for d in decisions] == record["acc_after"]  # to the last bit
        assert [d.computed for d in decisions] == record["computed"]


def decisions(counting, calls):
    """(branch, distance) of every call -> what was computed."""
    return [counting.decide(branch, lambda state, d=distance: d).computed for branch, distance in calls]


@pytest.mark.parametrize(("use_ret_steps", "forced"), [(False, {0, 7}), (True, {0, 1, 2, 3, 4})])
@pytest.mark.parametrize("branches", [["cond"], ["cond", "uncond"], ["cond", "no_text", "uncond"]])
def test_fixed_counts_steps_of_every_branch(use_ret_steps, forced, branches):
    counting = Fixed((1.0, 0.0), threshold=1e9, use_ret_steps=use_ret_steps)
    counting.reset(8)
    for _ in range(2):
        counting.start_loop(8)
        computed = decisions(counting, [(branch, 0.5) for _ in range(8) for branch in branches])
        assert computed == [step in forced for step in range(8) for _ in branches]


def test_fixed_accumulates_per_branch_and_loop():
    counting = Fixed((1.0, 0.0), threshold=1.0, use_ret_steps=False)
    counting.reset(9)
    calls = [("a", None), ("b", None), ("a", 0.5), ("b", 0.25), ("a", 0.5), ("b", 0.25), ("a", 0.75)]
    assert decisions(counting, calls) == [True, True, False, False, True, False, False]
    assert counting.accumulated == {"a": 0.75, "b": 0.5}
    counting.start_loop(5)
    assert counting.accumulated == {}
    assert decisions(counting, [("a", 0.5)] * 6) == [True, False, True, False, True, True]


def test_published_loops():
    """A loop begins at 0 and changes where the counter wraps; the cut-off stays."""
    counting = Published((1.0, 0.0), threshold=1e9, use_ret_steps=False)
    counting.reset(4)
    assert decisions(counting, [("", 0.5)] * 5) == [True, True, False, False, True]
    counting.start_loop(99)  # published counting is told apart
    counting.start_loop(99, 8)
    results = [counting.decide("", lambda state: 0.5) for _ in range(8)]
    assert [r.count for r in results] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [r.computed for r in results] == [True, True, False, False, False, False, True, True]


def test_only_published_counting_takes_published_steps():
    published, fixed = (kind((1.0, 0.0), threshold=1e9, use_ret_steps=False) for kind in (Published, Fixed))
    for counting in (published, fixed):
        counting.reset(3)
        counting.start_loop(5, 3)
    assert [published.decide("", lambda state: 0.5).count for _ in range(5)] == [0, 1, 2, 0, 1]
    assert decisions(fixed, [("", 0.5)] * 5) == [True, False, False, False, True]


# --- the hook


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    model = WanDiT(
        num_attention_heads=2, attention_head_dim=24, ffn_dim=64, num_layers=2, freq_dim=32, text_dim=16
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


class Scene:
    """Calls a transformer as VideoPipeline.velocity does."""

    def __init__(self, model, frames=2):
        self.model = model
        generator = torch.Generator().manual_seed(frames)
        self.latents = torch.randn(1, 16, frames, 4, 4, generator=generator)
        self.texts = {
            name: torch.randn(1, 8, 16, generator=generator) for name in ("cond", "uncond", "no_text")
        }

    @torch.no_grad()
    def __call__(self, level, branch="cond"):
        with self.model.cache_context(branch):
            (output,) = self.model(
                hidden_states=self.latents * (1 + level / 1000),
                timestep=torch.tensor([[level]]),
                encoder_hidden_states=self.texts[branch],
                encoder_hidden_states_image=None,
                encoder_hidden_states_audio=None,
                fps=None,
                frame_positions=torch.arange(self.latents.shape[2]),
                return_dict=False,
            )
        return output


@pytest.fixture
def block_calls(transformer):
    """How often the first block has run, as a list that grows."""
    calls = []
    transformer.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    return calls


LEVELS = [1000, 900, 800, 700, 600, 500]
BRANCHES = ("cond", "uncond", "no_text")


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("use_ret_steps", [False, True])
def test_nothing_skipped_is_exactly_the_plain_model(transformer, fixed, use_ret_steps):
    scene = Scene(transformer)
    calls = [(level, branch) for level in range(1000, 400, -50) for branch in ("cond", "uncond")]
    plain = [scene(*call) for call in calls]
    cache = TeaCache(transformer, LINEAR, threshold=1e-9, use_ret_steps=use_ret_steps, fixed=fixed)
    cache.reset(12)
    cache.start_loop(12)
    assert all(torch.equal(scene(*call), expected) for call, expected in zip(calls, plain, strict=True))
    assert (cache.computed, cache.skipped) == (24, 0)
    assert all(d.distance > 0 for d in cache.log if d.distance is not None)
    assert sum(d.distance is not None for d in cache.log) > 0


def expected_skip(model, scene, level, residual):
    """What a skipped call returns: the head of (tokens + residual)."""
    hook = model.blocks.register_forward_hook(lambda module, args, output: args[0] + residual)
    try:
        return scene(level)
    finally:
        hook.remove()


def test_a_skipped_call_adds_the_last_residual(transformer, block_calls):
    scene, kept = Scene(transformer), []
    hook = transformer.blocks.register_forward_hook(
        lambda module, args, output: kept.append(output - args[0])
    )
    scene(1000)
    hook.remove()
    expected = expected_skip(transformer, scene, 900, kept[0])
    assert not torch.equal(expected, scene(900))
    block_calls.clear()

    cache = TeaCache(transformer, LINEAR, threshold=1e9, use_ret_steps=False, fixed=True)
    cache.reset(3)
    scene(1000)
    assert torch.equal(scene(900), expected)
    assert len(block_calls) == cache.computed == cache.skipped == 1
    assert [d.computed for d in cache.log] == [True, False]
    assert cache.residuals["cond"].dtype == scene.latents.dtype


@pytest.mark.parametrize(("use_ret_steps", "forced"), [(False, {0, 1}), (True, set(range(10)))])
def test_published_windows(transformer, block_calls, use_ret_steps, forced):
    """Only the retention window computes, and it comes twice: the counter wraps after num_steps calls."""
    scene = Scene(transformer)
    cache = TeaCache(transformer, LINEAR, threshold=1e9, use_ret_steps=use_ret_steps, fixed=False)
    cache.reset(12)
    for step in range(12):
        scene(1000 - 80 * step, "cond")
        scene(1000 - 80 * step, "uncond")
    assert [d.computed for d in cache.log] == [call % 12 in forced for call in range(24)]
    assert len(block_calls) == cache.computed == 2 * len(forced)
    assert cache.skipped == 24 - cache.computed


def test_fixed_with_three_branches(transformer, block_calls):
    """Every branch gets its own residual back, however many there are."""
    scene = Scene(transformer)
    cache = TeaCache(transformer, LINEAR, threshold=1e9, use_ret_steps=False, fixed=True)
    for steps in (3, 4):
        cache.reset(steps)
        block_calls.clear()
        cache.start_loop(steps)
        first = {branch: scene(1000, branch) for branch in BRANCHES}
        again = {branch: scene(1000, branch) for branch in BRANCHES}  # nothing changed: all skipped
        assert all(torch.allclose(again[branch], first[branch], atol=1e-5) for branch in BRANCHES)
        assert not torch.allclose(first["cond"], first["uncond"], atol=1e-3)
        for _ in range(steps - 2):
            for branch in BRANCHES:
                scene(500, branch)
        assert [d.state for d in cache.log[:3]] == list(BRANCHES)
        assert len(block_calls) == cache.computed == 6  # the first and the last step
    cache.start_loop(5)
    assert not cache.signals
    assert not cache.residuals


def test_the_signal(transformer):
    """The embedding, or with use_ret_steps the modulation that the blocks get."""
    embedding, modulation = _signals(transformer)
    for use_ret_steps, (before, after) in ((False, embedding), (True, modulation)):
        scene = Scene(transformer)
        cache = TeaCache(transformer, LINEAR, threshold=1e9, use_ret_steps=use_ret_steps, fixed=False)
        cache.reset(20)
        for _ in range(10):
            scene(1000)
        scene(700)
        assert cache.log[-1].distance == ((after - before).abs().mean() / before.abs().mean()).item()
        cache.disable()


@torch.no_grad()
def _signals(transformer):
    before, after = (transformer.condition_embedder(torch.tensor([[level]])) for level in (1000, 700))
    return zip(before, after, strict=True)


@pytest.mark.parametrize("fixed", [False, True])
def test_another_shape_in_the_next_loop_is_computed(transformer, fixed):
    first, second = Scene(transformer, frames=3), Scene(transformer, frames=2)
    plain = second(800)
    cache = TeaCache(transformer, LINEAR, threshold=1e9, use_ret_steps=False, fixed=fixed)
    cache.reset(20)
    cache.start_loop(20)
    for level in LEVELS:
        first(level)
    cache.start_loop(10)
    assert torch.equal(second(800), plain)
    assert cache.log[-1].computed
    assert cache.log[-1].distance is None
    assert cache.log[-1].count == 0
    second(700)
    second(600)
    assert not cache.log[-1].computed


def test_levels_per_frame_after_one_for_all(transformer):
    """A level for all frames is the same as that level for each."""
    scene = Scene(transformer)
    logs = []
    for first in (torch.tensor([[1000]]), torch.tensor([[1000, 1000]])):
        cache = TeaCache(transformer, LINEAR, threshold=1e9, use_ret_steps=True, fixed=True)
        cache.reset(9)
        for level in (*[first] * 5, torch.tensor([[900, 1000]])):
            with torch.no_grad(), transformer.cache_context("cond"):
                transformer(scene.latents, level, scene.texts["cond"])
        logs.append(cache.log[-1])
        cache.disable()
    assert logs[0].distance == pytest.approx(logs[1].distance, rel=1e-6)
    assert logs[0].distance > 0


def everything(model):
    """All that hooks could leave behind on a module."""
    return [
        (name, sorted(vars(module)), list(module._forward_hooks.values()), module.forward)
        for name, module in model.named_modules()
    ]


@pytest.mark.parametrize("used", [False, True])
def test_disable_leaves_the_transformer_as_it_was(transformer, used):
    scene = Scene(transformer)
    if used:  # diffusers has by then noted which modules have hooks
        scene(1000)
    before, plain = everything(transformer), None
    for _ in range(2):
        cache = TeaCache(transformer, LINEAR, threshold=1e9, use_ret_steps=False, fixed=True)
        cache.reset(9)
        if used:
            plain = scene(1000)
            scene(900, "uncond")
            assert [d.state for d in cache.log] == ["cond", "uncond"]
        with pytest.raises(ValueError, match="already exists"):
            TeaCache(transformer, LINEAR, threshold=1e9, use_ret_steps=False, fixed=True)
        cache.disable()
        assert everything(transformer) == before
        assert not cache.residuals
        if used:
            assert torch.equal(scene(1000), plain)


def test_other_hooks_on_the_stack_stay(transformer):
    from diffusers.hooks.hooks import HookRegistry, ModelHook

    scene, plain = Scene(transformer), Scene(transformer)(900)
    cache = TeaCache(transformer, LINEAR, threshold=1e9, use_ret_steps=False, fixed=True)
    HookRegistry.check_if_exists_or_initialize(transformer.blocks).register_hook(ModelHook(), "later")
    cache.reset(3)
    scene(1000)
    scene(900)
    assert cache.skipped == 1
    cache.disable()
    assert torch.equal(scene(900), plain)
    assert list(transformer.blocks._diffusers_hook.hooks) == ["later"]


def test_before_a_reset_and_after_a_generation(transformer):
    """Nothing is skipped before the number of steps is known; nothing cached outlives a generation."""
    scene = Scene(transformer)
    for fixed in (False, True):
        cache = TeaCache(transformer, LINEAR, threshold=1e9, use_ret_steps=False, fixed=fixed)
        for level in LEVELS:
            scene(level)
        assert cache.skipped == 0
        transformer._reset_stateful_cache()  # as maybe_free_model_hooks does
        assert not cache.residuals
        assert cache.computed == len(LEVELS)
        cache.disable()


def test_a_failed_call_is_not_relied_on(transformer):
    """Out of memory in a block: the next call computes."""
    scene = Scene(transformer)
    cache = TeaCache(transformer, LINEAR, threshold=-1.0, use_ret_steps=False, fixed=True)
    cache.reset(9)
    scene(1000)

    def fail(*_):
        raise RuntimeError("out of memory")

    hook = transformer.blocks[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        scene(900)
    hook.remove()
    cache.counting.threshold = 1e9
    scene(800)
    scene(700)
    assert [d.computed for d in cache.log] == [True, True, True, False]
