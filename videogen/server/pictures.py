"""Pictures of a finished video, made when they are first asked for and kept beside it."""

import math
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

from PIL import Image

from videogen.files import atomic_write
from videogen.media.download import Fetcher
from videogen.media.video_reader import read_video

TILES, COLUMNS = 12, 4  # of a sheet
TILE_WIDTH = 320  # pixels


def thumbnail(video: Path) -> Path:
    """Return the path of the first picture."""
    return _made(video.with_name("thumbnail.webp"), lambda: _frames(video, 1)[0])


def spritesheet(video: Path) -> Path:
    """Return the path of a sheet of evenly spaced pictures."""

    def sheet() -> Image.Image:
        tiles = [frame.resize(_tile_size(frame)) for frame in _frames(video, TILES)]
        width, height = tiles[0].size
        columns = min(COLUMNS, len(tiles))
        whole = Image.new("RGB", (columns * width, math.ceil(len(tiles) / columns) * height))
        for number, tile in enumerate(tiles):
            whole.paste(tile, (number % columns * width, number // columns * height))
        return whole

    return _made(video.with_name("spritesheet.jpg"), sheet)


VARIANTS: Mapping[str, Callable[[Path], Path]] = {"thumbnail": thumbnail, "spritesheet": spritesheet}


def _made(path: Path, draw: Callable[[], Image.Image]) -> Path:
    if not path.exists():
        with atomic_write(path) as temporary:
            draw().save(temporary)
    return path


def _frames(video: Path, count: int) -> list[Image.Image]:
    """Return that many evenly spaced frames, or all where there are fewer."""
    source = read_video("video", str(video), Fetcher(folder=video.parent))
    step = max(1, source.count() // count)
    return [Image.fromarray(frame) for frame in islice(source.frames(), 0, step * count, step)]


def _tile_size(frame: Image.Image) -> tuple[int, int]:
    return TILE_WIDTH, max(1, round(frame.height * TILE_WIDTH / frame.width))
