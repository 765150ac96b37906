"""Streaming video writers: MP4, GIF, NPY or a folder of PNGs, written atomically.

Every writer writes to a temporary sibling of the target, which is renamed when it is complete and has been
checked, and removed after any error before that.
"""

import os
import queue
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import imageio_ffmpeg
import numpy as np
from PIL import Image

from videogen.errors import InputError
from videogen.files import OutputError, publish, temporary_sibling, writing
from videogen.media.probe import open_container

QUALITY = 8  # imageio's scale; x264 at CRF 10, as published (spec skyreels_v3 section 1)
PNG_NAME = "{:06d}.png"
QUEUE_SIZE = 2  # chunks of frames between the one being written and the one being computed


class Audio(NamedTuple):
    """A stretch of a file's audio, in seconds from the file's start."""

    path: Path
    start: float
    seconds: float


class FrameWriter(Protocol):
    """A writer of uint8 frames [f, H, W, 3], in order."""

    def write(self, frames: np.ndarray) -> None: ...

    def finish(self) -> None:
        """Flush, and check that all frames were written."""

    def abort(self) -> None:
        """Close files and processes; the caller removes the temporary file."""


class _FfmpegWriter:
    """Writer of MP4 and GIF with the ffmpeg of imageio-ffmpeg.

    imageio's own streaming writer is the same for MP4, but its ffmpeg plugin refuses GIF.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: int, options: dict) -> None:
        self.path, self.count = path, 0
        self.pipe = imageio_ffmpeg.write_frames(
            str(path.absolute()), size, fps=fps, macro_block_size=1, ffmpeg_log_level="quiet", **options
        )

    def write(self, frames: np.ndarray) -> None:
        if not self.count:
            self.pipe.send(None)  # starts the encoder
        for frame in frames:
            try:
                self.pipe.send(np.ascontiguousarray(frame))
            except (OSError, StopIteration):
                raise OutputError(_reason(self.path)) from None
            self.count += 1

    def finish(self) -> None:
        self.pipe.close()  # waits for ffmpeg, but does not tell whether it failed
        try:
            with open_container("", self.path.name, self.path) as container:
                stored = sum(1 for packet in container.demux(video=0) if packet.size)
        except InputError:
            stored = -1
        if stored != self.count:
            raise OutputError(_reason(self.path))

    def abort(self) -> None:
        self.pipe.close()


def _mp4(path: Path, size: tuple[int, int], fps: int, comment: str, audio: "Audio | None") -> FrameWriter:
    options: dict = {"quality": QUALITY, "codec": "libx264"}
    params: list[str] = []
    if audio is not None:
        options |= {"audio_path": f"file:{audio.path.absolute()}", "audio_codec": "aac"}
        trim = f"atrim=start={audio.start:.6f}:end={audio.start + audio.seconds:.6f}"
        params += ["-af", f"{trim},asetpts=PTS-{audio.start:.6f}/TB"]
        params += ["-map_chapters", "-1", "-map_metadata", "-1", "-map_metadata:s:a", "-1"]
    params += ["-metadata", f"comment={comment}"]
    return _FfmpegWriter(path, size, fps, {**options, "output_params": params})


def _gif(path: Path, size: tuple[int, int], fps: int) -> FrameWriter:
    palette = (
        "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1"  # per frame: no look-ahead
    )
    options = {
        "quality": None,
        "codec": "gif",
        "pix_fmt_out": "pal8",
        "output_params": ["-filter_complex", palette],
    }
    return _FfmpegWriter(path, size, fps, options)


class _NpyWriter:
    """Writer of lossless NPY, uint8 [F, H, W, 3]."""

    def __init__(self, path: Path, size: tuple[int, int], num_frames: int) -> None:
        width, height = size
        self.path, self.expected = path, num_frames * height * width * 3
        self.file = path.open("xb")
        header = {"descr": "|u1", "fortran_order": False, "shape": (num_frames, height, width, 3)}
        np.lib.format.write_array_header_1_0(self.file, header)
        self.start = self.file.tell()

    def write(self, frames: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(frames).data)

    def finish(self) -> None:
        self.file.flush()
        written = self.file.tell() - self.start
        self.file.close()
        if written != self.expected:
            raise OutputError(f"{self.path}: {written} bytes of frames instead of {self.expected}")

    def abort(self) -> None:
        self.file.close()


class _PngWriter:
    """Writer of a folder of numbered PNGs."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        path.mkdir()

    def write(self, frames: np.ndarray) -> None:
        for frame in frames:
            Image.fromarray(frame).save(self.path / PNG_NAME.format(self.count))
            self.count += 1

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass


