"""Text, image and positions are worked on once; results are the same to the last bit."""

import pytest
import torch

from videogen.models.fifo_cache import FifoCache
from videogen.models.hunyuan.transformer import RiflexRotaryEmbed
from videogen.models.wan.embedders import WanRotaryEmbed
from videogen.models.wan.transformer import WanDiT
from videogen.runtime.cross_attention_cache import HOOK, CrossAttentionCache, cache_cross_attention
from videogen.runtime.teacache import TeaCache
from videogen.tasks.teacache_tables import Table

LINEAR = Table("T", (1.0, 0.0), (1.0, 0.0))


def network(**more):
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 64, "num_layers": 3}
    return WanDiT(**sizes, freq_dim=32, text_dim=16, **more).eval().requires_grad_(False)


def inputs(**more):
    torch.manual_seed(1)
    return {
        "hidden_states": torch.randn(1, 16, 3, 4, 8),
        "encoder_hidden_states": torch.randn(1, 9, 16),
        **more,
    }


def count_calls(*modules):
    calls = []
    for module in modules:
        module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_fifo_cache_drops_the_oldest_and_knows_tensors_by_identity():
    cache, made = FifoCache(2), []
    for key in ("a", "b", "a", "c", "a"):
        cache.get_or_compute(key, lambda key=key: made.append(key))
    assert made == ["a", "b", "c", "a"]
    cache.clear()
    one, other = torch.zeros(2), torch.zeros(2)
    results = [cache.get_or_compute_for(tensor, object) for tensor in (one, other, one)]
    assert results[0] is results[2] is not results[1]


@pytest.mark.parametrize("image", [False, True])
def test_keys_of_text_and_image_are_made_once(image):
    model = network(**({"image_dim": 8, "added_kv_proj_dim": 48} if image else {}))
    more = {"encoder_hidden_states_image": torch.randn(1, 5, 8)} if image else {}
    texts = {"cond": inputs(**more), "uncond": inputs(**more)}
    texts["uncond"]["encoder_hidden_states"] = torch.randn(1, 9, 16)
    levels = [torch.tensor([level]) for level in (900.0, 500.0, 100.0)]
    wanted = [model(timestep=level, **given).sample for level in levels for given in texts.values()]
    memory = CrossAttentionCache(model)
    attention = model.blocks[1].attn2
    calls = count_calls(attention.to_k, attention.to_v, model.condition_embedder.text_embedder.linear_1)
    found = []
    for level in levels:
        for branch, given in texts.items():
            with model.cache_context(branch):
                found.append(model(timestep=level, **given).sample)
    assert all(torch.equal(one, two) for one, two in zip(wanted, found, strict=True))
    assert len(calls) == 3 * 2
    memory.clear()
    assert not any(hook.cache.entries for hook in memory.hooks)


def test_with_a_step_cache_before_the_blocks():
    model, given = network(), inputs()
    levels = [torch.tensor([level]) for level in (900.0, 890.0, 880.0, 100.0)]

    def run():
        cache = TeaCache(model, LINEAR, threshold=1e9, use_ret_steps=False, fixed=True)
        cache.reset(len(levels))
        cache.start_loop(len(levels))
        made = []
        for level in levels:
            with model.cache_context("cond"):
                made.append(model(timestep=level, **given).sample)
        skipped = cache.skipped
        cache.disable()
        return made, skipped

    wanted, skipped = run()
    CrossAttentionCache(model)
    found, again = run()
    assert skipped == again > 0
    assert all(torch.equal(one, two) for one, two in zip(wanted, found, strict=True))
    assert torch.equal(model(timestep=levels[0], **given).sample, wanted[0])


def test_blocks_given_keys_compile_whole():
    model, given = network(), inputs(timestep=torch.tensor([500.0]))
    wanted = model(**given).sample
    CrossAttentionCache(model)
    for block in model.blocks:
        block.compile(fullgraph=True, backend="eager")
    assert torch.allclose(model(**given).sample, wanted, atol=1e-5)


def test_pipelines_forget_with_the_loop_and_after_callbacks(tiny_pipeline, robot):
    arguments = {"ref_imgs": [robot], "height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 3}
    wanted = tiny_pipeline("x", **arguments, generator=torch.Generator().manual_seed(0), output_type="latent")
    cache_cross_attention(tiny_pipeline)
    (memory,) = tiny_pipeline.context_caches
    calls = count_calls(tiny_pipeline.transformer.blocks[0].attn2.to_k)
    kept = []

    def run(callback=None):
        calls.clear()
        made = tiny_pipeline(
            "x",
            **arguments,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            callback_on_step_end=callback,
        )
        kept.append(sum(len(hook.cache.entries) for hook in memory.hooks))
        return made.frames, len(calls)

    try:
        frames, count = run()
        assert torch.equal(frames, wanted.frames)
        assert count == 1
        assert run(lambda *_: {})[1] == 3
        assert kept == [0, 0]
    finally:
        tiny_pipeline.context_caches = ()
        model = tiny_pipeline.transformer
        for module in (model.blocks, *model.context_embedders()):
            module._diffusers_hook.remove_hook(HOOK, recurse=False)


def test_tables_of_positions_are_made_once_per_shape():
    rope, positions = WanRotaryEmbed(24), torch.tensor([0, 1, 1024])
    first = rope(positions, 2, 3)
    assert rope(positions.clone(), 2, 3) is first
    other = rope(positions + 1, 2, 3)
    assert not torch.equal(other, first)
    assert rope(positions, 2, 3) is first
    hunyuan = RiflexRotaryEmbed((16, 4, 4), 256.0)
    latents = torch.zeros(1, 16, 50, 4, 4)
    long = hunyuan(latents)
    assert hunyuan(latents) is long
    hunyuan.riflex = False
    assert not torch.equal(hunyuan(latents), long)
