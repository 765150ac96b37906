"""Streaming video writers: video files, GIF, NPY, a PNG or a folder of them, written atomically.

Every writer writes to a temporary sibling of the target, which is renamed when it is complete and has been
checked, and removed after any error before that.
"""

import queue
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import imageio_ffmpeg
import numpy as np
from PIL import Image

from videogen.errors import InputError
from videogen.files import WritingError, replace, temporary_sibling, writing
from videogen.media.inputs import Source
from videogen.media.output_formats import CODECS, CONTAINERS, FOLDER, STILL, Encoding, color_options
from videogen.media.probe import open_container

PLAIN = Encoding()
PNG_NAME = "{:06d}.png"
ENCODER_TIMEOUT = 120.0  # seconds that ffmpeg may take for a few frames, or for the end of the file
OPUS_LAYOUTS = "mono|stereo|5.1|7.1"
QUEUE_SIZE = 2  # chunks of frames between the one being written and the one being computed


class Audio(NamedTuple):
    """A stretch of a file's audio, in seconds from the file's start."""

    path: Path
    start: float
    seconds: float


class _Video(NamedTuple):
    """What is to be written; see ``open_writer``."""

    kind: str
    size: tuple[int, int]
    fps: int
    num_frames: int
    comment: str
    audio: Audio | None
    encoding: Encoding


class FrameWriter(Protocol):
    """A writer of uint8 frames [f, H, W, 3], in order."""

    def write(self, frames: np.ndarray) -> None: ...

    def finish(self) -> None:
        """Flush, and check that all frames were written."""

    def abort(self) -> None:
        """Close files and processes; the caller removes the temporary file.

        It ends a ``write`` that hangs in another thread, and may be called again.
        """


class _FfmpegWriter:
    """Writer of video files and GIF with the ffmpeg of imageio-ffmpeg.

    imageio's own streaming writer is the same, but its ffmpeg plugin refuses GIF.
    """

    def __init__(self, path: Path, video: _Video) -> None:
        self.path, self.count, self.stuck = path, 0, False
        self.process: subprocess.Popen | None = None
        options = _gif_options() if video.kind == "gif" else _options(video)
        self.pipe = imageio_ffmpeg.write_frames(
            str(path.absolute()), video.size, fps=video.fps, quality=None, macro_block_size=1,
            ffmpeg_log_level="quiet", **options,
        )  # fmt: skip

    def write(self, frames: np.ndarray) -> None:
        if self.process is None:
            self.pipe.send(None)  # starts the encoder
            self.process = self.pipe.gi_frame.f_locals["p"]
        with self._watched():
            for frame in frames:
                try:
                    self.pipe.send(np.ascontiguousarray(frame))
                except (OSError, StopIteration):
                    raise self._error() from None
                self.count += 1

    def finish(self) -> None:
        with self._watched():
            self.pipe.close()  # waits for ffmpeg, but does not tell whether it failed
        try:
            with open_container(Source("", self.path.name, self.path)) as container:
                stored = sum(1 for packet in container.demux(video=0) if packet.size)
        except InputError:
            stored = -1
        if stored != self.count:
            raise self._error()

    def abort(self) -> None:
        if self.process is not None:
            self.process.kill()
            assert self.process.stdin is not None
            with suppress(OSError):  # of frames that nobody reads any more
                self.process.stdin.close()
            self.process.wait()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Kill an encoder that hangs."""

        def give_up() -> None:
            if self.process is not None:
                self.stuck = True
                self.process.kill()

        timer = threading.Timer(ENCODER_TIMEOUT, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _error(self) -> WritingError:
        """Return an error with the likely reason of the encoder's failure."""
        if shutil.disk_usage(self.path.parent).free < 1 << 20:
            return WritingError("the disk is full", "free some space or choose another --output")
        if self.stuck:
            what = f"the video encoder hung for {ENCODER_TIMEOUT:g} s and was ended"
            return WritingError(what, "see what holds it up, or try another suffix (.npy)")
        return WritingError("the video encoder failed", "try another suffix (.npy, .gif) or free some space")


