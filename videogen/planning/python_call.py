"""What Python callers give, made into the arguments of a pipeline."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from videogen.errors import InputError
from videogen.media.audio import InputAudio, read_audio
from videogen.media.download import Fetcher
from videogen.media.frames import as_picture, as_video
from videogen.media.picture import to_srgb
from videogen.tasks.task_spec import Files

logger = logging.getLogger(__name__)


def _as_image(name: str, given: object) -> Image.Image:
    shown, notes = to_srgb(as_picture(name, given))
    for note in notes:
        logger.warning("%s: a picture %s", name, note)
    return shown


def _as_audio(name: str, given: object) -> InputAudio:
    if isinstance(given, InputAudio):
        return given
    if not isinstance(given, str | Path) or "://" in str(given):
        raise InputError(f"{name}=", type(given).__name__, "must be a sound file", "give its path")
    return read_audio(f"{name}=", str(given), Fetcher(folder=Path()))


ACCEPT: dict[str, Callable[[str, Any], Any]] = {"image": _as_image, "video": as_video, "audio": _as_audio}
"""What Python callers may give for an input of a kind: (name, given) -> what the pipeline takes."""


def is_several(files: Files, given: object) -> bool:
    """Return whether what was given for an input is a list with one for each video."""
    if not isinstance(given, list | tuple) or not given:
        return False
    if files.kind == "video":  # a list of images is one
        return all(
            isinstance(item, list | tuple | str | Path) or getattr(item, "ndim", 0) == 4 for item in given
        )
    return files.most == 1 or all(isinstance(item, list | tuple) for item in given)
