"""Where pictures and videos about results go."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from videogen import files
from videogen.errors import InputError
from videogen.media.output_formats import FILES
from videogen.media.video_writer import PendingFile, open_writer
from videogen.results.writable import check_file
from videogen.review.found import Found

VIDEO_SUFFIXES = tuple(f".{kind}" for kind in FILES)
USUAL_FPS = 24


def check_output(output: Path, suffixes: Sequence[str], results: Iterable[Found], *, overwrite: bool) -> None:
    """Refuse an output that cannot be written, or is one of the results, before anything is read.

    Raises:
        InputError: it is one, or as ``check_file``.
    """
    if output.resolve() in {found.path.resolve() for found in results}:
        raise InputError("--output", output, "is one of the results themselves", "choose another name")
    check_file("--output", output, suffixes, may_replace=overwrite)


@contextmanager
def new_video(
    output: Path, size: tuple[int, int], fps: float | None, num_frames: int
) -> Iterator[PendingFile]:
    """Yield a writer for a video, which gets its name when the block ends without an error."""
    rate = max(1, round(fps or USUAL_FPS))
    kind = output.suffix.lower().removeprefix(".")
    with open_writer(output, kind, size=size, fps=rate, num_frames=num_frames) as writer:
        yield writer
        writer.finish()
        writer.publish()


def save_picture(picture: Image.Image, output: Path) -> None:
    """Write a PNG, which gets its name when it is whole."""
    with files.writing(output), files.atomic_write(output) as temporary:
        picture.save(temporary, "PNG")