def _options(video: _Video) -> dict:
    """Return imageio-ffmpeg's options for a video file with a ``CONTAINERS`` suffix."""
    container, encoding = CONTAINERS[video.kind], video.encoding
    codec = CODECS[encoding.codec or container.codecs[0]]
    params = [*container.options, *codec.options]
    params += [] if encoding.published else color_options(codec)
    if codec.crf is not None:
        params += ["-crf", str(codec.crf if encoding.crf is None else encoding.crf)]
    options: dict = {"codec": codec.encoder, "pix_fmt_out": codec.pixels}
    if (audio := video.audio) is not None:
        options |= {"audio_path": f"file:{audio.path.absolute()}", "audio_codec": container.audio}
        trim = f"atrim=start={audio.start:.6f}:end={audio.start + audio.seconds:.6f}"
        layouts = f",aformat=channel_layouts={OPUS_LAYOUTS}" if container.audio == "libopus" else ""
        params += ["-af", f"{trim},asetpts=PTS-{audio.start:.6f}/TB{layouts}"]
        params += ["-map_chapters", "-1", "-map_metadata", "-1", "-map_metadata:s:a", "-1"]
    params += ["-metadata", f"comment={video.comment}"]
    return {**options, "output_params": params}


def _gif_options() -> dict:
    """Return imageio-ffmpeg's options for a GIF with a palette per frame, so that there is no look-ahead."""
    palette = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1"
    return {"codec": "gif", "pix_fmt_out": "pal8", "output_params": ["-filter_complex", palette]}


class _NpyWriter:
    """Writer of lossless NPY, uint8 [F, H, W, 3]."""

    def __init__(self, path: Path, video: _Video) -> None:
        (width, height), num_frames = video.size, video.num_frames
        self.path, self.expected = path, num_frames * height * width * 3
        self.file = path.open("wb")
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
            what = f"{written} bytes of frames instead of {self.expected}"
            raise WritingError(what, "please report it with the output of --env")

    def abort(self) -> None:
        with suppress(OSError):  # what could not be written is still in its buffer
            self.file.close()


class _PngWriter:
    """Writer of a folder of numbered PNGs, or of one PNG."""

    def __init__(self, path: Path, video: _Video) -> None:
        self.path, self.single, self.count = path, video.kind == STILL, 0

    def write(self, frames: np.ndarray) -> None:
        for frame in frames:
            path = self.path if self.single else self.path / PNG_NAME.format(self.count)
            Image.fromarray(frame).save(path, "PNG")
            self.count += 1

    def finish(self) -> None:
        if self.single and self.count != 1:
            what = f"{self.count} frames instead of 1"
            raise WritingError(what, "please report it with the output of --env")

    def abort(self) -> None:
        pass


WRITERS: dict[str, Callable[[Path, _Video], FrameWriter]] = {
    "npy": _NpyWriter,
    FOLDER: _PngWriter,
    STILL: _PngWriter,
}
"""Writers of the kinds that are not written by ffmpeg."""


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
        self.writer.abort()
        self._join()
        self.writer.abort()  # the thread may just have started an encoder


@contextmanager
def open_writer(
    target: Path,
    kind: str,
    *,
    size: tuple[int, int],
    fps: int,
    num_frames: int,
    comment: str = "",
    audio: Audio | None = None,
    encoding: Encoding = PLAIN,
    also: Callable[[np.ndarray], None] | None = None,
) -> Iterator["PendingFile"]:
    """Yield a writer for ``target``: ``write()`` frames, ``finish()``, then ``publish()``.

    Args:
        target: final path; its folder is made if it is missing.
        kind: one of ``FILES``, 'still' (one .png) or 'png' (a folder of them).
        size: (width, height) in pixels.
        num_frames: frames that will be written.
        comment: stored in the file where the format has a place for it.
        audio: sound, for the kinds that hold it.
        encoding: for the kinds that are encoded by a codec.
        also: is given all frames too, as they are written.

    The temporary file is removed if it is not published when the block ends.

    Raises:
        OutputError: the disk is full, or the encoder failed.
    """
    video = _Video(kind, size, fps, num_frames, comment, audio, encoding)
    with ExitStack() as stack:
        with writing(target):
            temporary = stack.enter_context(temporary_sibling(target, folder=kind == FOLDER))
            writer = WRITERS.get(kind, _FfmpegWriter)(temporary, video)
        handle = PendingFile(temporary, target, _Background(writer), also)
        try:
            yield handle
        finally:
            if not handle.done:
                handle.writer.abort()


class PendingFile:
    """A video that is being written, under a temporary name until it is published."""

    def __init__(
        self,
        temporary: Path,
        target: Path,
        writer: FrameWriter,
        also: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        self.temporary, self.target, self.writer, self.done = temporary, target, writer, False
        self.also = also

    def write(self, frames: np.ndarray) -> None:
        with writing(self.target):
            self.writer.write(frames)
        if self.also is not None:
            self.also(frames)

    def finish(self) -> None:
        """Complete and check the temporary file."""
        with writing(self.target):
            self.writer.finish()
        self.done = True

    def publish(self) -> Path:
        """Rename the finished file to its target, in the place of what is there; return the target."""
        assert self.done
        with writing(self.target):
            replace(self.temporary, self.target)
        return self.target
