"""One table of calls, each made of our pipeline and of diffusers' own with the same tiny weights.

A row with ``differs`` is a call whose result is another by intent: it fails when diffusers' becomes ours.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    FirstBlockCacheConfig,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.callbacks import SDCFGCutoffCallback

from tests import setups
from tests.conftest import ROOT
from tests.pairs import PAIRS, Fresh, picture, seeded
from tests.setups import cached, lora, scheduled
from videogen.errors import InputError

READ = ("guidance_scale", "do_classifier_free_guidance", "num_timesteps", "current_timestep", "interrupt")


@dataclass(frozen=True)
class Row:
    """One call.

    Args:
        pair: which pipelines.
        given: our arguments besides those of the pair.
        theirs: diffusers' arguments, where they are others than ours renamed.
        setup: what is done with each pipeline before; it may return another one.
        output: type of the output.
        differs: why diffusers' result is another, as docs/python.md says it.
        refused: what our error says; diffusers refuses too, unless it ``differs``.
        slow: left to the slow tests.
    """

    pair: str
    given: Mapping[str, object] = field(default_factory=dict)
    theirs: Mapping[str, object] = field(default_factory=dict)
    setup: Callable[[DiffusionPipeline], DiffusionPipeline | None] = lambda _: None
    output: str = "latent"
    differs: str = ""
    refused: str = ""
    slow: bool = False


def embeddings(which):
    """Give the pipeline an encoded prompt in place of a text."""
    return Fresh(lambda pipe: pipe.encode_prompt("a cat", "bad", max_sequence_length=16)[which])


def replace_text(pipe, index, timestep, tensors):
    return {"prompt_embeds": torch.ones_like(tensors["prompt_embeds"])} if index == 0 else {}


def zero_latents(pipe, index, timestep, tensors):
    last = index == pipe.num_timesteps - 1
    return {"latents": tensors["latents"] * (0 if last else 1)}


def stop(pipe, index, timestep, tensors):
    pipe._interrupt = True
    return {}


def generators(*seeds):
    return Fresh(lambda _: [seeded(seed) for seed in seeds])


def scales(low, high, **more):
    """Return our arguments with a guidance scale of two experts, and diffusers' scales."""
    return {"guidance_scale": (low, high), **more}, {"guidance_scale": high, "guidance_scale_2": low}


TWO = {"prompt": ["a cat", "a very long dog"]}
GENERATORS = {"num_videos_per_prompt": 2, "generator": generators(1, 2)}
THREE = {"negative_prompt": ["a", "b", "c"]}
PROMPT_TWICE = {"prompt_embeds": torch.ones(1, 16, 32)}
NO_TEXTS = {"prompt": None, "negative_prompt": None}
EMBEDDED = {**NO_TEXTS, "prompt_embeds": embeddings(0), "negative_prompt_embeds": embeddings(1)}
STEPS = {"num_inference_steps": 6}
UNGUIDED = {"guidance_scale": 1.0}
CUTOFF = {"callback_on_step_end": Fresh(lambda _: SDCFGCutoffCallback(cutoff_step_ratio=0.5)), **STEPS}
TENSORS = "callback_on_step_end_tensor_inputs"
REPLACED = {"callback_on_step_end": replace_text, TENSORS: ["latents", "prompt_embeds"]}
STOPPED = {"callback_on_step_end": stop}
BLOCKS = {"num_frames": 13, "ar_step": 1, "causal_block_size": 2}
LONG = {"num_frames": 13, "base_num_frames": 9}
HALF = {"attention_kwargs": {"scale": 0.5}}
GUIDED = {"guidance_scale": 3.0, "negative_prompt": "bad"}
LARGE = {"image": picture(1, 40)}
ENCODED = {
    "prompt": None,
    "prompt_embeds": torch.randn(1, 20, 32, generator=seeded(1)),
    "pooled_prompt_embeds": torch.randn(1, 16, generator=seeded(2)),
    "prompt_attention_mask": torch.tensor([[1] * 14 + [0] * 6]),
}
LAST = {"last_image": picture(2)}
VIDEO = {"image": None, "video": [picture(3), picture(4)]}, {"image": picture(4)}
SEVEN = scheduled(lambda old: UniPCMultistepScheduler.from_config(old.config, flow_shift=7))
EULER = scheduled(lambda _: FlowMatchEulerDiscreteScheduler(shift=5))
FIRST_BLOCK = cached(lambda _: FirstBlockCacheConfig(threshold=10))

