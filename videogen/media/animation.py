"""Short animations for a quick look."""

from pathlib import Path

import numpy as np
from PIL import Image

QUALITY = 75
FASTEST = 0  # of WebP's methods 0 to 6: a preview is made while a GPU waits


def write_webp(path: Path, frames: np.ndarray, seconds_per_frame: float) -> None:
    """Write frames, uint8 [F, H, W, 3], as an animated WebP that repeats."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(
        path,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=round(1000 * seconds_per_frame),
        loop=0,
        quality=QUALITY,
        method=FASTEST,
    )
