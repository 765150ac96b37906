"""The miniature's world: what is drawn is what the caption says, as measured by formulas."""

from dataclasses import replace

import numpy as np
import pytest

from miniature import measure, world

SIZES = [(64, 96), (96, 64)]


@pytest.mark.parametrize("size", SIZES)
def test_formulas_find_what_was_drawn(size):
    rng = np.random.default_rng(5)
    for _ in range(40):
        scene = world.draw_scene(rng)
        clip = world.draw(scene, range(33), *size)
        noisy = np.clip(clip + 0.02 * rng.normal(size=clip.shape), 0, 1).astype(np.float32)
        seen = measure.see(noisy)
        assert (seen.colour, seen.motion) == (scene.colour, scene.motion), scene


def test_a_landscape_alone_has_no_shape():
    scene = world.draw_scene(np.random.default_rng(1))
    away = replace(scene, motion="left", way=(9.0, 9.0))
    seen = measure.see(world.draw(away, range(9), 64, 96))
    assert (seen.colour, seen.motion) == (None, None)


def test_the_same_seed_draws_the_same():
    clips = [world.draw(world.draw_scene(np.random.default_rng(3)), range(5), 64, 96) for _ in range(2)]
    assert np.array_equal(*clips)
    assert clips[0].shape == (5, 64, 96, 3)
    assert clips[0].dtype == np.float32
    assert clips[0].min() >= 0
    assert clips[0].max() <= 1


def test_frames_do_not_depend_on_those_drawn_with_them():
    scene = world.draw_scene(np.random.default_rng(4))
    assert np.array_equal(
        world.draw(scene, range(20), 64, 96)[12:15], world.draw(scene, range(12, 15), 64, 96)
    )


def test_captions_name_what_is_seen():
    scene = replace(
        world.draw_scene(np.random.default_rng(0)),
        shape="ball",
        colour="orange",
        motion="up",
        ground="snow",
        sky="fog",
        camera="left",
    )
    assert world.describe(scene) == "an orange ball moves up over snow in fog, the camera pans left"
    assert world.describe(scene, subject="the object").startswith("the object moves up")
    variants = {world.describe(scene, np.random.default_rng(seed)) for seed in range(50)}
    assert len(variants) > 10
    assert all(text.startswith("an orange ball ") for text in variants)


def test_another_shot_shows_the_same_shape():
    rng = np.random.default_rng(2)
    scene = world.draw_scene(rng)
    other = world.another_shot(scene, rng)
    assert (other.shape, other.colour) == (scene.shape, scene.colour)
    assert other != scene


def test_a_mouth_opens_with_the_loudness():
    rng = np.random.default_rng(6)
    for _ in range(5):
        portrait, loudness = world.draw_portrait(rng), world.draw_loudness(rng, 60)
        opened = measure.openness(world.speak(portrait, loudness, 96, 64))
        assert np.corrcoef(opened, loudness)[0, 1] > 0.95
