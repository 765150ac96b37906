"""A small picture of a result, inside the page that shows it."""

import base64
import io
from typing import NamedTuple

from PIL import Image

from videogen.errors import VideoGenError, one_line
from videogen.review.found import Found
from videogen.review.frames import middle_frame

# (pixels of the longer side, quality of the JPEG), the largest file first.
STEPS = ((400, 80), (400, 60), (320, 60), (320, 40), (240, 40), (160, 40), (96, 30))
EMPTY = (16, 9)  # of a result without a picture


class Poster(NamedTuple):
    """A JPEG as a data URI, the size of the frame that it shows, and what is wrong with the video."""

    uri: str
    width: int
    height: int
    problem: str = ""


def poster_of(found: Found, limit: int) -> Poster:
    """Return the middle frame in at most ``limit`` bytes, or the smallest size; without one a problem."""
    try:
        image = Image.fromarray(middle_frame("--report", found))
    except VideoGenError as error:
        return Poster("", *EMPTY, problem=one_line(error))
    for side, quality in STEPS:
        small, file = image.copy(), io.BytesIO()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        small.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= limit:
            break
    uri = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Poster(uri, image.width, image.height)
