"""A pipeline's call beside diffusers' own pipelines: the same arguments, behaviour and results."""

import inspect
import threading

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel

from videogen.errors import InputError
from videogen.models.tiny import byte_tokenizer
from videogen.pipelines.diffusion_forcing import DiffusionForcingPipeline
from videogen.pipelines.signature import rows_of
from videogen.pipelines.text_to_video import TextToVideoPipeline
from videogen.pipelines.wan22_5b import Wan22TI2V5BPipeline
from videogen.pipelines.wan22_a14b import Wan22A14BPipeline
from videogen.tasks.options import OPTIONS
from videogen.tasks.table import ROWS

SIZE = {"height": 16, "width": 16, "num_frames": 9, "num_inference_steps": 2, "guidance_scale": 3.0}
NETWORK = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 32,
    "ffn_dim": 32,
    "num_layers": 2,
}
VAE = {"base_dim": 3, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randomized(module):
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and "table" not in name:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return module.eval()


@pytest.fixture(scope="module")
def parts():
    """Components of a tiny Wan2.1 model."""
    torch.manual_seed(0)
    encoder = UMT5EncoderModel(
        UMT5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
    )
    return {
        "tokenizer": byte_tokenizer(),
        "text_encoder": randomized(encoder),
        "vae": randomized(AutoencoderKLWan(**VAE, temperal_downsample=[False, True, True])),
        "transformer": randomized(WanTransformer3DModel(**NETWORK)),
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }


def assert_same(found, expected):
    """To 2e-5 of the largest value."""
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max().clamp(min=1)


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def ours(parts):
    return quiet(TextToVideoPipeline(**parts))


@pytest.fixture
def theirs(parts):
    return quiet(WanPipeline(**parts))


def embeddings(pipeline, **more):
    with torch.no_grad():
        prompt, negative = pipeline.encode_prompt("a cat", "bad", max_sequence_length=16, **more)
    return {"prompt_embeds": prompt, "negative_prompt_embeds": negative}


def replace_text(pipe, index, timestep, tensors):
    return {"prompt_embeds": torch.ones_like(tensors["prompt_embeds"])} if index == 0 else {}


def zero_latents(pipe, index, timestep, tensors):
    last = index == pipe.num_timesteps - 1
    return {"latents": tensors["latents"] * (0 if last else 1)}


def stop(pipe, index, timestep, tensors):
    pipe._interrupt = True
    return {}


# Name -> arguments of one call; functions are of the pipeline.
CALLS = {
    "one": {"prompt": "a cat", "negative_prompt": "bad"},
    "no guidance": {"prompt": "a cat", "guidance_scale": 1.0},
    "a list of one": {"prompt": ["a cat"], "negative_prompt": ["bad"]},
    "two prompts": {"prompt": ["a cat", "a very long dog"], "negative_prompt": "bad"},
    "two negatives": {"prompt": ["a cat", "a dog"], "negative_prompt": ["bad", "worse"]},
    "two each": {"prompt": ["a cat", "a dog"], "negative_prompt": "bad", "num_videos_per_prompt": 2},
    "generators": {
        "prompt": "a cat",
        "negative_prompt": "bad",
        "num_videos_per_prompt": 2,
        "generator": lambda _: [seeded(1), seeded(2)],
    },
    "latents": {"prompt": "a cat", "negative_prompt": "bad", "latents": torch.ones(1, 16, 3, 2, 2)},
    "latents of two": {
        "prompt": ["a cat", "a dog"],
        "negative_prompt": "bad",
        "latents": torch.arange(2 * 16 * 3 * 4.0).view(2, 16, 3, 2, 2) / 384,
    },
    "embeddings": embeddings,
    "short prompts": {"prompt": "a cat and more", "negative_prompt": "bad", "max_sequence_length": 8},
    "euler": {
        "prompt": "a cat",
        "negative_prompt": "bad",
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7),
    },
    "more steps": {"prompt": "a cat", "negative_prompt": "bad", "num_inference_steps": 5},
    "text changed": {
        "prompt": "a cat",
        "negative_prompt": "bad",
        "callback_on_step_end": replace_text,
        "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"],
    },
    "latents changed": {"prompt": "a cat", "negative_prompt": "bad", "callback_on_step_end": zero_latents},
    "stopped": {"prompt": "a cat", "negative_prompt": "bad", "callback_on_step_end": stop},
    "a guidance cutoff": {
        "prompt": "a cat",
        "negative_prompt": "bad",
        "num_inference_steps": 4,
        "callback_on_step_end": lambda _: SDCFGCutoffCallback(cutoff_step_ratio=0.5),
    },
    "a LoRA's strength": {"prompt": "a cat", "negative_prompt": "bad", "attention_kwargs": {"scale": 0.5}},
}


