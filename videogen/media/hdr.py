"""Colours of videos beyond SDR: high dynamic range (PQ, HLG) and wide gamuts, made SDR with BT.709 primaries.

Transfer functions are those of BT.2100 and BT.709; reference white is 203 nits in PQ, and 75 % of the signal
in HLG (BT.2408). HLG is taken as scene light, so that what SDR shows is found again where it was brought into
HLG. Highlights are compressed from ``KNEE`` on, by a hyperbola whose slope begins with 1.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

PQ, HLG = 16, 18  # transfer characteristics (H.273, table 3)
BT709, BT2020, DCI_P3, DISPLAY_P3 = 1, 9, 11, 12  # colour primaries (H.273, table 2)
NAMES = {BT2020: "BT.2020", DCI_P3: "DCI-P3", DISPLAY_P3: "Display P3"}
# x and y of red, green, blue and white.
PRIMARIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), (0.3127, 0.3290)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290)),
    DCI_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    DISPLAY_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290)),
}
REFERENCE_WHITE = 203.0  # nits
BRIGHTEST = 1000.0  # nits; what most PQ films are graded for
KNEE = 0.8  # of SDR white, linear; 91 % of the signal
LEVELS = 65536
UNSTATED, BT2020_MATRIX = 2, 9  # matrix coefficients (H.273, table 4)
BT2020_MATRICES = (BT2020_MATRIX, 10)  # the second has constant luminance


class Colours(NamedTuple):
    """The transfer function and the primaries of a video, where they are not those of SDR."""

    transfer: int
    primaries: int

    @property
    def is_hdr(self) -> bool:
        return self.transfer in (PQ, HLG)

    @property
    def note(self) -> str:
        """Return what the user is told."""
        gamut = NAMES.get(self.primaries, "")
        if not self.is_hdr:
            return f"has {gamut} colours, which are converted to BT.709"
        kind = ", ".join(filter(None, ("PQ" if self.transfer == PQ else "HLG", gamut)))
        return f"is HDR ({kind}) and is tone-mapped to SDR"


def colours_of(transfer: int, primaries: int, matrix: int = UNSTATED) -> Colours | None:
    """Return what must be converted; None for a video that is shown as it is.

    Without a word about its primaries a video has those of its matrix, if that is BT.2020's. HDR is taken as
    BT.2020 anyway, the only ones of BT.2100.
    """
    if primaries == UNSTATED and matrix in BT2020_MATRICES:
        primaries = BT2020
    if transfer in (PQ, HLG):
        return Colours(transfer, primaries if primaries in PRIMARIES else BT2020)
    return Colours(transfer, primaries) if primaries in NAMES else None


def to_sdr(image: np.ndarray, colours: Colours) -> np.ndarray:
    """Convert uint16 RGB [H, W, 3], the signal over its whole range, to uint8 with BT.709 primaries."""
    light = _linear(colours.transfer)[image] @ _matrix(colours.primaries).T
    if colours.is_hdr:
        peak = light.max(axis=2, keepdims=True)
        light *= _compressed(np.maximum(peak, KNEE), colours.transfer) / np.maximum(peak, KNEE)
    index = (np.clip(light, 0, 1) * (LEVELS - 1) + 0.5).astype(np.uint16)
    return _encoded(is_hdr=colours.is_hdr)[index]


def _compressed(peak: np.ndarray, transfer: int) -> np.ndarray:
    """Return the compressed value for the greatest of a pixel's channels, which is at least ``KNEE``.

    (x + a) / (x + b) in the form that is KNEE at KNEE with slope 1, and 1 at the brightest.
    """
    most = BRIGHTEST / REFERENCE_WHITE if transfer == PQ else 1 / _hlg_light(0.75)
    a = -KNEE * KNEE * (most - 1) / (KNEE * KNEE - 2 * KNEE + most)
    b = (KNEE * KNEE - 2 * KNEE * most + most) / (most - 1)
    return (b * b + 2 * b * KNEE + KNEE * KNEE) / (b - a) * (peak + a) / (peak + b)


@cache
def _linear(transfer: int) -> np.ndarray:
    """Return linear light for every 16-bit signal, 1 being SDR white."""
    curves: dict[int, Callable[[np.ndarray], np.ndarray]] = {PQ: _pq_light, HLG: _hlg_table}
    return curves.get(transfer, _bt709_light)(np.arange(LEVELS) / (LEVELS - 1)).astype(np.float32)


def _pq_light(signal: np.ndarray) -> np.ndarray:
    """Apply the EOTF of PQ (BT.2100 table 4)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = signal ** (1 / m2)
    return 10000 / REFERENCE_WHITE * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)


def _hlg_table(signal: np.ndarray) -> np.ndarray:
    return _hlg_light(signal) / _hlg_light(0.75)


def _hlg_light(signal: np.ndarray | float) -> np.ndarray:
    """Apply the inverse OETF of HLG (BT.2100 table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    signal = np.asarray(signal)
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def _bt709_light(signal: np.ndarray) -> np.ndarray:
    """Apply the inverse OETF of BT.709, which is also that of BT.2020."""
    return np.where(signal < 0.081, signal / 4.5, ((signal + 0.099) / 1.099) ** (1 / 0.45))


@cache
def _encoded(*, is_hdr: bool) -> np.ndarray:
    """Return the 8-bit signal for linear light in 16 bits: sRGB, or of SDR the curve that it came with."""
    light = np.arange(LEVELS) / (LEVELS - 1)
    if is_hdr:
        signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    else:
        signal = np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)
    return np.rint(signal * 255).astype(np.uint8)


@cache
def _matrix(primaries: int) -> np.ndarray:
    """Return the matrix of linear RGB with these primaries to BT.709's; white stays white."""

    def to_xyz(name: int) -> np.ndarray:
        *corners, white = [np.array([x / y, 1, (1 - x - y) / y]) for x, y in PRIMARIES[name]]
        columns = np.stack(corners, axis=1)
        return columns * np.linalg.solve(columns, white)

    matrix = np.linalg.solve(to_xyz(BT709), to_xyz(primaries))
    return (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
