"""Matching of colours: known values, means and spreads."""

import pytest
import torch

from videogen.pipelines.color import _to_lab, _to_rgb, match_color

# sRGB in 255ths, and CIE Lab under D65 as tables list it.
LAB = {
    (255, 255, 255): (100.0, 0.0, 0.0),
    (255, 0, 0): (53.24, 80.09, 67.20),
    (0, 255, 0): (87.74, -86.18, 83.18),
    (0, 0, 255): (32.30, 79.19, -107.86),
    (128, 128, 128): (53.59, 0.0, 0.0),
    (5, 5, 5): (1.37, 0.0, 0.0),
    (20, 2, 2): (1.78, 5.50, 1.94),
    (0, 0, 0): (0.0, 0.0, 0.0),
}


def image(*colours):
    """[1, 3, F, 1, 1] in [0, 1]."""
    return torch.tensor(colours, dtype=torch.float64).div(255).T[None, :, :, None, None]


@pytest.mark.parametrize("rgb", LAB)
def test_lab(rgb):
    lab = _to_lab(image(rgb))
    assert lab.flatten().tolist() == pytest.approx(LAB[rgb], abs=0.05)
    torch.testing.assert_close(_to_rgb(lab), image(rgb), atol=2e-4, rtol=0)


def test_colours_that_no_screen_has_are_clipped():
    impossible = torch.tensor(
        [[50.0, 120.0, -100.0], [1.0, 0.0, 60.0], [99.0, -80.0, 0.0]], dtype=torch.float64
    )
    made = _to_rgb(impossible.T[None, :, :, None, None])
    assert made.min() == 0
    assert made.max() == 1
    x = made[0, :, 1].flatten().tolist()
    assert x == pytest.approx([0.10806, 0.0033, 0], abs=1e-3)  # z is cut off at 0


def spread(lab):
    return lab.mean((-2, -1)), lab.std((-2, -1), correction=0)


def drawn(frames, middle, width, seed):
    """Noise around a colour, in [-1, 1]."""
    noise = torch.rand(1, 3, frames, 8, 8, generator=torch.Generator().manual_seed(seed)) - 0.5
    return torch.tensor(middle).view(1, 3, 1, 1, 1) + width * noise


def test_every_frame_gets_mean_and_spread_of_the_reference():
    video = torch.cat([drawn(1, (0.1, 0.0, -0.1), 0.3, 1), drawn(1, (-0.2, 0.2, 0.1), 0.1, 2)], dim=2)
    reference = drawn(1, (0.2, -0.1, 0.0), 0.2, 3)[..., :6, :5]
    mean, std = spread(_to_lab(reference / 2 + 0.5))
    made_mean, made_std = spread(_to_lab(match_color(video, reference) / 2 + 0.5))
    torch.testing.assert_close(made_mean, mean.expand_as(made_mean), atol=0.02, rtol=0)
    torch.testing.assert_close(made_std, std.expand_as(made_std), atol=0.02, rtol=0)


def test_strength():
    video, reference = drawn(2, (0.1, 0.0, -0.1), 0.3, 1), drawn(1, (0.2, -0.1, 0.0), 0.2, 3)
    whole = match_color(video, reference)
    assert match_color(video, reference, 0) is video
    torch.testing.assert_close(match_color(video, reference, 1.0), whole)
    torch.testing.assert_close(match_color(video, reference, 0.25), 0.75 * video + 0.25 * whole)
    assert match_color(video.bfloat16(), reference).dtype == torch.bfloat16


def test_flat_and_nearly_flat_frames():
    """Their spread is not divided by zero; a spread of a tenth is a spread."""
    reference = drawn(1, (0.2, -0.1, 0.0), 0.2, 3)
    flat = match_color(torch.full((1, 3, 1, 4, 4), 0.3), reference)
    assert flat.isfinite().all()
    assert flat.std((-2, -1)).max() < 1e-3
    faint = match_color(drawn(1, (0.1, 0.1, 0.1), 0.005, 4), reference)
    _, std = spread(_to_lab(reference / 2 + 0.5))
    _, made = spread(_to_lab(faint / 2 + 0.5))
    torch.testing.assert_close(made, std, atol=0.2, rtol=0)


def test_pixels_keep_their_places_in_the_spread():
    video, reference = drawn(2, (0.1, 0.0, -0.1), 0.9, 1), drawn(1, (0.2, -0.1, 0.0), 0.4, 3)
    lab, goal = _to_lab((video + 1) / 2), _to_lab((reference + 1) / 2)
    for frame in range(2):
        own = lab[:, :, frame : frame + 1]
        (mean, std), (wanted, width) = spread(own), spread(goal)
        scaled = (own - mean[..., None, None]) * (width / std)[..., None, None] + wanted[..., None, None]
        made = match_color(video, reference)[:, :, frame : frame + 1]
        torch.testing.assert_close(made, 2 * _to_rgb(scaled) - 1, atol=1e-5, rtol=0)