def call(pipeline, name, output_type="latent"):
    given = CALLS[name]
    given = given(pipeline) if given is embeddings else dict(given)
    for key in ("generator", "callback_on_step_end"):
        if getattr(given.get(key), "__name__", "") == "<lambda>":
            given[key] = given[key](pipeline)
    if "scheduler" in given:
        pipeline.scheduler = given.pop("scheduler")
    return pipeline(**{**SIZE, "generator": seeded(), "output_type": output_type, **given})


@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_what_diffusers_gives(ours, theirs, name):
    expected, found = call(theirs, name).frames, call(ours, name).frames
    assert_same(found, expected)
    read = ("guidance_scale", "do_classifier_free_guidance", "num_timesteps", "current_timestep", "interrupt")
    assert {key: getattr(ours, key) for key in read} == {key: getattr(theirs, key) for key in read}


@pytest.mark.parametrize("output_type", ["np", "pt", "pil", "latent"])
def test_every_form_of_two_videos_is_diffusers(ours, theirs, output_type):
    expected, found = (call(pipe, "two prompts", output_type).frames for pipe in (theirs, ours))
    if output_type == "pil":
        assert [[frame.size for frame in video] for video in found] == [[(16, 16)] * 9] * 2
        assert np.abs(np.array(found[1][8], int) - np.array(expected[1][8], int)).max() <= 1
    else:
        assert type(found) is type(expected)
        assert_same(found, expected)


def test_prompts_are_encoded_without_a_transformer(parts, theirs):
    alone = quiet(TextToVideoPipeline(**{**parts, "transformer": None, "vae": None}))
    given = {"negative_prompt": ["no", "never"], "num_videos_per_prompt": 2, "max_sequence_length": 16}
    with torch.no_grad():
        expected = theirs.encode_prompt(["one", "two"], **given)
    for ours, own in zip(alone.encode_prompt(["one", "two"], **given), expected, strict=True):
        torch.testing.assert_close(ours, own)
    assert alone.encode_prompt("one", do_classifier_free_guidance=False)[1] is None
    with pytest.raises(InputError, match="prompt= a cat: this pipeline has no text encoder"):
        TextToVideoPipeline(**{**parts, "text_encoder": None})("a cat", **SIZE)


def test_the_scheduler_is_the_published_one_until_another_is_set(ours):
    ours.scheduler = None
    published = call(ours, "one").frames
    assert ours.scheduler.config.flow_shift == ours.row.defaults()["shift"]
    torch.testing.assert_close(ours("a cat", negative_prompt="bad", **SIZE, **latent()).frames, published)
    ours.scheduler = UniPCMultistepScheduler.from_config(ours.scheduler.config, flow_shift=3)
    assert ours.scheduler.config.flow_shift == 3
    assert (call(ours, "one").frames - published).abs().max() > 1e-3
    with pytest.raises(InputError, match=r"shift= 5.0: UniPCMultistepScheduler is set as scheduler"):
        ours("a cat", shift=5, **SIZE)


def latent():
    return {"output_type": "latent", "generator": seeded()}


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (DDIMScheduler(), "DDIMScheduler: is no flow-matching scheduler"),
        (5, "int: is no flow-matching scheduler"),
        (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "takes its shift from the size"),
    ],
)
def test_other_schedulers_are_refused_when_they_are_set(ours, scheduler, said):
    with pytest.raises(InputError, match=said):
        ours.scheduler = scheduler
    with pytest.raises(InputError, match=said):
        TextToVideoPipeline(**{**ours.components, "scheduler": scheduler})


