"""Input videos: any container and codec PyAV can decode, its frames one at a time or only the last few.

PyAV and decord are imported when a video is read.
"""

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from videogen.errors import InputError, first_line, reported_as
from videogen.media.download import Fetcher, display_name, sha256_of
from videogen.media.probe import (
    VIDEO,
    Keyframe,
    Resampling,
    Timeline,
    decode_packets,
    decode_timeline,
    exact,
    find_truncation,
    open_container,
    open_video,
    probe_stream,
    regular,
    shown_streams,
    use_threads,
)
from videogen.media.shown import Look, deinterlaced, look_of, to_rgb
from videogen.media.stored_frames import StoredFrames, is_stored, read_stored

if TYPE_CHECKING:
    import av
    import av.container
    import av.packet
    import av.video.stream
    import numpy as np

logger = logging.getLogger(__name__)

LONGEST = 24 * 60 * 60  # seconds; a damaged time would mean any number of frames to resample


@dataclass(frozen=True, kw_only=True, slots=True)
class InputVideo:
    """A video file whose packets were all read and whose first frame was decoded.

    ``width`` and ``height`` are upright (display matrix applied) and with square pixels, ``fps`` is the
    average rate, ``start`` the seconds from the file's start to the first frame. ``notes`` say what is not
    shown as it is stored, one line each.
    """

    path: Path
    name: str
    width: int
    height: int
    num_frames: int
    fps: float
    seconds: float
    sha256: str
    has_audio: bool
    start: float
    timeline: Timeline = field(repr=False, compare=False)
    look: Look = field(repr=False, compare=False)
    notes: tuple[str, ...] = ()

    def load(self) -> "InputVideo":
        """Return the video itself: frames are decoded when they are asked for."""
        return self

    def count(self, *, source_fps: float | None = None, fps: float = 24.0) -> int:
        """Return the number of frames that ``frames`` yields, without decoding."""
        return self._resampling(source_fps, fps).count

    def frames(
        self, *, source_fps: float | None = None, fps: float = 24.0, size: tuple[int, int] | None = None
    ) -> "Iterator[np.ndarray]":
        """Yield the frames in the order shown, uint8 RGB [H, W, 3]; they must not be written into.

        Args:
            source_fps: None yields every frame as it is, whatever the rates (as published); 0 resamples by
                the file's own timestamps; anything else takes frame i to be shown at i / source_fps seconds.
            fps: frames per second that are yielded when resampling: the source frame nearest to k / fps
                seconds (of two equally near the later), k = 0, 1, ... until the last source frame ends.
            size: (width, height) that every frame is scaled to (``scaled``), whatever its aspect ratio; None
                is the video's own.

        Raises:
            InputError: the file cannot be decoded to its end.
        """
        resampling = self._resampling(source_fps, fps)
        count, k = resampling.count, 0
        wanted = resampling.source(k)
        for index, picture in _pictures(self):
            if index == wanted:
                image = _upright(self, picture, size)
            while index == wanted:
                yield image
                k += 1
                wanted = resampling.source(k) if k < count else -1

    def tail(
        self,
        count: int,
        *,
        source_fps: float | None = None,
        fps: float = 24.0,
        size: tuple[int, int] | None = None,
    ) -> "np.ndarray":
        """Return the last ``count`` items of ``frames``, uint8 [count, H, W, 3].

        Decoding starts from a keyframe near them.

        Raises:
            InputError: there are fewer, or the file cannot be decoded.
        """
        resampling = self._resampling(source_fps, fps)
        total = resampling.count
        if not 0 < count <= total:
            raise InputError(
                "input video", self.name, f"has {total} frames, not {count}", "give a longer video"
            )
        tail = Tail(self, [resampling.source(k) for k in range(total - count, total)], size)
        if not fill_from_keyframe(self, tail):
            for index, picture in _pictures(self):
                tail.take(index, picture)
        return tail.images

    def _resampling(self, source_fps: float | None, fps: float) -> Resampling:
        if source_fps is None:
            return regular(self.num_frames, 1, 1)
        if source_fps == 0:
            return Resampling(timeline=self.timeline, fps=exact(fps))
        return regular(self.num_frames, source_fps, fps)


