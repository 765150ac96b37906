"""A pipeline's call: what only ours takes and refuses; test_beside_diffusers has the rest."""

import inspect
import threading

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image

from tests.pairs import PAIRS, picture, seeded
from videogen.errors import InputError
from videogen.pipelines.diffusion_forcing import DiffusionForcingPipeline
from videogen.pipelines.hunyuan_image_to_video import HunyuanImageToVideoPipeline
from videogen.pipelines.signature import rows_of
from videogen.pipelines.text_to_video import TextToVideoPipeline
from videogen.tasks.options import OPTIONS
from videogen.tasks.table import ROWS

SIZE = {"height": 16, "width": 16, "num_frames": 9, "num_inference_steps": 2, "guidance_scale": 3.0}


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def parts():
    """Components of a tiny Wan2.1 model."""
    return PAIRS["wan"].components()


@pytest.fixture
def ours():
    return PAIRS["wan"].build()[0]


def call(pipeline):
    return pipeline("a cat", negative_prompt="bad", **SIZE, **latent())


def test_prompts_are_encoded_without_a_transformer(parts):
    _, theirs = PAIRS["wan"].build()
    alone = quiet(TextToVideoPipeline(**{**parts, "transformer": None, "vae": None}))
    given = {"negative_prompt": ["no", "never"], "num_videos_per_prompt": 2, "max_sequence_length": 16}
    with torch.no_grad():
        expected = theirs.encode_prompt(["one", "two"], **given)
    for ours, own in zip(alone.encode_prompt(["one", "two"], **given), expected, strict=True):
        torch.testing.assert_close(ours, own)
    assert alone.encode_prompt("one", do_classifier_free_guidance=False)[1] is None
    with pytest.raises(InputError, match="prompt= a cat: this pipeline has no text encoder"):
        TextToVideoPipeline(**{**parts, "text_encoder": None})("a cat", **SIZE)


def test_hunyuan_encodes_prompts_and_image_without_a_transformer():
    pair, image, size = PAIRS["replace"], picture(1, 32), {"height": 32, "width": 32, "num_frames": 5}
    alone = quiet(HunyuanImageToVideoPipeline(**{**pair.components(), "transformer": None, "vae": None}))
    texts = ["a cat", "a very long dog"]
    encoded = alone.encode_prompt(image, texts, image_embed_interleave=4, max_sequence_length=64)
    assert len({int(mask.sum()) for mask in encoded[2]}) == 2  # the shorter one is padded
    whole, given = pair.build()[0], dict(zip(HunyuanImageToVideoPipeline.embeddings, encoded, strict=True))
    made, expected = (
        whole(**each, image=image, num_inference_steps=1, **size, **latent()).frames
        for each in (given, {"prompt": texts})
    )
    assert torch.equal(made, expected)
    with pytest.raises(InputError, match=r"image_embed_interleave=: depends on .* 4 for token_replace"):
        alone.encode_prompt(image, texts)
    whole.text_encoder = None
    with pytest.raises(InputError, match="prompt= a cat: this pipeline has no text encoder"):
        whole("a cat", image=image, **size)


def test_the_scheduler_is_the_published_one_until_another_is_set(ours):
    ours.scheduler = None
    published = call(ours).frames
    assert ours.scheduler.config.flow_shift == ours.row.defaults()["shift"]
    torch.testing.assert_close(ours("a cat", negative_prompt="bad", **SIZE, **latent()).frames, published)
    ours.scheduler = UniPCMultistepScheduler.from_config(ours.scheduler.config, flow_shift=3)
    assert ours.scheduler.config.flow_shift == 3
    assert (call(ours).frames - published).abs().max() > 1e-3
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
    base = call(ours).frames
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
        ({"prompt": []}, "prompt= list: must be a text"),
        ({"prompt": "x", "generator": 3}, "generator= int: must be torch.Generators"),
        (
            {"prompt": "x", "num_videos_per_prompt": 0},
            "num_videos_per_prompt= 0: must be a whole number above 0",
        ),
        ({"prompt": "x", "output_type": "nq"}, "output_type= nq: must be one of np, pt, pil"),
    ],
)
def test_what_a_call_cannot_use_is_said_in_one_line(ours, given, said):
    with pytest.raises(InputError, match=said) as error:
        ours(**{**SIZE, **given})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["experts", "5b"])
def test_wan22_from_components_needs_no_image(family):
    size = {**SIZE, "height": 32, "width": 32}
    pipeline, _ = PAIRS[family].build()
    image = Image.new("RGB", (32, 32), (200, 30, 90))
    made = pipeline("a cat", **size, **latent()).frames
    assert made.shape[2] == 3
    if family == "experts":
        pipeline, _ = PAIRS["image"].build()
        with pytest.raises(InputError, match="input_image=: none given"):
            pipeline("a cat", **size)
    assert (pipeline("a cat", image=image, **size, **latent()).frames - made).abs().max() > 1e-4
    with pytest.raises(InputError, match="image=: is input_image= under diffusers' name"):
        pipeline("a cat", image=image, input_image=image, **size)


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
    expected, found = call(ours).frames, {}

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
