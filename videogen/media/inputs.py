"""Input files of all kinds: what is known of one, and which module reads it.

Modules that decode import PyAV, numpy and Pillow, so they are imported with the first file of their kind.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from videogen.errors import InputError, reported_as

SAMPLE_RATE = 16000  # of the audio encoder
AVATAR_FPS = 25  # video frames for every second of sound
MAX_FRAMES = 5000  # published; --max_frames_num allows more
MOST_FRAMES = 2 * 60 * 60 * AVATAR_FPS  # all of a sound is in memory


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """An input file that was opened and checked.

    ``notes`` say what of it is not shown or used as it is stored, one line each.
    """

    path: Path
    name: str
    sha256: str
    notes: tuple[str, ...] = ()

    def load(self) -> object:
        """Return what a pipeline takes: the file itself, which is decoded when it is needed."""
        return self


class Source(NamedTuple):
    """A file to read, and what error messages call it: its flag, and what was given."""

    flag: str
    given: str
    path: Path

    def error(self, what: str, fix: str) -> InputError:
        """Return the error for a file that cannot be used."""
        return InputError(self.flag, self.given, what, fix)

    def reported(self, fix: str, what: str = "cannot be decoded ({})") -> AbstractContextManager[None]:
        """Turn what a library raises in the block into the error for ``what``; {} is its message."""
        return reported_as(lambda why: self.error(what.format(why), fix))


READERS = {
    "image": ("videogen.media.image", "read_image"),
    "video": ("videogen.media.video_reader", "read_video"),
    "audio": ("videogen.media.audio", "read_audio"),
}


def reader_of(kind: str) -> Callable[..., InputFile]:
    """Return the function that opens and checks the files of a kind: (flag, path or URL, fetcher)."""
    module, name = READERS[kind]
    return getattr(import_module(module), name)