class Tail:
    """Frames with the indices ``wanted``, collected in one array, uint8 [len(wanted), H, W, 3].

    H and W are those of ``size`` (width, height) or the video.
    """

    def __init__(self, video: InputVideo, wanted: Sequence[int], size: tuple[int, int] | None = None) -> None:
        import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

        self.video, self.first, self.size = video, wanted[0], size
        self.slots: dict[int, list[int]] = {}
        for slot, index in enumerate(wanted):
            self.slots.setdefault(index, []).append(slot)
        width, height = size or (video.width, video.height)
        self.images = np.empty((len(wanted), height, width, 3), np.uint8)

    def take(self, index: int, picture: "av.VideoFrame") -> None:
        """Convert source frame ``index`` if it is wanted."""
        if slots := self.slots.get(index):
            self.images[slots] = _upright(self.video, picture, self.size)


def read_video(flag: str, source: str, fetcher: Fetcher) -> InputVideo | StoredFrames:
    """Fetch a video, read all of its packets and decode its first frame; or check stored frames.

    Only where timestamps are missing or the decoder leaves out frames at the start (raw streams, some cut
    files) are all frames decoded to count them.

    Raises:
        InputError: no such file, not a video, truncated, without a video stream or frames.
    """
    path = Path(source).expanduser()
    path = path if path.is_dir() else fetcher.local(flag, source)
    if is_stored(path):
        return read_stored(flag, source, path)
    with open_video(flag, source, path) as (container, stream):
        probe = probe_stream(container, stream)
        if missing := find_truncation(flag, source, path, (container, stream), probe):
            raise InputError(flag, source, f"is truncated: {missing}", "download or save it again")
        if probe.first is None:
            raise InputError(flag, source, "has no frames", "give another video")
        declared = stream.average_rate or stream.guessed_rate or Fraction(24)
        timeline = probe.timeline(declared) or decode_timeline(flag, source, path, declared)
        start = max(0.0, float(timeline.moments[0] * timeline.tick) - (container.start_time or 0) / 1e6)
        has_audio = bool(container.streams.audio)
        probe.first.reformat(format="rgb24")  # or an error
        look, notes = look_of(probe.first, stream.sample_aspect_ratio)
        notes += _unused_streams(container)
        num_frames, rate = len(timeline.moments), timeline.rate(declared)
        if num_frames / rate > LONGEST:
            what = f"lasts {float(num_frames / rate):.0f} s, more than {LONGEST}"
            raise InputError(flag, source, what, "cut a part out")
    name, (width, height) = display_name(source), look.size
    return InputVideo(
        path=path,
        name=name,
        width=width,
        height=height,
        num_frames=num_frames,
        fps=float(rate),
        seconds=float(num_frames / rate),
        sha256=sha256_of(path),
        has_audio=has_audio,
        start=start,
        timeline=timeline,
        look=look,
        notes=tuple(f"{name} {note}" for note in notes),
    )


def _unused_streams(container: "av.container.InputContainer") -> list[str]:
    streams = shown_streams(container)
    notes = [f"has {len(streams)} video streams; the first is used"] if len(streams) > 1 else []
    if streams[0].metadata.get("alpha_mode") == "1":  # VP8 and VP9 in WebM: a stream beside the colours
        notes.append("has transparency beside its colours, which is not used")
    return notes


def _upright(video: InputVideo, picture: "av.VideoFrame", size: tuple[int, int] | None) -> "np.ndarray":
    """Convert a frame to upright uint8 RGB [H, W, 3] of ``size``."""
    with reported_as(lambda why: InputError("input video", video.name, why, VIDEO.convert)):
        return to_rgb(picture, video.look, size)


def _shown(video: InputVideo, pictures: "Iterable[av.VideoFrame]") -> "Iterable[av.VideoFrame]":
    return deinterlaced(pictures) if video.look.interlaced else pictures


