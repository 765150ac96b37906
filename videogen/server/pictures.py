"""Pictures of a finished video, made when they are first asked for and kept beside it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

from videogen.files import atomic_write
from videogen.media.contact_sheet import ContactSheet
from videogen.media.download import Fetcher
from videogen.media.frame_source import FrameSource
from videogen.media.video_reader import read_video

FRAMES = 12  # of a sheet


def thumbnail(video: Path) -> Path:
    """Return the path of the first frame."""
    return _made(video.with_name("thumbnail.webp"), lambda: Image.fromarray(next(_open(video).frames())))


def spritesheet(video: Path) -> Path:
    """Return the path of a sheet of evenly spaced frames."""

    def sheet() -> Image.Image:
        source = _open(video)
        drawn = ContactSheet(source.count(), FRAMES, source.fps)
        for frame in source.frames():
            drawn.add(frame[None])
        return drawn.picture()

    return _made(video.with_name("spritesheet.jpg"), sheet)


VARIANTS: Mapping[str, Callable[[Path], Path]] = {"thumbnail": thumbnail, "spritesheet": spritesheet}


def _made(path: Path, draw: Callable[[], Image.Image]) -> Path:
    if not path.exists():
        picture = draw()
        with atomic_write(path) as temporary:
            picture.save(temporary)
    return path


def _open(video: Path) -> FrameSource:
    return read_video("video", str(video), Fetcher(folder=video.parent))
