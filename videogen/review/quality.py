"""How alike two frames are: PSNR, and SSIM (Wang et al. 2004) in windows of 7x7 pixels, as scikit-image."""

import math
from functools import reduce

import numpy as np

WINDOW = 7  # pixels
COUNT = WINDOW * WINDOW
PEAK = 255.0
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Return the peak signal to noise ratio of uint8 frames in dB; infinite if they are equal."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean structural similarity of uint8 frames [H, W, 3], channel by channel.

    Windows weigh all pixels alike and lie inside the frame; variances are those of a sample.
    """
    channels = [_channel_ssim(one[..., channel], other[..., channel]) for channel in range(one.shape[2])]
    return sum(channels) / len(channels)


def _channel_ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Return the similarity of one channel [H, W]; all sums are of whole numbers, which 32 bits hold."""
    a, b = one.astype(np.int32), other.astype(np.int32)
    sum_a, sum_b = _window_sums(a), _window_sums(b)
    product, squares = sum_a * sum_b, sum_a * sum_a + sum_b * sum_b
    covariance = COUNT * _window_sums(a * b) - product  # times COUNT * (COUNT - 1), as the variances
    variances = COUNT * _window_sums(a * a + b * b) - squares
    means, spreads = C1 * COUNT**2, C2 * COUNT * (COUNT - 1)
    luminance = (2.0 * product + means) / (squares + means)
    return float(np.mean(luminance * (2.0 * covariance + spreads) / (variances + spreads)))


def _window_sums(values: np.ndarray) -> np.ndarray:
    """Return the sum over every window of 7x7 [H-6, W-6]."""
    height, width = (side - WINDOW + 1 for side in values.shape)
    rows = reduce(np.add, (values[start : start + height] for start in range(WINDOW)))
    return reduce(np.add, (rows[:, start : start + width] for start in range(WINDOW)))
