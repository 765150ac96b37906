"""A video between two images with Wan2.2 A14B, against diffusers' pipeline on the same weights."""

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline, WanTransformer3DModel
from PIL import Image

import videogen
from tests.conftest import REFS
from videogen.diffusion.sampling import unipc
from videogen.errors import InputError

STEPS, SHIFT, BOUNDARY, FRAMES, SIZE = 4, 5.0, 0.9, 9, (96, 64)


@pytest.fixture(scope="module")
def pipeline():
    return videogen.load("image_to_video", "tiny:wan22-a14b", dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def images():
    return [Image.open(REFS / name).convert("RGB").resize(SIZE) for name in ("robot.png", "hills.png")]


class SameLevels(UniPCMultistepScheduler):
    """The scheduler at the published noise levels, whatever the pipeline asks for."""

    def set_timesteps(self, num_inference_steps=None, **options):
        levels = np.linspace(float(np.float32(0.999)), 0, num_inference_steps + 1)[:-1]
        super().set_timesteps(sigmas=levels, device=options.get("device"))


def latents(pipeline, images, guidance, end=True, **more):
    return pipeline(
        "a robot walks into the hills",
        input_image=images[0],
        end_image=images[1] if end else None,
        negative_prompt="blurred",
        height=SIZE[1],
        width=SIZE[0],
        num_frames=FRAMES,
        num_inference_steps=STEPS,
        shift=SHIFT,
        sample_solver="unipc",
        guidance_scale=guidance,
        boundary=BOUNDARY,
        generator=torch.Generator().manual_seed(4),
        output_type="latent",
        **more,
    ).frames


@pytest.mark.parametrize("end", [True, False])
def test_latents_are_those_of_diffusers(pipeline, images, end):
    folder = pipeline.checkpoint.folder
    experts = {
        name: WanTransformer3DModel.from_pretrained(folder / name, torch_dtype=torch.float32).eval()
        for name in ("transformer", "transformer_2")
    }
    scheduler = SameLevels(**dict(unipc(STEPS, SHIFT).scheduler.config))
    parts = {name: getattr(pipeline, name) for name in ("tokenizer", "text_encoder", "vae")}
    reference = WanImageToVideoPipeline(**parts, **experts, scheduler=scheduler, boundary_ratio=BOUNDARY)
    reference.set_progress_bar_config(disable=True)
    low, high = 3.0, 4.0
    made = latents(pipeline, images, (low, high), end)
    expected = reference(
        image=images[0],
        last_image=images[1] if end else None,
        prompt="a robot walks into the hills",
        negative_prompt="blurred",
        height=SIZE[1],
        width=SIZE[0],
        num_frames=FRAMES,
        num_inference_steps=STEPS,
        guidance_scale=high,
        guidance_scale_2=low,
        generator=torch.Generator().manual_seed(4),
        output_type="latent",
    ).frames
    torch.testing.assert_close(made, expected, rtol=0, atol=2e-5)  # float32, latents up to 5.6
    used = [bool(level >= 1000 * BOUNDARY) for level in scheduler.timesteps]
    assert {*used} == {True, False}, "both experts must work"


def test_the_mask_marks_one_row_of_the_last_latent_frame(pipeline):
    first, last = torch.zeros(1, 3, 1, 16, 16), torch.ones(1, 3, 1, 16, 16)
    mask = pipeline.encode_ends(first, last, 9)[0, :4, :, 0, 0]
    assert mask.tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 1]]


def test_the_last_image_is_stretched_like_the_first(pipeline, images):
    """Otherwise the ends of a still scene would not fit together."""
    encoded = []
    whole = pipeline.encode_ends
    try:
        pipeline.encode_ends = lambda first, last, frames: (
            encoded.append((first, last)) or whole(first, last, frames)
        )
        latents(pipeline, [images[0].resize((200, 90))] * 2, (1.0, 1.0))
    finally:
        del pipeline.encode_ends
    ((first, last),) = encoded
    assert first.shape == last.shape == (1, 3, 1, SIZE[1], SIZE[0])
    assert torch.equal(first, last)


def test_one_frame_has_no_room_for_two_images(pipeline, images):
    with pytest.raises(InputError, match="at least 5"):
        pipeline("x", input_image=images[0], end_image=images[1], num_frames=1, height=64, width=96)


def test_skyreels_v2_ends_with_an_image(robot):
    """The last frame is known to the mask, as the first is."""
    pipeline = videogen.load("image_to_video", "tiny:skyreels-v2-i2v", dtype=torch.float32, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    size = {"height": 32, "width": 48, "num_frames": 9, "num_inference_steps": 2, "output_type": "latent"}
    end = Image.new("RGB", (48, 32), (250, 5, 120))

    def make(**more):
        return pipeline("x", image=robot, generator=torch.Generator().manual_seed(1), **size, **more).frames

    plain, ended = make(), make(last_image=end)
    assert (ended - plain).abs().max() > 1e-3
    first = torch.zeros(1, 3, 1, 32, 48)
    known = pipeline.encode_ends(first, first + 1, 9)
    assert known[0, :4, :, 0, 0].tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 1]]
