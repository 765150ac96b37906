"""How alike two frames are: PSNR, and SSIM (Wang et al. 2004) in windows of 7x7 pixels, as scikit-image."""

import math

import numpy as np

WINDOW = 7  # pixels
PEAK = 255.0
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Return the peak signal to noise ratio of uint8 frames in dB; infinite if they are equal."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean structural similarity of uint8 frames [H, W, 3], channel by channel.

    Windows weigh all pixels alike and lie inside the frame; variances are those of a sample. The sums are of
    whole numbers, and exact.
    """
    a, b = one.astype(np.int64), other.astype(np.int64)
    count = WINDOW * WINDOW
    mean_a, mean_b = _window_sums(a) / count, _window_sums(b) / count
    sample = 1 / (count - 1)
    var_a = (_window_sums(a * a) - count * mean_a**2) * sample
    var_b = (_window_sums(b * b) - count * mean_b**2) * sample
    covariance = (_window_sums(a * b) - count * mean_a * mean_b) * sample
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return float(np.mean(luminance * (2 * covariance + C2) / (var_a + var_b + C2)))


def _window_sums(values: np.ndarray) -> np.ndarray:
    """Return the sum over every window of 7x7 [H-6, W-6, C]."""
    for axis in (0, 1):
        sums = np.cumsum(values, axis)
        first, before = np.split(sums, [WINDOW - 1], axis)[1], np.zeros_like(np.take(sums, [0], axis))
        until = np.take(sums, range(sums.shape[axis] - WINDOW), axis)
        values = first - np.concatenate([before, until], axis)
    return values