class _Background:
    """Writer in a background thread, so that frames are computed while others are written.

    An error in the thread is raised by the next call. After ``abort`` nothing more is written.
    """

    def __init__(self, writer: FrameWriter) -> None:
        self.writer, self.stopped = writer, False
        self.error: BaseException | None = None
        self.queue: queue.Queue[np.ndarray | None] = queue.Queue(QUEUE_SIZE)
        self.thread = threading.Thread(target=self._work, name="frames", daemon=True)

    def _work(self) -> None:
        while (frames := self.queue.get()) is not None:  # also after an error, so that ``write`` never blocks
            try:
                if not self.stopped:
                    self.writer.write(frames)
            except BaseException as error:  # raised in the caller's thread
                self.error, self.stopped = error, True

    def write(self, frames: np.ndarray) -> None:
        """Queue frames for writing; they must not be changed afterwards."""
        self._raise()
        if self.thread.ident is None:
            self.thread.start()
        self.queue.put(frames)

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error

    def _join(self) -> None:
        # More than once: an exception amid ``put``, as of Ctrl-C, may cost the thread the next one's wake-up.
        while self.thread.is_alive():
            with suppress(queue.Full):
                self.queue.put(None, timeout=1)
            self.thread.join(1)

    def finish(self) -> None:
        self._join()
        self._raise()
        self.writer.finish()

    def abort(self) -> None:
        self.stopped = True
        self._join()
        self.writer.abort()


@contextmanager
def open_writer(
    target: Path,
    kind: str,
    *,
    size: tuple[int, int],
    fps: int,
    num_frames: int,
    comment: str = "",
    audio: "Audio | None" = None,
) -> Iterator["PendingFile"]:
    """Yield a writer for ``target``: ``write()`` frames, ``finish()``, then ``publish()``.

    Args:
        target: final path; its folder must exist.
        kind: 'mp4', 'gif', 'npy' or 'png' (a folder).
        size: (width, height) in pixels.
        num_frames: frames that will be written.
        comment: stored in the file where the format has a place for it.
        audio: sound for an MP4.

    The temporary file is removed if it is not published when the block ends.

    Raises:
        OutputError: the disk is full, or the encoder failed.
    """
    with temporary_sibling(target) as temporary:
        writer: FrameWriter
        with writing(target):
            if kind == "npy":
                writer = _NpyWriter(temporary, size, num_frames)
            elif kind == "png":
                writer = _PngWriter(temporary)
            elif kind == "gif":
                writer = _gif(temporary, size, fps)
            else:
                writer = _mp4(temporary, size, fps, comment, audio)
        handle = PendingFile(temporary, target, _Background(writer))
        try:
            yield handle
        finally:
            if not handle.done:
                handle.writer.abort()


class PendingFile:
    """A video that is being written, under a temporary name until it is published."""

    def __init__(self, temporary: Path, target: Path, writer: FrameWriter) -> None:
        self.temporary, self.target, self.writer, self.done = temporary, target, writer, False

    def write(self, frames: np.ndarray) -> None:
        with writing(self.target):
            self.writer.write(frames)

    def finish(self) -> None:
        """Complete and check the temporary file."""
        with writing(self.target):
            self.writer.finish()
        self.done = True

    def publish(self, *, may_replace: bool = False) -> Path:
        """Rename the finished file to its target, or to a numbered name if that is taken; return the name."""
        assert self.done
        with writing(self.target):
            return publish(self.temporary, self.target, may_replace=may_replace)


def _reason(path: Path) -> str:
    """Return an error message with the likely reason of an encoder's failure."""
    free = shutil.disk_usage(path.parent).free
    name = path.name.removeprefix(".").partition(f".{os.getpid()}.")[0]
    if free < 1 << 20:
        return f"{path.parent / name}: the disk is full; free some space or choose another --output"
    return (
        f"{path.parent / name}: the video encoder failed; try another suffix (.npy, .gif) or free some space"
    )