# fmt: off
ROWS = {
    # Wan: texts, noise, lists.
    "one": Row("wan"),
    "no guidance": Row("wan", UNGUIDED),
    "guidance below 1": Row("wan", {"guidance_scale": 0.5}, differs="as published; diffusers does not"),
    "no negative text": Row("wan", {"negative_prompt": ""}, {"negative_prompt": None}),
    "a list of one": Row("wan", {"prompt": ["a cat"], "negative_prompt": ["bad"]}),
    "two prompts": Row("wan", TWO),
    "two negatives": Row("wan", {**TWO, "negative_prompt": ["bad", "worse"]}, slow=True),
    "two of each": Row("wan", {**TWO, "num_videos_per_prompt": 2}, slow=True),
    "generators": Row("wan", GENERATORS),
    "latents": Row("wan", {"latents": torch.ones(1, 16, 3, 2, 2)}),
    "latents of two": Row("wan", {**TWO, "latents": torch.arange(384.0).view(2, 16, 3, 2, 2) / 384}),
    "embeddings": Row("wan", EMBEDDED),
    "short prompts": Row("wan", {"prompt": "a cat and more", "max_sequence_length": 8}),
    "one frame": Row("wan", {"num_frames": 1}),
    "more steps": Row("wan", STEPS),
    # Outputs.
    "np": Row("wan", output="np"),
    "pt": Row("wan", TWO, output="pt"),
    "pil": Row("wan", TWO, output="pil"),
    "a tuple": Row("wan", {"return_dict": False}, output="np"),
    # Schedulers.
    "another shift": Row("wan", setup=SEVEN),
    "Euler": Row("wan", setup=EULER),
    "same levels": Row("wan", {"shift": 3.0}, setup=setups.same_levels),
    "published levels": Row("wan", {"shift": 3.0}, setup=setups.published, differs="from diffusers' grid"),
    # Callbacks.
    "text replaced": Row("wan", REPLACED),
    "latents replaced": Row("wan", {"callback_on_step_end": zero_latents}),
    "stopped": Row("wan", STOPPED),
    "a guidance cutoff": Row("wan", CUTOFF),
    # LoRA.
    "two LoRAs": Row("wan", setup=lora()),
    "LoRA scale": Row("wan", HALF, setup=lora()),
    "two strengths": Row("wan", setup=lora(lambda pipe: pipe.set_adapters(["first", "second"], [0.5, 2]))),
    "one of two LoRAs": Row("wan", setup=lora(lambda pipe: pipe.set_adapters("second"))),
    "LoRA disabled": Row("wan", setup=lora(lambda pipe: pipe.disable_lora())),
    "LoRA deleted": Row("wan", setup=lora(lambda pipe: pipe.delete_adapters("first")), slow=True),
    "fused": Row("wan", setup=lora(lambda pipe: pipe.fuse_lora(lora_scale=0.7))),
    "unfused": Row("wan", setup=lora(lambda pipe: (pipe.fuse_lora(), pipe.unfuse_lora())), slow=True),
    "unloaded": Row("wan", setup=lora(lambda pipe: pipe.unload_lora_weights())),
    # Files, memory, caches.
    "saved": Row("wan", setup=setups.saved, slow=True),
    "group offload": Row("wan", setup=setups.offload),
    "layerwise casting": Row("wan", setup=setups.cast),
    "PyramidAttentionBroadcast": Row("wan", {**UNGUIDED, **STEPS}, setup=cached(setups.pyramid)),
    "PyramidAttentionBroadcast, guided": Row("wan", STEPS, setup=cached(setups.pyramid)),
    "FasterCache": Row("wan", {**UNGUIDED, **STEPS}, setup=cached(setups.faster)),
    "FirstBlockCache": Row("wan", STEPS, setup=FIRST_BLOCK),
    "TaylorSeer": Row("wan", STEPS, setup=cached(setups.extrapolated)),
    # Wan2.2.
    "two experts": Row("experts"),
    "two experts, two scales": Row("experts", *scales(low=2.0, high=4.0)),
    "low scale of 1": Row("experts", *scales(low=1.0, high=4.0)),
    "high scale of 1": Row("experts", *scales(low=4.0, high=1.0), differs="diffusers goes by the first"),
    "image": Row("image"),
    "first and last image": Row("image", LAST, output="np"),
    "two prompts of an image": Row("image", TWO, slow=True),
    "a larger image": Row("image", LARGE, differs="diffusers stretches them with Lanczos"),
    "a video's last frame": Row("image", *VIDEO),
    "image, same levels": Row("image", *scales(3.0, 4.0, shift=3.0, **LAST), setup=setups.same_levels),
    "5B": Row("5b"),
    "5B image": Row("5b image", output="np"),
    "5B, a larger image": Row("5b image", LARGE, slow=True),
    # SkyReels-V2.
    "SkyReels text": Row("skyreels", output="np"),
    "SkyReels embeddings of two": Row("skyreels", {**EMBEDDED, "num_videos_per_prompt": 2}, slow=True),
    "SkyReels LoRA": Row("skyreels", HALF, setup=lora()),
    "SkyReels, same levels": Row("skyreels image", {"shift": 3.0}, setup=setups.same_levels),
    "SkyReels PyramidAttentionBroadcast": Row("skyreels", STEPS, setup=cached(setups.pyramid)),
    "SkyReels image": Row("skyreels image"),
    "SkyReels image, two prompts": Row("skyreels image", TWO, slow=True),
    "SkyReels image, TaylorSeer": Row("skyreels image", STEPS, setup=cached(setups.extrapolated), slow=True),
    "SkyReels first and last image": Row("skyreels images"),
    "forcing": Row("forcing", output="np"),
    "forcing, no guidance": Row("forcing", UNGUIDED),
    "forcing, same levels": Row("forcing", {"shift": 3.0, "ar_step": 1}, setup=setups.same_levels),
    "forcing at 16 fps": Row("forcing", {"fps": 16}),
    "forcing, two prompts": Row("forcing, no rate", TWO, slow=True),
    "forcing, generators": Row("forcing, no rate", GENERATORS, slow=True),
    "forcing, text replaced": Row("forcing", REPLACED, slow=True),
    "forcing, stopped": Row("forcing", STOPPED, slow=True),
    "asynchronous": Row("forcing", {"ar_step": 1}),
    "asynchronous blocks, causal": Row("forcing", {**BLOCKS, "causal_attention": True}),
    "asynchronous blocks": Row("forcing", BLOCKS, differs="`causal_block_size` makes attention causal"),
    "forcing from an image": Row("forcing image"),
    "forcing between images": Row("forcing image", LAST, output="np"),
    "noise on known frames": Row(
        "forcing image", {"addnoise_condition": 20}, slow=True,
        differs="diffusers draws it from torch's global generator",
    ),
    "long": Row("forcing", {**LONG, "overlap_history": 5}, differs="in diffusers by latents", slow=True),
    "forcing after a video": Row("forcing video", output="np", differs="we return the new frames", slow=True),
    # HunyuanVideo.
    "token replace": Row("replace"),
    "token replace, frames": Row("replace", output="np", slow=True),
    "latent concat": Row("concat", output="np"),
    "latent concat, latents": Row("concat", differs="diffusers leaves out the first latent frame", slow=True),
    "Hunyuan guided": Row("concat", GUIDED, output="np"),
    "Hunyuan guided, token replace": Row("replace", GUIDED, differs="diffusers every second", slow=True),
    "Hunyuan, not stable": Row("replace", {"i2v_stability": False}, differs="diffusers always does"),
    "Hunyuan embeddings": Row("replace", ENCODED),
    "Hunyuan short prompts": Row("replace", {"prompt": "a cat" * 9, "max_sequence_length": 32}),
    "Hunyuan latents": Row("replace", {"latents": torch.ones(1, 16, 2, 4, 4)}),
    "Hunyuan, published levels": Row("replace", {"shift": 7.0}, setup=setups.published),
    "Hunyuan Euler": Row("replace", setup=EULER),
    "Hunyuan text replaced": Row("replace", REPLACED),
    "Hunyuan stopped": Row("replace", STOPPED),
    "Hunyuan two LoRAs": Row("replace", HALF, setup=lora()),
    "Hunyuan layerwise casting": Row("replace", setup=setups.cast),
    # What both refuse, or only ours.
    "odd size": Row("wan", {"height": 20}, refused="height 20: must be a multiple of 16; nearest 16 or 32"),
    "odd length": Row("wan", {"num_frames": 10}, refused="nearest 9 or 13", differs="diffusers rounds it"),
    "no steps": Row("wan", {"num_inference_steps": 0}, refused="nearest 1"),
    "other latents": Row("wan", {"latents": torch.ones(1, 4, 3, 2, 2)}, refused=r"must be \[1, 16, 3"),
    "no prompt": Row("wan", NO_TEXTS, refused="prompt=: none given"),
    "prompt twice": Row("wan", PROMPT_TWICE, refused="prompt_embeds=: stands for prompt="),
    "a number": Row("wan", {"prompt": 5}, refused="prompt= int: must be a text or a list of texts"),
    "three negatives": Row("wan", {**TWO, **THREE}, refused=r"prompt= \(2\): negative_prompt= has 3"),
    "three seeds": Row("wan", {"generator": generators(1, 2, 3)}, refused="there are 1 videos; give one"),
    "no such tensor": Row("wan", {**REPLACED, TENSORS: ["noise"]}, refused="must be among latents"),
    "no such argument": Row("wan", {"num_inference_step": 3}, refused="nearest num_inference_steps="),
    "image for a text": Row("wan", {"image": picture(1)}, refused="image=: is no argument of TextToVideo"),
    "long without overlap": Row("forcing", LONG, refused="overlap_history"),
    "Hunyuan odd size": Row("replace", {"height": 30}, refused="height"),
}
# fmt: on


