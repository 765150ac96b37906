"""What a video of the world shows, by formulas: colour and motion of the shape, how wide a mouth is open.

Shapes: F frames, H/W height/width; pictures are RGB in [0, 1].
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miniature.world import HUES, Picture

CHROMA = 0.35  # of the shape at least; of skies and grounds at most 0.25
LEAST = 0.004  # of the picture that a shape covers
FAR = 0.08  # of the shorter side; what moves less does not move
# Rows and columns from the middle of a portrait, in parts of its shorter side: where ``openness`` follows the
# loudness of drawn faces best.
MOUTH = (0.04, 0.2), (-0.1, 0.1)
GROWTH = 1.5  # of the covered area, between the first and the last third


@dataclass(frozen=True, slots=True)
class Seen:
    """What a video shows.

    Args:
        colour: name of the shape's colour; None if there is no shape in most frames.
        motion: one of the world's motions; None without a shape.
        path: centre of the shape (x, y) in parts of the shorter side [F, 2]; NaN where there is none.
        area: part of the picture that the shape covers [F].
    """

    colour: str | None
    motion: str | None
    path: NDArray[np.float64]
    area: NDArray[np.float64]


def see(frames: Picture) -> Seen:
    """Return what frames [F, H, W, 3] show."""
    strong = frames.max(-1) - frames.min(-1) > CHROMA
    area = strong.mean(axis=(1, 2))
    height, width = strong.shape[1:]
    y, x = np.mgrid[0:height, 0:width]
    count = np.maximum(strong.sum(axis=(1, 2)), 1)
    path = np.stack([(strong * axis).sum(axis=(1, 2)) / count for axis in (x, y)], axis=1)
    path = path / min(height, width)
    path[area < LEAST] = np.nan
    if (area >= LEAST).mean() < 0.5:
        return Seen(None, None, path, area)
    return Seen(name_colour(frames[strong].mean(axis=0)), _motion(path, area), path, area)


def name_colour(rgb: Picture) -> str:
    """Return the name of the hue nearest to a colour [3]."""
    red, green, blue = map(float, rgb)
    hue = np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)) % 360
    return min(HUES, key=lambda name: min(abs(hue - HUES[name]), 360 - abs(hue - HUES[name])))


def _motion(path: NDArray[np.float64], area: NDArray[np.float64]) -> str:
    """Return the motion that a path and covered areas show."""
    seen = ~np.isnan(path[:, 0])
    path, area = path[seen], area[seen]
    third = max(1, len(path) // 3)
    moved = path[-third:].mean(axis=0) - path[:third].mean(axis=0)
    way = np.abs(np.diff(path[:, 1])).sum()
    net = abs(path[-1, 1] - path[0, 1])
    if way > 2 * FAR and net < 0.6 * way and abs(moved[0]) < 2 * FAR:
        return "bounce"
    if area[-third:].mean() > GROWTH * area[:third].mean():
        return "grow"
    if np.abs(moved).max() < FAR:
        return "turn"
    if abs(moved[0]) > abs(moved[1]):
        return "left" if moved[0] < 0 else "right"
    return "up" if moved[1] < 0 else "down"


def openness(frames: Picture) -> NDArray[np.float64]:
    """Return how wide the mouth is open in every frame [F] of a portrait, in no unit.

    Lips and the inside of a mouth have less green than any skin: it is the mean, where mouths are, of how
    much less green a pixel has than in the frame in which it has the most.
    """
    sides = frames.shape[1:3]
    reach = np.multiply(MOUTH, min(sides)) + np.divide(sides, 2)[:, None]
    (top, bottom), (left, right) = reach.round().astype(int)
    green = frames[:, top:bottom, left:right, 1]
    return (green.max(axis=0) - green).mean(axis=(1, 2), dtype=np.float64)