def test_callbacks_change_the_guidance_and_not_the_scheduler(ours):
    seen = []

    def more(pipe, index, timestep, tensors):
        assert set(tensors) == {"latents", "prompt_embeds", "negative_prompt_embeds"}
        seen.append((pipe.current_timestep.item(), timestep.item(), pipe.num_timesteps))
        pipe._guidance_scale += 1

    names = ours._callback_tensor_inputs
    given = {"callback_on_step_end": more, "callback_on_step_end_tensor_inputs": names}
    base = call(ours, "one").frames
    changed = ours("a cat", negative_prompt="bad", **SIZE, **latent(), **given).frames
    assert ours.guidance_scale == SIZE["guidance_scale"] + ours.num_timesteps
    assert (changed - base).abs().max() > 1e-4
    assert all(current == timestep and steps == 2 for current, timestep, steps in seen)
    assert ours.current_timestep is None
    with pytest.raises(InputError, match="the call started without guidance"):
        ours("a cat", **{**SIZE, "guidance_scale": 1.0}, callback_on_step_end=more,
             callback_on_step_end_tensor_inputs=names)  # fmt: skip

    def switch(pipe, index, timestep, tensors):
        pipe.scheduler = FlowMatchEulerDiscreteScheduler()

    with pytest.raises(InputError, match="scheduler: cannot be set while a video is made"):
        ours("a cat", **SIZE, callback_on_step_end=switch)
    ours.scheduler = FlowMatchEulerDiscreteScheduler()  # after the call it can


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompt": 5}, "prompt= int: must be a text or a list of texts"),
        ({"prompt": []}, "prompt= list: must be a text"),
        ({}, "prompt=: none given; give a text, or prompt_embeds="),
        ({"prompt": "x", "prompt_embeds": torch.ones(1, 16, 32)}, "prompt_embeds=: stands for prompt="),
        ({"prompt": ["x", "y"], "negative_prompt": ["a", "b", "c"]}, r"prompt= \(2\): there are 3 prompts"),
        (
            {"prompt": "x", "generator": [seeded()] * 3},
            r"generator= \(3\): there are 1 videos; give one, or 1",
        ),
        ({"prompt": "x", "generator": 3}, "generator= int: must be torch.Generators"),
        (
            {"prompt": "x", "latents": torch.ones(1, 4, 3, 2, 2)},
            r"latents= \[1, 4, 3, 2, 2\]: must be \[1, 16, 3",
        ),
        (
            {"prompt": "x", "num_videos_per_prompt": 0},
            "num_videos_per_prompt= 0: must be a whole number above 0",
        ),
        ({"prompt": "x", "num_inference_step": 3}, "num_inference_step=: .* nearest num_inference_steps="),
        (
            {"prompt": "x", "image": Image.new("RGB", (16, 16))},
            "image=: is no argument of TextToVideoPipeline",
        ),
        ({"prompt": "x", "output_type": "nq"}, "output_type= nq: must be one of np, pt, pil"),
        (
            {"prompt": "x", "callback_on_step_end_tensor_inputs": ["noise"]},
            "must be among latents, prompt_embeds",
        ),
    ],
)
def test_what_a_call_cannot_use_is_said_in_one_line(ours, given, said):
    with pytest.raises(InputError, match=said) as error:
        ours(**{**SIZE, **given})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["A14B", "5B"])
