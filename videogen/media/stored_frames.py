"""Videos without loss: a .npy of frames, or a folder of numbered PNGs, as videogen writes them.

Neither holds a frame rate; that is in the record beside it. Numpy and PIL are imported when frames are read.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from videogen.errors import InputError, reported_as
from videogen.files import TextError, parse_json, read_text
from videogen.media.download import display_name, sha256_of
from videogen.media.probe import MOST_PIXELS, Resampling, exact, regular
from videogen.media.shown import scaled

if TYPE_CHECKING:
    import numpy as np

NPY_MAGIC = b"\x93NUMPY"
PNG_FILE = re.compile(r"\d{6,}\.png")
USUAL_FPS = 24.0
ANOTHER = "give a .npy of uint8 frames [F, H, W, 3] or a folder of PNGs, as videogen writes them"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFrames:
    """Frames in a file or a folder, with the fields and methods of ``InputVideo``."""

    path: Path
    name: str
    width: int
    height: int
    num_frames: int
    fps: float
    sha256: str
    notes: tuple[str, ...] = ()
    has_audio: bool = False
    start: float = 0.0

    @property
    def seconds(self) -> float:
        return self.num_frames / self.fps

    def load(self) -> "StoredFrames":
        """Return the video itself: frames are read when they are asked for."""
        return self

    def count(self, *, source_fps: float | None = None, fps: float = 24.0) -> int:
        """Return the number of frames that ``frames`` yields."""
        return self._resampling(source_fps, fps).count

    def frames(
        self, *, source_fps: float | None = None, fps: float = 24.0, size: tuple[int, int] | None = None
    ) -> "Iterator[np.ndarray]":
        """Yield the frames, uint8 RGB [H, W, 3]; arguments as of ``InputVideo.frames``.

        Raises:
            InputError: they cannot be read any more.
        """
        resampling = self._resampling(source_fps, fps)
        yield from self._at((resampling.source(k) for k in range(resampling.count)), size)

    def tail(
        self,
        count: int,
        *,
        source_fps: float | None = None,
        fps: float = 24.0,
        size: tuple[int, int] | None = None,
    ) -> "np.ndarray":
        """Return the last ``count`` items of ``frames``, uint8 [count, H, W, 3].

        Raises:
            InputError: there are fewer, or they cannot be read.
        """
        import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

        resampling = self._resampling(source_fps, fps)
        if not 0 < count <= resampling.count:
            what = f"has {resampling.count} frames, not {count}"
            raise InputError("input video", self.name, what, "give a longer video")
        last = range(resampling.count - count, resampling.count)
        return np.stack(list(self._at((resampling.source(k) for k in last), size)))

    def _resampling(self, source_fps: float | None, fps: float) -> Resampling:
        if source_fps is None:
            return regular(self.num_frames, 1, 1)
        return regular(self.num_frames, source_fps or self.fps, fps)

    def _at(self, indices: Iterator[int], size: tuple[int, int] | None) -> "Iterator[np.ndarray]":
        """Yield the frames at ``indices``; one that follows itself is read once."""
        import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

        flag, shape = "input video", (self.height, self.width, 3)
        stored = None if self.path.is_dir() else _open_npy(flag, self.name, self.path)
        files = _png_files(self.path) if stored is None else []
        last, image = -1, None
        for index in indices:
            if index != last:
                if index >= (len(files) if stored is None else len(stored)):
                    raise InputError(flag, self.name, f"has no frame {index} any more", "start again")
                frame = np.array(stored[index]) if stored is not None else _read_png(self.name, files[index])
                if frame.shape != shape:
                    raise InputError(flag, self.name, "was replaced during the run", "start again")
                last, image = index, scaled(frame, size)
            assert image is not None
            yield image


def is_stored(path: Path) -> bool:
    """Return whether a path is a folder, or a file that begins as a .npy does."""
    if path.is_dir():
        return True
    with path.open("rb") as file:
        return file.read(len(NPY_MAGIC)) == NPY_MAGIC


def read_stored(flag: str, source: str, path: Path) -> StoredFrames:
    """Check the frames of a file or a folder, without reading all of them.

    Raises:
        InputError: they are no frames, or not all of them are there.
    """
    name, notes = display_name(source), []
    if path.is_dir():
        files = _png_files(path)
        count, (width, height) = len(files), _check_frames(flag, source, files)
        if others := sum(1 for file in path.iterdir()) - count:
            notes.append(f"has {others} files that are no frames, which are not used")
    else:
        stored = _open_npy(flag, source, path)
        count, height, width = stored.shape[:3]
    if width * height > MOST_PIXELS:
        what = f"has {width}x{height} pixels, more than {MOST_PIXELS:,}"
        raise InputError(flag, source, what, "scale it down")
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


def _open_npy(flag: str, source: str, path: Path) -> "np.ndarray":
    """Return the frames of a .npy, uint8 [F, H, W, 3], mapped into memory."""
    import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

    with reported_as(lambda _: InputError(flag, source, "is no .npy, or not all of one", ANOTHER)):
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    if stored.dtype != np.uint8 or stored.ndim != 4 or stored.shape[3] != 3 or 0 in stored.shape:
        shape = "x".join(map(str, stored.shape)) or "no"
        raise InputError(flag, source, f"holds {stored.dtype} values, {shape}, not frames", ANOTHER)
    return stored


def _png_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if PNG_FILE.fullmatch(file.name))


def _check_frames(flag: str, source: str, files: list[Path]) -> tuple[int, int]:
    """Return the size of the frames of a folder, of which none may be missing."""
    if not files:
        raise InputError(flag, source, "is a folder without frames (000000.png, 000001.png ...)", ANOTHER)
    for number, file in enumerate(files, start=int(files[0].stem)):
        if int(file.stem) != number:
            raise InputError(flag, source, f"lacks frame {number:06d}.png", "copy the whole folder")
    sizes: dict[tuple[int, int], str] = {}
    for file in files:
        sizes.setdefault(_png_size(flag, source, file), file.name)
    if len(sizes) > 1:
        (one, first), (other, second) = list(sizes.items())[:2]
        what = f"{first} is {one[0]}x{one[1]} and {second} {other[0]}x{other[1]}"
        raise InputError(flag, source, what, "give frames of one size")
    return next(iter(sizes))


def _png_size(flag: str, source: str, file: Path) -> tuple[int, int]:
    from PIL import Image  # noqa: PLC0415 - this module is loaded at start-up

    what, fix = f"{file.name} is no whole PNG", "copy the whole folder"
    with (
        reported_as(lambda _: InputError(flag, source, what, fix)),
        Image.open(file, formats=["PNG"]) as image,
    ):
        return image.size


def _read_png(name: str, file: Path) -> "np.ndarray":
    import numpy as np  # noqa: PLC0415 - this module is loaded at start-up
    from PIL import Image  # noqa: PLC0415

    from videogen.media.picture import to_srgb  # noqa: PLC0415

    damaged = f"{file.name} cannot be decoded"
    with (
        reported_as(lambda why: InputError("input video", name, f"{damaged} ({why})", ANOTHER)),
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