def rows(refused: bool):
    """Return the names of the rows that are refused, or of those that are not."""
    return [
        pytest.param(name, marks=pytest.mark.slow if row.slow else ())
        for name, row in ROWS.items()
        if bool(row.refused) == refused
    ]


def both(row: Row):
    """Return ((our pipeline, its arguments), (theirs, its arguments))."""
    pair = PAIRS[row.pair]
    given = {**pair.call, **row.given}
    theirs = {**pair.as_theirs(given), **row.theirs}
    return [
        (row.setup(pipe) or pipe, arguments)
        for pipe, arguments in zip(pair.build(), (given, theirs), strict=True)
    ]


def make(pipeline, given, output):
    """Make a call's videos."""
    made = {
        name: value.make(pipeline) if isinstance(value, Fresh) else value for name, value in given.items()
    }
    result = pipeline(**{"generator": seeded(), "output_type": output, **made})
    return result[0] if isinstance(result, tuple) else result.frames


def distance(found, expected):
    """Return the largest difference, as part of the largest value above 1; infinite for other shapes."""
    assert type(found) is type(expected)
    rounding = 1 / 255 if isinstance(expected, list) else 0  # of pictures
    if rounding:
        found, expected = (
            np.array([[np.array(frame) / 255 for frame in video] for video in videos])
            for videos in (found, expected)
        )
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    if found.shape != expected.shape:
        return torch.inf
    largest = expected.abs().max().clamp(min=1)
    return ((found - expected).abs().max() / largest - rounding).item()


