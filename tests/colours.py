"""Colours in sRGB, and the curves and primaries in which files hold them."""

import numpy as np

COLOURS = np.array(
    [(220, 30, 30), (30, 200, 30), (196, 140, 110), (230, 230, 230), (128, 128, 128), (10, 10, 10)]
)
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
TO_DISPLAY_P3 = np.array([[0.8225, 0.1774, 0.0], [0.0332, 0.9669, 0.0], [0.0171, 0.0724, 0.9108]])


def from_srgb(colours):
    signal = np.asarray(colours) / 255
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def from_bt709(colours):
    signal = np.asarray(colours) / 255
    return np.where(signal < 0.081, signal / 4.5, ((signal + 0.099) / 1.099) ** (1 / 0.45))


def pq(light):
    """The inverse EOTF (SMPTE ST 2084); 1 is 203 nits."""
    power = np.clip(light * 203 / 10000, 0, 1) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light):
    """The OETF (ARIB STD-B67) of scene light; 1 is 75 % of the signal."""
    scene = np.clip(light, 1e-9, None) * 0.26496256
    bright = 0.17883277 * np.log(np.maximum(12 * scene, 1) - 0.28466892) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


def bt709(light):
    light = np.clip(light, 1e-9, 1)
    return np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)