def test_wan22_from_components_needs_no_image(parts, family):
    wide = {"base_dim": 3, "z_dim": 48, "in_channels": 12, "out_channels": 12, "is_residual": True}
    size = {**SIZE, "height": 32, "width": 32}
    if family == "A14B":
        pipeline = Wan22A14BPipeline(**parts, transformer_2=parts["transformer"])
        image_model = {**NETWORK, "in_channels": 36}
    else:
        vae = AutoencoderKLWan(
            **wide, patch_size=2, latents_mean=[0.0] * 48, latents_std=[1.0] * 48, dim_mult=[1, 1, 1, 1],
            num_res_blocks=1, scale_factor_spatial=16, temperal_downsample=[False, True, True],
        )  # fmt: skip
        image_model = {**NETWORK, "in_channels": 48, "out_channels": 48}
        transformer = randomized(WanTransformer3DModel(**image_model))
        pipeline = Wan22TI2V5BPipeline(**{**parts, "vae": randomized(vae), "transformer": transformer})
    image = Image.new("RGB", (32, 32), (200, 30, 90))
    made = quiet(pipeline)("a cat", **size, **latent()).frames
    assert made.shape[2] == 3
    if family == "A14B":
        transformer = randomized(WanTransformer3DModel(**image_model))
        pipeline = quiet(
            Wan22A14BPipeline(**{**parts, "transformer": transformer, "transformer_2": transformer})
        )
        with pytest.raises(InputError, match="input_image=: none given"):
            pipeline("a cat", **size)
    assert (pipeline("a cat", image=image, **size, **latent()).frames - made).abs().max() > 1e-4
    with pytest.raises(InputError, match="image=: is input_image= under diffusers' name"):
        pipeline("a cat", image=image, input_image=image, **size)


def test_first_and_last_image_as_in_diffusers(parts):
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    transformer = randomized(WanTransformer3DModel(**{**NETWORK, "in_channels": 36}))
    given = {**parts, "scheduler": scheduler, "transformer": transformer, "transformer_2": transformer}
    theirs = WanImageToVideoPipeline(**given, image_encoder=None, image_processor=None, boundary_ratio=0.9)
    first, last = Image.new("RGB", (16, 16), (200, 30, 90)), Image.new("RGB", (16, 16), (5, 99, 40))
    both = {"image": first, "last_image": last, "prompt": "a cat", "negative_prompt": "bad"}
    expected = quiet(theirs)(**both, **SIZE, **latent()).frames
    found = quiet(Wan22A14BPipeline(**given))(**both, **SIZE, **latent(), boundary=0.9).frames
    assert_same(found, expected)


def test_a_list_of_prompts_is_for_segments_where_there_are_any(parts):
    pipeline = quiet(DiffusionForcingPipeline(**parts))
    texts, embed = [], pipeline.embed
    pipeline.embed = lambda text: (texts.append(text), embed(text))[1]
    long = {**SIZE, "num_frames": 13, "base_num_frames": 9, "overlap_history": 5, "guidance_scale": 1.0}
    assert pipeline(["a", "b"], **long, **latent()).frames.shape[0] == 1
    assert texts == ["a", "b"]
    assert pipeline([["a", "b"], ["c", "d"]], **long, **latent()).frames.shape[0] == 2
    assert texts[2:] == ["a", "b", "c", "d"]
    assert pipeline(["a", "b"], **{**long, "num_frames": 9}, **latent()).frames.shape[0] == 2


def test_four_threads_share_a_pipeline(ours):
    expected, found = call(ours, "one").frames, {}

    def run(scale):
        found[scale] = ours(
            "a cat", negative_prompt="bad", **{**SIZE, "guidance_scale": scale}, **latent()
        ).frames

    threads = [threading.Thread(target=run, args=(scale,)) for scale in (3.0, 5.0, 1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(found[3.0], expected)
    assert len({frames.sum().item() for frames in found.values()}) == 4


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.family} {row.name}")
def test_the_signature_is_made_from_the_rows(row):
    from importlib import import_module

    module, _, name = row.pipeline.partition(":")
    pipeline = getattr(import_module(module), name)
    parameters = inspect.signature(pipeline.__call__).parameters
    assert row in rows_of(pipeline)
    for own in (*row.arguments, *row.inputs):
        if own in OPTIONS and own != "prompt":  # which may be a list here
            assert parameters[own].annotation is not inspect.Parameter.empty
            assert f" {own}: {OPTIONS[own].help} " in " ".join(pipeline.__call__.__doc__.split())
    assert all(parameter.default is not inspect.Parameter.empty for parameter in [*parameters.values()][1:])