@pytest.mark.parametrize("name", rows(refused=False))
def test_a_call_gives_what_diffusers_gives(name):
    row = ROWS[name]
    (ours, given), (theirs, named) = both(row)
    apart = distance(make(ours, given, row.output), make(theirs, named, row.output))
    assert (apart > 1e-4) if row.differs else (apart <= 2e-5)
    renamed = "guidance_scale" in PAIRS[row.pair].renamed
    read = [key for key in READ if not (renamed and "guidance" in key)]
    assert {key: getattr(ours, key) for key in read} == {key: getattr(theirs, key) for key in read}


@pytest.mark.parametrize("name", rows(refused=True))
def test_what_diffusers_refuses_is_refused_in_one_line(name):
    row = ROWS[name]
    (ours, given), (theirs, named) = both(row)
    errors = (ValueError, TypeError, LookupError, RuntimeError)
    with nullcontext() if row.differs else pytest.raises(errors):
        make(theirs, named, row.output)
    with pytest.raises(InputError, match=row.refused) as error:
        make(ours, given, row.output)
    assert "\n" not in str(error.value)


def test_every_difference_is_documented():
    said = " ".join((ROOT / "docs" / "python.md").read_text(encoding="utf-8").split())
    assert [row.differs for row in ROWS.values() if row.differs not in said] == []
