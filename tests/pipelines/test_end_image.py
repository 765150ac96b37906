"""A video between two images; test_beside_diffusers has its latents."""

import pytest
import torch
from PIL import Image

import videogen
from tests.conftest import REFS
from videogen.errors import InputError

SIZE = (96, 64)


@pytest.fixture(scope="module")
def pipeline():
    return videogen.load("image_to_video", "tiny:wan22-a14b", dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def images():
    return [Image.open(REFS / name).convert("RGB").resize(SIZE) for name in ("robot.png", "hills.png")]


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
        both = {"input_image": images[0].resize((200, 90)), "end_image": images[0].resize((200, 90))}
        size = {"height": SIZE[1], "width": SIZE[0], "num_frames": 9, "num_inference_steps": 2}
        pipeline("x", **both, **size, guidance_scale=1.0, output_type="latent")
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