def _pictures(video: InputVideo) -> "Iterator[tuple[int, av.VideoFrame]]":
    """Yield every frame from the start, with its index."""
    index = -1
    with open_video("input video", video.name, video.path) as (container, stream):
        use_threads(stream)
        for index, picture in enumerate(_shown(video, decode_packets(container.demux(stream)))):
            yield index, picture
    if index + 1 != video.num_frames:
        what = f"{index + 1} frames can be decoded, {video.num_frames} should be there"
        raise InputError("input video", video.name, what, VIDEO.expected)


def fill_from_keyframe(video: InputVideo, tail: Tail) -> bool:
    """Decode from the last keyframe before the tail; return whether that gives the expected frames."""
    moments, keyframes = video.timeline.moments, video.timeline.keyframes
    needed = max(0, tail.first - 1) if video.look.interlaced else tail.first  # fields are compared
    place = bisect_right(keyframes, moments[needed], key=lambda keyframe: keyframe.pts) - 1
    if place < 0:
        return False
    start = keyframes[place]
    try:
        with open_video("input video", video.name, video.path) as (container, stream):
            use_threads(stream)
            pictures = _from(start.pts, decode_packets(_packets_from(container, stream, start)))
            return _fill(tail, _shown(video, pictures), moments, start.pts)
    except InputError as error:
        logger.debug("decoding %s from its start: %s", video.name, error)
        return False


def _packets_from(
    container: "av.container.InputContainer", stream: "av.video.stream.VideoStream", start: Keyframe
) -> "Iterator[av.packet.Packet]":
    """Yield packets from ``start`` or an earlier keyframe on; none if it cannot be found.

    Containers are indexed by either kind of timestamp.
    """
    for moment in (start.pts, start.dts):
        if moment is None:
            continue
        container.seek(moment, stream=stream)
        packets = container.demux(stream)
        for packet in packets:
            if packet.is_keyframe and packet.pts is not None:
                if packet.pts <= start.pts:
                    yield packet
                    yield from packets
                    return
                break


def _from(start: int, pictures: "Iterable[av.VideoFrame]") -> "Iterator[av.VideoFrame]":
    """Leave out frames before ``start``, which may refer to others before the keyframe."""
    return (picture for picture in pictures if picture.pts is None or picture.pts >= start)


def _fill(tail: Tail, pictures: "Iterable[av.VideoFrame]", moments: Sequence[int], start: int) -> bool:
    """Collect the frames from ``start`` on; return whether they are those of the timeline, all intact."""
    index = bisect_left(moments, start)
    for picture in pictures:
        if (
            picture.pts is None
            or index == len(moments)
            or picture.pts != moments[index]
            or picture.is_corrupt
        ):
            return False
        tail.take(index, picture)
        index += 1
    return index == len(moments)


def read_with_decord(video: InputVideo, indices: Sequence[int]) -> "list[np.ndarray] | None":
    """Return the frames at ``indices``; None if decord is not installed or cannot read or show the file."""
    if not video.look.is_plain:
        return None
    try:
        import decord  # noqa: PLC0415 - this module is loaded at start-up, and there are no wheels for ARM

        decord.logging.set_level(decord.logging.QUIET)
        reader = decord.VideoReader(str(video.path.absolute()), ctx=decord.cpu(0), num_threads=1)
        images = [reader[index].asnumpy() for index in indices] if len(reader) == video.num_frames else []
    except Exception as error:  # decord raises many kinds of errors; PyAV reads the file then
        logger.debug("%s is not read with decord: %s", video.name, first_line(error))
        return None
    # Of videos 48 pixels wide decord returns 4 channels.
    shape = (video.height, video.width, 3)
    return images if images and all(image.shape == shape for image in images) else None


def read_comment(path: Path) -> str | None:
    """Return the comment of a video file, if it has one.

    Raises:
        InputError: the file cannot be read as a video.
    """
    with open_container("", path.name, path) as container:
        # Matroska's names are in capitals.
        return next((text for name, text in container.metadata.items() if name.lower() == "comment"), None)
