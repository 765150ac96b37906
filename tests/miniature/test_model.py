"""The trained miniature does what it is asked: measured by formulas on its videos."""

import functools

import numpy as np
import pytest
import torch
from PIL import Image

import videogen
from miniature import measure, world

pytestmark = pytest.mark.slow

STEPS = 12
LANDSCAPE = {"height": 64, "width": 96}
QUIET = {"motion": "turn"}  # what stays in place


@functools.cache
def pipeline(task):
    return videogen.load(task, model="miniature", dtype=torch.float32, device="cpu")


def make(task, prompt, *inputs, seed=0, **options):
    """Return the frames [F, H, W, 3] of a video, in [0, 1]."""
    given = {**LANDSCAPE, "num_inference_steps": STEPS, **options}
    generator = torch.Generator().manual_seed(seed)
    video = pipeline(task)(prompt, *inputs, generator=generator, output_type="np", **given).frames[0]
    return np.asarray(video, dtype=np.float32)


def picture(frame):
    return Image.fromarray((frame * 255).round().astype(np.uint8))


def scenes(count, seed=77, **fixed):
    """Return scenes that the training did not see; its seeds begin at a million."""
    rng = np.random.default_rng(seed)
    return [world.replace(world.draw_scene(rng), **fixed) for _ in range(count)]


@pytest.fixture(scope="module")
def prompted():
    """60 prompts with a seed each: (scene, what its video shows)."""
    return [
        (scene, measure.see(make("text_to_video", world.describe(scene), num_frames=17, seed=seed)))
        for seed, scene in enumerate(scenes(60))
    ]


def agreement(pairs):
    return np.mean([(seen.colour, seen.motion) == (scene.colour, scene.motion) for scene, seen in pairs])


def test_a_video_shows_what_its_prompt_says(prompted):
    assert agreement(prompted) >= 0.9


def test_and_not_what_another_prompt_says(prompted):
    others = [
        (scene, seen) for (scene, _), (_, seen) in zip(prompted, prompted[1:] + prompted[:1], strict=True)
    ]
    assert agreement(others) <= 0.2


def test_guidance_raises_agreement(prompted):
    unguided = [
        (
            scene,
            measure.see(
                make("text_to_video", world.describe(scene), num_frames=17, seed=seed, guidance_scale=1)
            ),
        )
        for seed, (scene, _) in enumerate(prompted[:20])
    ]
    assert agreement(unguided) <= agreement(prompted[:20])


def test_a_video_begins_with_its_image():
    for seed, scene in enumerate(scenes(3)):
        start = world.draw(scene, range(1), 64, 96)[0]
        made = make(
            "diffusion_forcing", world.describe(scene), input_image=picture(start), num_frames=17, seed=seed
        )
        assert measure.psnr(made[0], start) >= 25
        assert measure.see(made).colour == scene.colour
