"""Blocks and layers that are on the device only while they work; the CPU stands in for the GPU."""

from contextlib import suppress

import pytest
import torch
from torch import nn

import videogen
from videogen.models.device_copies import Uploader, staged
from videogen.models.wan.transformer import WanDiT
from videogen.runtime import block_streaming, memory
from videogen.runtime.block_streaming import layer_stacks
from videogen.runtime.component_offload import Copier, tensors_of
from videogen.runtime.precision import inner_tensors
from videogen.runtime.step_cache import DiffusersCache

CPU = torch.device("cpu")
SIZES = {"num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 64, "freq_dim": 32, "text_dim": 16}


def places(module):
    """Where the numbers of a module lie."""
    return [
        getattr(tensor, name).data_ptr() for tensor in tensors_of(module) for name in inner_tensors(tensor)
    ]


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    model = WanDiT(**SIZES, num_layers=4).eval().requires_grad_(False)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    memory.quantize(model, CPU)
    return model


def call(transformer, level=500.0):
    torch.manual_seed(1)
    text, latents = torch.randn(1, 9, 16), torch.randn(1, 16, 3, 4, 8)
    with transformer.cache_context("cond"):
        return transformer(latents, torch.tensor([level]), text, return_dict=False)[0]


def watch(transformer):
    """Stream a transformer; returns its weights' places and a log of which blocks are away at every block."""
    home = [places(block) for block in memory.blocks(transformer)]
    away: list[list[int]] = []

    def look(*_):
        now = [places(block) for block in memory.blocks(transformer)]
        away.append([index for index, (a, b) in enumerate(zip(now, home, strict=True)) if a != b])

    for block in memory.blocks(transformer):
        block.attn1.register_forward_pre_hook(look)
    block_streaming.stream(transformer, [memory.blocks(transformer)], Copier(CPU))
    return home, away


def test_float8_weights_leave_after_every_block(transformer):
    """Of diffusers' group offload they do not; a second forward then fails."""
    expected = call(transformer)
    home, away = watch(transformer)
    for _ in range(2):
        assert torch.equal(call(transformer), expected)
        assert [places(block) for block in transformer.blocks] == home
    assert away == [[0], [1], [2], [3]] * 2


def test_the_next_block_is_on_the_way(transformer, monkeypatch):
    fetched = []
    upload = block_streaming.Upload
    monkeypatch.setattr(
        block_streaming, "Upload", lambda block, copier: (fetched.append(block), upload(block, copier))[1]
    )
    block_streaming.stream(transformer, [memory.blocks(transformer)], Copier(CPU))
    seen = []
    for block in transformer.blocks:
        block.attn1.register_forward_pre_hook(lambda *_: seen.append(len(fetched)))
    call(transformer)
    assert fetched == list(transformer.blocks)
    assert seen == [2, 3, 4, 4]


def test_blocks_that_a_cache_leaves_out_stay_in_ram(transformer):
    expected = [call(transformer), call(transformer)]
    home, away = watch(transformer)
    cache = DiffusersCache([transformer], "first_block", 1e9, dtype=torch.float32)
    cache.start_loop(3)
    assert torch.equal(call(transformer), expected[0])
    away.clear()
    call(transformer)
    assert cache.skipped == 1
    assert away == [[0]]
    assert [places(block) for block in transformer.blocks] == home  # the second block, which came for nothing
    cache.disable()
    assert torch.equal(call(transformer), expected[1])


def test_after_a_failure_everything_is_in_ram(transformer):
    home, _ = watch(transformer)
    broken = transformer.blocks[2].ffn.register_forward_pre_hook(lambda *_: 1 / 0)
    with suppress(ZeroDivisionError):
        call(transformer)
        pytest.fail("must raise")
    assert [places(block) for block in transformer.blocks] == home
    broken.remove()
    call(transformer)


def test_two_stacks_are_one_line(monkeypatch):
    """HunyuanVideo's second kind of block follows the first."""
    pipeline = videogen.load("hunyuan_image_to_video", "tiny", dtype=torch.float32, device="cpu")
    lines = []
    monkeypatch.setattr(memory, "stream", lambda module, stacks, copier: lines.append((module, stacks)))
    memory.stream_blocks(pipeline, CPU)
    (module, (blocks,)) = lines[0]
    assert module is pipeline.transformer
    assert blocks == [*module.transformer_blocks, *module.single_transformer_blocks]
    assert [module for module, _ in lines[1:]] == [pipeline.text_encoder, pipeline.text_encoder_2]


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("image_to_video", ("text_encoder", "image_encoder")),
        ("hunyuan_image_to_video", ("text_encoder", "text_encoder_2")),
    ],
)
def test_encoders_are_split_into_all_their_weights(task, names):
    pipeline = videogen.load(task, "tiny", dtype=torch.float32, device="cpu")
    for name in names:
        encoder = getattr(pipeline, name)
        stacks = list(layer_stacks(encoder))
        modules = [module for stack in stacks for module in stack]
        assert {id(t) for module in modules for t in tensors_of(module)} == {
            id(t) for t in tensors_of(encoder)
        }
        own = [{id(part) for part in module.modules()} for module in modules]
        assert sum(map(len, own)) == len(set.union(*own))  # none within another
        assert max(map(len, stacks)) > 1


def test_layers_of_an_encoder_come_and_go():
    encoder = videogen.load("text_to_video", "tiny", dtype=torch.float32, device="cpu").text_encoder
    ids = torch.arange(1, 8)[None]
    expected, home = encoder(ids).last_hidden_state, places(encoder)
    seen = []
    block_streaming.stream(encoder, list(layer_stacks(encoder)), Copier(CPU))
    encoder.encoder.block[1].layer[0].SelfAttention.register_forward_pre_hook(
        lambda *_: seen.append([a != b for a, b in zip(places(encoder), home, strict=True)])
    )
    assert torch.equal(encoder(ids).last_hidden_state, expected)
    assert places(encoder) == home
    assert 0 < sum(seen[0]) < len(home)


def test_copies_go_through_the_buffers_in_turn():
    log = []

    class Gone:
        def __init__(self, name):
            self.name = name

        def synchronize(self):
            log.append(f"wait {self.name}")

        def record(self):
            log.append(f"sent {self.name}")

    sources = [torch.randn(5, 3), torch.tensor(7.0), torch.arange(9, dtype=torch.bfloat16)]
    targets = Uploader(CPU).allocate(sources)
    staged(sources, targets, [(torch.empty(32, dtype=torch.uint8), Gone(name)) for name in "ab"])
    assert all(torch.equal(one, two) for one, two in zip(sources, targets, strict=True))
    assert log == ["wait a", "sent a", "wait b", "sent b", "wait a", "sent a", "wait b", "sent b"]
