"""Videos without loss: a .npy of frames, or a folder of numbered PNGs, as videogen writes them.

Neither holds a frame rate; that is in the record beside it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from videogen.files import TextError, parse_json, read_text
from videogen.media.download import display_name, sha256_of
from videogen.media.frame_source import FrameSource, exact
from videogen.media.inputs import Source
from videogen.media.output_formats import PNG_FILE
from videogen.media.picture import to_srgb
from videogen.media.probe import check_pixels
from videogen.media.shown import scaled

NPY_MAGIC = b"\x93NUMPY"
USUAL_FPS = 24.0
ANOTHER = "give a .npy of uint8 frames [F, H, W, 3] or a folder of PNGs, as videogen writes them"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFrames(FrameSource):
    """Frames in a .npy, or in a folder of PNGs."""

    def _read(self, indices: Iterator[int], size: tuple[int, int] | None) -> Iterator[np.ndarray]:
        """Yield the frames at ``indices``; one that follows itself is read once."""
        stored = _png_files(self.path) if self.path.is_dir() else _open_npy(self.source)
        for index, repeats in groupby(indices):
            if index >= len(stored):
                raise self.source.error(f"has no frame {index} any more", "start again")
            item = stored[index]
            frame = _read_png(self.source, item) if isinstance(item, Path) else np.array(item)
            if frame.shape != (self.height, self.width, 3):
                raise self.source.error("was replaced during the run", "start again")
            image = scaled(frame, size)
            for _ in repeats:
                yield image


def is_stored(path: Path) -> bool:
    """Return whether a path is a folder, or a file that begins as a .npy does."""
    if path.is_dir():
        return True
    with path.open("rb") as file:
        return file.read(len(NPY_MAGIC)) == NPY_MAGIC


def read_stored(source: Source) -> StoredFrames:
    """Check the frames of a file or a folder, without reading all of them.

    Raises:
        InputError: they are no frames, or not all of them are there.
    """
    path, name, notes = source.path, display_name(source.given), []
    if path.is_dir():
        files = _png_files(path)
        count, (width, height) = len(files), _check_frames(source, files)
        if others := sum(1 for file in path.iterdir()) - count:
            notes.append(f"has {others} files that are no frames, which are not used")
    else:
        stored = _open_npy(source)
        count, height, width = stored.shape[:3]
    check_pixels(source, width, height)
    rate = _recorded_rate(path)
    if rate is None:
        notes.append(f"has no record beside it that says its frame rate; taken as {USUAL_FPS:g}")
    return StoredFrames(
        path=path,
        name=name,
        width=width,
        height=height,
        num_frames=count,
        fps=rate or USUAL_FPS,
        seconds=count / (rate or USUAL_FPS),
        sha256=content_digest(path),
        notes=tuple(f"{name} {note}" for note in notes),
    )


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of a folder's frames.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_dir():
        return sha256_of(path)
    digest = hashlib.sha256()
    for file in _png_files(path):
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _open_npy(source: Source) -> np.ndarray:
    """Return the frames of a .npy, uint8 [F, H, W, 3], mapped into memory."""
    with source.reported(ANOTHER, "is no .npy, or not all of one"):
        stored = np.load(source.path, mmap_mode="r", allow_pickle=False)
    if stored.dtype != np.uint8 or stored.ndim != 4 or stored.shape[3] != 3 or 0 in stored.shape:
        shape = "x".join(map(str, stored.shape)) or "no"
        raise source.error(f"holds {stored.dtype} values, {shape}, not frames", ANOTHER)
    return stored


def _png_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if PNG_FILE.fullmatch(file.name))


def _check_frames(source: Source, files: list[Path]) -> tuple[int, int]:
    """Return the size of the frames of a folder, of which none may be missing."""
    if not files:
        raise source.error("is a folder without frames (000000.png, 000001.png ...)", ANOTHER)
    for number, file in enumerate(files, start=int(files[0].stem)):
        if int(file.stem) != number:
            raise source.error(f"lacks frame {number:06d}.png", "copy the whole folder")
    sizes: dict[tuple[int, int], str] = {}
    for file in files:
        with (
            source.reported("copy the whole folder", f"{file.name} is no whole PNG"),
            Image.open(file, formats=["PNG"]) as image,
        ):
            sizes.setdefault(image.size, file.name)
    if len(sizes) > 1:
        (one, first), (other, second) = list(sizes.items())[:2]
        what = f"{first} is {one[0]}x{one[1]} and {second} {other[0]}x{other[1]}"
        raise source.error(what, "give frames of one size")
    return next(iter(sizes))


def _read_png(source: Source, file: Path) -> np.ndarray:
    with (
        source.reported(ANOTHER, f"{file.name} cannot be decoded ({{}})"),
        Image.open(file, formats=["PNG"]) as image,
    ):
        return np.asarray(to_srgb(image)[0])


def _recorded_rate(path: Path) -> float | None:
    """Return the frames per second in the record beside a result; None if there is none."""
    record = path.with_name(f"{path.name if path.is_dir() else path.stem}.json")
    try:
        content = parse_json(read_text(record)) if record.is_file() else {}
        return float(exact(float(content["fps"])))
    except (TextError, ValueError, TypeError, KeyError):
        return None
