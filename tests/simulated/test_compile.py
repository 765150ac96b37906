"""Graphs of ``--compile``, counted on the CPU with the tiny models: no breaks, few graphs, no limit hit.

Which graphs there are does not depend on what they are compiled to; here they are run as they are.
"""

import pytest
import torch
from PIL import Image
from torch import nn

import videogen
from videogen.runtime import apply
from videogen.runtime.cross_attention_cache import cache_cross_attention

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),
]

GRAPHS = 2  # per kind of block: one for the first size, one for all others
SIZES = ((32, 32, 5), (48, 32, 9), (64, 48, 13), (48, 48, 17))
IMAGE = Image.new("RGB", (64, 64), "red")
RAMP = [0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1, 0.8, 0.6, 0.35]  # more than the recompile limit


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """Load a tiny model and compile its blocks as ``--compile`` does, but for the last stage."""
    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda block, **how: original(block, backend="eager", **how))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()

    def load(task, model="tiny", prepare=lambda pipeline: None):
        pipeline = videogen.load(task, model, dtype="bfloat16", device="cpu")
        pipeline.set_progress_bar_config(disable=True)
        cache_cross_attention(pipeline)
        prepare(pipeline)
        for transformer in pipeline.transformers:
            apply.compile_blocks(transformer, torch.device("cuda"), streamed=False)
        return pipeline

    yield load
    torch._dynamo.reset()


def graphs() -> int:
    """Return how many graphs there are, having made sure that none is broken and no limit was hit."""
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"], dict(counters["graph_break"])
    assert not counters["recompile_limit"], dict(counters["recompile_limit"])
    assert counters["frames"]["total"] == counters["frames"]["ok"]
    return counters["stats"]["unique_graphs"]


def options(size, steps=3):
    height, width, frames = size
    generator = torch.Generator().manual_seed(0)
    return {
        **{"height": height, "width": width, "num_frames": frames, "num_inference_steps": steps},
        **{"generator": generator, "output_type": "latent"},
    }


def test_sizes_and_guidance(compiled):
    pipeline = compiled("reference_to_video")
    plain = videogen.load("reference_to_video", "tiny", dtype="bfloat16", device="cpu")
    for size in SIZES:
        found = pipeline("x", ref_imgs=[IMAGE], **options(size)).frames
        if size == SIZES[0]:
            wanted = plain("x", ref_imgs=[IMAGE], **options(size)).frames
            assert torch.allclose(found, wanted, atol=0.05)
    pipeline("x", ref_imgs=[IMAGE, IMAGE], guidance_scale=5.0, **options(SIZES[0]))
    assert 1 <= graphs() <= GRAPHS


def test_noise_levels_of_diffusion_forcing(compiled):
    pipeline = compiled("diffusion_forcing")
    for more in ({}, {"ar_step": 2, "causal_block_size": 1}, {"ar_step": 1, "causal_block_size": 5}):
        pipeline("x", **options((32, 32, 17), steps=4), **more)
    assert 1 <= graphs() <= GRAPHS


def test_two_experts(compiled):
    pipeline = compiled("text_to_video", "tiny:wan22-a14b")
    for size in SIZES[:3]:
        pipeline("x", **options(size))
    assert 1 <= graphs() <= GRAPHS


def test_lengths_of_prompts_of_hunyuan(compiled):
    """Two kinds of blocks, whose text is as long as the prompt."""
    pipeline = compiled("hunyuan_image_to_video")
    for words in range(1, 11):
        pipeline("word " * words, input_image=IMAGE, **options((64, 64, 5), steps=1))
    assert 2 <= graphs() <= 2 * GRAPHS
    for size in ((48, 64, 9), (64, 48, 13)):  # frames, rows and columns change each for the first time
        pipeline("x", input_image=IMAGE, **options(size, steps=1))
    found = graphs()
    for size in ((64, 64, 9), (80, 64, 9), (48, 48, 17)):
        pipeline("x", input_image=IMAGE, **options(size, steps=1))
    assert graphs() == found


def test_a_ramped_scale_of_a_lora(compiled, tmp_path):
    from safetensors.torch import save_file

    def adapt(pipeline):
        transformer = pipeline.transformer
        width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
        state = {
            f"transformer.blocks.{index}.attn1.{layer}.lora_{part}.weight": torch.randn(shape) * 0.1
            for index in range(len(transformer.blocks))
            for layer in ("to_q", "to_k", "to_v", "to_out.0")
            for part, shape in (("A", (4, width)), ("B", (width, 4)))
        }
        save_file(state, tmp_path / "lora.safetensors")
        pipeline.load_lora_weights(str(tmp_path / "lora.safetensors"), adapter_name="a")

    pipeline = compiled("reference_to_video", prepare=adapt)
    seen = []
    for scale in RAMP:
        pipeline.set_adapters(["a"], [scale])
        seen.append(pipeline("x", ref_imgs=[IMAGE], **options(SIZES[0], steps=1)).frames)
    assert not torch.equal(seen[0], seen[1])
    assert 1 <= graphs() <= GRAPHS
