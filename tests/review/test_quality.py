"""PSNR and SSIM against recorded results of scikit-image 0.26.

They are those of structural_similarity(a, b, channel_axis=2) and peak_signal_noise_ratio(a, b).
"""

import math

import numpy as np
import pytest

from videogen.review.quality import psnr, ssim


def picture():
    across, down = np.meshgrid(np.arange(40), np.arange(30))
    return np.stack([across * 6, down * 8, (across * down) % 256], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "similarity", "ratio"),
    [
        (lambda a: np.roll(a, 1, 1), 0.8920813307441652, 16.303785564877384),
        (lambda a: a // 2, 0.6622082597428043, 11.668003940705079),
        (lambda a: np.full_like(a, 128), 0.14121249778918685, 10.837473416588999),
    ],
    ids=["shifted", "darker", "flat"],
)
def test_figures_are_those_of_scikit_image(change, similarity, ratio):
    one = picture()
    assert ssim(one, change(one)) == pytest.approx(similarity, rel=1e-12)
    assert ssim(change(one), one) == pytest.approx(similarity, rel=1e-12)
    assert psnr(one, change(one)) == pytest.approx(ratio, rel=1e-12)


def test_equal_frames():
    assert ssim(picture(), picture()) == pytest.approx(1, abs=1e-12)
    assert psnr(picture(), picture()) == math.inf
