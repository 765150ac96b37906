"""Input videos: any container and codec PyAV can decode, its frames one at a time or only the last few.

PyAV is the reference; decord reads the tail of those files for which it gives the same bytes. Neither is
imported before a video is read.
"""

import hashlib
import logging
import math
import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from videogen.errors import InputError, first_line
from videogen.media.fetch import Fetcher, display_name

if TYPE_CHECKING:
    import av
    import av.container
    import av.packet
    import av.video.stream
    import numpy as np

logger = logging.getLogger(__name__)

Frames: TypeAlias = "InputVideo | np.ndarray | Sequence[Any]"  # what tail_of takes

# Demuxers that read one self-contained file: no playlists, patterns of names, still images or text.
FORMATS = "mov,matroska,avi,flv,mpegts,mpeg,ogg,asf,mxf,ivf,gif,h264,hevc"
# What decord was compared with PyAV for.
PLAIN_FORMATS = ("mov", "matroska", "avi")
PLAIN_PIXELS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p")
MAX_THREADS = 4  # each holds a frame
PATIENCE = 0.25  # seconds by which a container may overstate its duration: codecs pad the sound
RATE_TOLERANCE = 0.02  # between the container's average rate and that of the timestamps
MILLISECOND = Fraction(1, 1000)
ANOTHER_COPY = "download or save it again, or convert it to an H.264 mp4"


class Keyframe(NamedTuple):
    """Where decoding may start, in ticks."""

    pts: int
    dts: int | None


class Turn(NamedTuple):
    """What makes a decoded frame upright, in this order."""

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """When each frame is shown, in ticks of ``tick`` seconds: ``moments`` ascend, ``end`` ends the last one.

    Without ``keyframes`` (ascending), decoding can only start at the beginning.
    """

    moments: Sequence[int]
    end: int
    tick: Fraction
    keyframes: tuple[Keyframe, ...] = ()

    @property
    def seconds(self) -> Fraction:
        return (self.end - self.moments[0]) * self.tick

    def rate(self, declared: Fraction) -> Fraction:
        """Average frames per second: what the container declares, unless it is far off (variable rates)."""
        measured = len(self.moments) / self.seconds
        return declared if abs(declared / measured - 1) < RATE_TOLERANCE else measured

    def is_steady(self) -> bool:
        """Whether the frame rate is constant, but for the rounding of timestamps to ticks."""
        steps, start = len(self.moments) - 1, self.moments[0]
        span = self.moments[-1] - start
        slack = min(steps, span / 4)  # a tick, or a quarter of a frame where ticks are as long as frames
        return all(abs((moment - start) * steps - i * span) <= slack for i, moment in enumerate(self.moments))


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """Which source frame is shown at k / ``fps`` seconds: the nearest, and of two equally near the later."""

    timeline: Timeline
    fps: Fraction

    @property
    def count(self) -> int:
        """How many output frames start before the last source frame ends.

        That end may be late by the rounding to ticks (mkv: 1 ms), which must not add a frame.
        """
        rounding = min(self.timeline.tick, MILLISECOND) if self.timeline.keyframes else 0
        return max(1, math.ceil((self.timeline.seconds - rounding) * self.fps))

    def source(self, k: int) -> int:
        """Index of the source frame for output frame ``k``."""
        moments = self.timeline.moments
        moment = moments[0] + k / (self.fps * self.timeline.tick)
        index = bisect_right(moments, moment) - 1
        if index + 1 < len(moments) and moment - moments[index] >= moments[index + 1] - moment:
            return index + 1
        return index


@dataclass(frozen=True, kw_only=True, slots=True)
class InputVideo:
    """A video file whose packets were all read and whose first frame was decoded.

    ``width`` and ``height`` are upright (display matrix applied), ``fps`` is the average rate. ``plain`` says
    that decord may read it: 8 bits, unrotated, constant frame rate, and what ``_is_plain`` adds.
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
    plain: bool
    timeline: Timeline = field(repr=False, compare=False)
    turn: Turn = field(repr=False, compare=False)

    def load(self) -> "InputVideo":
        """Itself: frames are decoded when they are asked for."""
        return self

    def count(self, *, source_fps: float | None = None, fps: float = 24.0) -> int:
        """How many frames ``frames`` yields, without decoding."""
        return self._resampling(source_fps, fps).count

    def frames(self, *, source_fps: float | None = None, fps: float = 24.0) -> "Iterator[np.ndarray]":
        """The frames in the order shown, uint8 RGB [H, W, 3], one at a time; not to be written into.

        Args:
            source_fps: None yields every frame as it is, whatever the rates (as published); 0 resamples by
                the file's own timestamps; anything else takes frame i to be shown at i / source_fps seconds.
            fps: frames per second that are yielded when resampling: the source frame nearest to k / fps
                seconds (of two equally near the later), k = 0, 1, ... until the last source frame ends.

        Raises:
            InputError: the file cannot be decoded to its end.
        """
        resampling = self._resampling(source_fps, fps)
        count, k = resampling.count, 0
        wanted = resampling.source(k)
        for index, picture in _pictures(self):
            if index == wanted:
                image = _upright(self, picture)
            while index == wanted:
                yield image
                k += 1
                wanted = resampling.source(k) if k < count else -1

    def tail(self, count: int, *, source_fps: float | None = None, fps: float = 24.0) -> "np.ndarray":
        """The last ``count`` items of ``frames``, uint8 [count, H, W, 3], decoded from a keyframe near them.

        Raises:
            InputError: there are fewer, or the file cannot be decoded.
        """
        resampling = self._resampling(source_fps, fps)
        total = resampling.count
        if not 0 < count <= total:
            raise InputError(
                "input video", self.name, f"has {total} frames, not {count}", "give a longer video"
            )
        tail = Tail(self, [resampling.source(k) for k in range(total - count, total)])
        if not fill_from_keyframe(self, tail, may_use_decord=source_fps is None):
            for index, picture in _pictures(self):
                tail.take(index, picture)
        return tail.images

    def _resampling(self, source_fps: float | None, fps: float) -> Resampling:
        if source_fps is None:
            return _regular(self.num_frames, 1, 1)
        if source_fps == 0:
            return Resampling(timeline=self.timeline, fps=_exact(fps))
        return _regular(self.num_frames, source_fps, fps)


class Tail:
    """Collects the frames with the indices ``wanted`` in one array, uint8 [len(wanted), H, W, 3]."""

    def __init__(self, video: InputVideo, wanted: Sequence[int]) -> None:
        import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

        self.video, self.first = video, wanted[0]
        self.slots: dict[int, list[int]] = {}
        for slot, index in enumerate(wanted):
            self.slots.setdefault(index, []).append(slot)
        self.images = np.empty((len(wanted), video.height, video.width, 3), np.uint8)

    def take(self, index: int, picture: "av.VideoFrame") -> None:
        """Convert source frame ``index`` if it is wanted."""
        if slots := self.slots.get(index):
            self.images[slots] = _upright(self.video, picture)


def tail_of(frames: Frames, count: int, source_fps: float | None = None, fps: float = 24.0) -> "np.ndarray":
    """The last ``count`` frames, uint8 [count, H, W, 3].

    Args:
        frames: an InputVideo, uint8 [F, H, W, 3], or a sequence of PIL images or arrays uint8 [H, W, 3].
        source_fps, fps: as for ``InputVideo.frames``; mere frames have no timestamps for ``source_fps`` 0.

    Raises:
        InputError: the file has fewer frames.
        ValueError: there are fewer frames, or they are no such array or images.
    """
    if isinstance(frames, InputVideo):
        return frames.tail(count, source_fps=source_fps, fps=fps)
    import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

    if source_fps == 0:
        raise ValueError("frames without a file have no timestamps: give their rate as source_fps")
    resampling = _regular(len(frames), *((1, 1) if source_fps is None else (source_fps, fps)))
    total = resampling.count if len(frames) else 0
    if not 0 < count <= total:
        raise ValueError(f"{total} frames, not {count}")
    chosen = [frames[resampling.source(k)] for k in range(total - count, total)]
    images = [np.asarray(x.convert("RGB") if hasattr(x, "convert") else x) for x in chosen]
    if {(image.dtype.name, image.ndim, image.shape) for image in images} != {("uint8", 3, images[0].shape)}:
        raise ValueError("frames must be uint8 [H, W, 3] and of one size")
    if images[0].shape[2] != 3:
        raise ValueError(f"frames must be uint8 [H, W, 3], not {list(images[0].shape)}")
    return np.stack(images)


def read_video(flag: str, source: str, fetcher: Fetcher) -> InputVideo:
    """Fetch a video, read all of its packets and decode its first frame.

    Only where timestamps are missing or the decoder leaves out frames at the start (raw streams, some cut
    files) are all frames decoded to count them.

    Raises:
        InputError: no such file, not a video, truncated, without a video stream or frames.
    """
    path = fetcher.local(flag, source)
    with _opened(flag, source, path) as (container, stream):
        survey = _surveyed(container, stream)
        if missing := _missing(flag, source, path, (container, stream), survey):
            raise InputError(flag, source, f"is truncated: {missing}", "download or save it again")
        if survey.first is None:
            raise InputError(flag, source, "has no frames", "give another video")
        declared = stream.average_rate or stream.guessed_rate or Fraction(24)
        timeline = survey.timeline(declared) or _counted(flag, source, path, declared)
        plain, has_audio = _is_plain(container, survey, timeline), bool(container.streams.audio)
    size, turn = (survey.first.width, survey.first.height), _turn(survey.first)
    width, height = reversed(size) if turn.transposed else size
    num_frames, rate = len(timeline.moments), timeline.rate(declared)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return InputVideo(
        path=path,
        name=display_name(source),
        width=width,
        height=height,
        num_frames=num_frames,
        fps=float(rate),
        seconds=float(num_frames / rate),
        sha256=digest,
        has_audio=has_audio,
        plain=plain,
        timeline=timeline,
        turn=turn,
    )


def _exact(rate: float) -> Fraction:
    """A rate as people mean it: 29.97 is 2997/100."""
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"frame rate {rate}: must be a number above 0")
    return Fraction(rate).limit_denominator(1_000_000) or Fraction(rate)


def _regular(num_frames: int, source_fps: float, fps: float) -> Resampling:
    """Frame i is at i / source_fps seconds."""
    timeline = Timeline(moments=range(num_frames), end=num_frames, tick=1 / _exact(source_fps))
    return Resampling(timeline=timeline, fps=_exact(fps))


@contextmanager
def _opened(
    flag: str, source: str, path: Path, **options: str
) -> "Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]":
    """The container and its video stream; what goes wrong in the block too becomes an InputError."""
    import av  # noqa: PLC0415 - this module is loaded at start-up

    options |= {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        # "file:" and a path from the root: nothing in the name is a protocol or an option.
        container = av.open(f"file:{path.absolute()}", container_options=options, metadata_errors="replace")
    except OSError as error:
        raise InputError(flag, source, f"cannot be read ({error.strerror})", "check the file") from None
    except av.FFmpegError:
        raise InputError(flag, source, "is not a video, or not all of one", ANOTHER_COPY) from None
    with container:
        # Covers of music files are video streams too.
        attached = av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & attached]
        if not streams:
            raise InputError(flag, source, "has no video stream", "give a video file")
        if streams[0].codec_context is None:
            raise InputError(flag, source, "its codec is not known here", "convert it to an H.264 mp4")
        try:
            yield container, streams[0]
        except av.FFmpegError as error:
            what = f"cannot be decoded ({error.strerror or first_line(error)})"
            raise InputError(flag, source, what, ANOTHER_COPY) from None


@dataclass(kw_only=True, slots=True)
class Survey:
    """What the packets of a video stream say.

    AVI stores no presentation times, and those libavformat makes up are wrong where frames are reordered; but
    then its decoding times, in order, are what they should be (``avi``).
    """

    tick: Fraction
    avi: bool
    times: list[int | None] = field(default_factory=list)  # of the frames that are shown
    keyframes: list[Keyframe] = field(default_factory=list)
    packets: int = 0
    last: tuple[int, int] | None = None  # greatest time, and its duration
    end: Fraction = Fraction(0)  # seconds; of all streams
    partial: bool = False  # the last packet is
    cut: bool = False  # an edit list leaves frames out
    leading: bool = False  # a frame comes after a keyframe and is shown before it
    reordered: bool = False
    first: "av.VideoFrame | None" = None

    @property
    def whole(self) -> int:
        """How many packets are complete."""
        return self.packets - self.partial

    def add(self, packet: "av.packet.Packet", *, hidden: bool) -> None:
        """Count a packet of the stream; ``hidden`` ones hold a frame that is never shown."""
        self.packets += 1
        self.partial = packet.is_corrupt
        self.cut |= packet.is_discard
        self.reordered |= packet.pts != packet.dts
        if packet.pts is not None:
            if packet.is_keyframe:
                self.keyframes.append(Keyframe(packet.pts, packet.dts))
            elif self.keyframes and packet.pts < self.keyframes[-1].pts:
                self.leading = True
        if packet.size and not packet.is_discard and not hidden:
            time = packet.dts if self.avi else packet.pts
            self.times.append(time)
            if time is not None:
                latest = (time, packet.duration or 0)
                self.last = max(self.last or latest, latest)

    def timeline(self, rate: Fraction) -> Timeline | None:
        """None where timestamps are missing, or the decoder left out the first frames."""
        moments = sorted(time for time in self.times if time is not None)
        if self.first is None or self.last is None or len(set(moments)) < len(self.times):
            return None
        made_up = self.avi and self.reordered
        if self.first.pts != moments[0] and not made_up:
            return None
        duration = self.last[1]
        if duration <= 1:  # AVI's are one tick each
            duration = moments[-1] - moments[-2] if len(moments) > 1 else round(1 / (rate * self.tick))
        return Timeline(
            moments=tuple(moments),
            end=moments[-1] + max(1, duration),
            tick=self.tick,
            keyframes=() if made_up else tuple(sorted(self.keyframes, key=lambda keyframe: keyframe.pts)),
        )


def _surveyed(container: "av.container.InputContainer", stream: "av.video.stream.VideoStream") -> Survey:
    """Read every packet; decode up to the first frame."""
    survey = Survey(tick=stream.time_base or MILLISECOND, avi=_family(container) == "avi")
    vp8 = stream.codec_context.name.startswith(("vp8", "libvpx"))
    for packet in container.demux():
        if packet.pts is not None and packet.time_base:
            survey.end = max(survey.end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        if packet.stream.index != stream.index:
            continue
        if not _is_flush(packet):
            # VP8 has frames that are only referred to; their show_frame bit is 0 (RFC 6386, 9.1).
            survey.add(packet, hidden=vp8 and bool(packet.size) and not bytes(packet)[0] & 0x10)
        if survey.first is None:
            survey.first = next(_decoded([packet]), None)
    return survey


def _missing(
    flag: str,
    source: str,
    path: Path,
    opened: "tuple[av.container.InputContainer, av.video.stream.VideoStream]",
    survey: Survey,
) -> str:
    """What the container declares and does not have; empty if it is whole."""
    container, stream = opened
    family, whole, declared, end = _family(container), survey.whole, 0.0, 0.0
    if family == "mov" and whole < stream.frames:
        # Edit lists also leave out packets altogether.
        with _opened(flag, source, path, ignore_editlist="1") as everything:
            whole = _surveyed(*everything).whole
        if whole < stream.frames:
            return f"{whole} of {stream.frames} frames are there"
    if family == "matroska":
        declared, end = (container.duration or 0) / 1e6, float(survey.end)
    elif family == "avi" and survey.last is not None:
        declared, end = float(stream.frames * survey.tick), float(sum(survey.last) * survey.tick)
    if declared - end > PATIENCE:
        about = round(declared * (stream.guessed_rate or 24))
        return f"{whole} of about {about} frames are there ({end:.2f} of {declared:.2f} s)"
    return f"{whole} of at least {survey.packets} frames are there" if survey.partial else ""


def _family(container: "av.container.InputContainer") -> str:
    return container.format.name.partition(",")[0]


def _counted(flag: str, source: str, path: Path, rate: Fraction) -> Timeline:
    """The frames that decoding yields, at the average rate."""
    with _opened(flag, source, path) as (container, stream):
        _use_threads(stream)
        count = sum(1 for _ in _decoded(container.demux(stream)))
    if not count:
        raise InputError(flag, source, "has no frames", "give another video")
    return Timeline(moments=range(count), end=count, tick=1 / rate)


def _is_plain(container: "av.container.InputContainer", survey: Survey, timeline: Timeline) -> bool:
    """Whether decord gives the same frames as PyAV (measured with decord 0.6.0 and PyAV 18.1).

    decord converts the chroma of interlaced frames and of odd sizes in another way, applies the display
    matrix itself, and may choose another of several streams. It finds frames by counting packets, so none may
    be cut away by an edit list, none that follows a keyframe may be shown before it, and timestamps must be
    right.
    """
    picture = survey.first
    return (
        picture is not None
        and len(container.streams.video) == 1
        and _family(container) in PLAIN_FORMATS
        and picture.format.name in PLAIN_PIXELS
        and not picture.width % 2
        and not picture.height % 2
        and not picture.interlaced_frame
        and not any(_turn(picture))
        and bool(timeline.keyframes)
        and timeline.is_steady()
        and not survey.cut
        and not survey.leading
    )


def _turn(picture: "av.VideoFrame") -> Turn:
    """The display matrix, to the nearest right angle.

    Its rows are (a, b, u), (c, d, v), (x, y, w); a pixel at (x, y) is shown at (ax + cy, bx + dy).
    """
    matrix: Any = picture.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Turn()
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    if abs(b) > abs(a):
        return Turn(transposed=True, mirrored=c < 0, flipped=b < 0)
    return Turn(mirrored=a < 0, flipped=d < 0)


def _upright(video: InputVideo, picture: "av.VideoFrame") -> "np.ndarray":
    """uint8 RGB [H, W, 3]; a frame of another size than the first is scaled to it."""
    import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

    turn = video.turn
    width, height = (video.height, video.width) if turn.transposed else (video.width, video.height)
    image = picture.to_ndarray(format="rgb24", width=width, height=height)
    if turn.transposed:
        image = image.transpose(1, 0, 2)
    if turn.mirrored:
        image = image[:, ::-1]
    if turn.flipped:
        image = image[::-1]
    return np.ascontiguousarray(image)


def _use_threads(stream: "av.video.stream.VideoStream") -> None:
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)


def _is_flush(packet: "av.packet.Packet") -> bool:
    """Whether PyAV added it at the end, to get the last frames out."""
    return not packet.size and packet.dts is None


def _decoded(packets: "Iterable[av.packet.Packet]") -> "Iterator[av.VideoFrame]":
    for packet in packets:
        if packet.size or _is_flush(packet):  # any other empty packet would end the decoding
            yield from packet.decode()


def _pictures(video: InputVideo) -> "Iterator[tuple[int, av.VideoFrame]]":
    """Every frame from the start, with its index."""
    index = -1
    with _opened("input video", video.name, video.path) as (container, stream):
        _use_threads(stream)
        for index, picture in enumerate(_decoded(container.demux(stream))):
            yield index, picture
    if index + 1 != video.num_frames:
        what = f"{index + 1} frames can be decoded, {video.num_frames} should be there"
        raise InputError("input video", video.name, what, ANOTHER_COPY)


def fill_from_keyframe(video: InputVideo, tail: Tail, *, may_use_decord: bool) -> bool:
    """Decode from the last keyframe before the tail; False where that does not give the expected frames."""
    moments, keyframes = video.timeline.moments, video.timeline.keyframes
    place = bisect_right(keyframes, moments[tail.first], key=lambda keyframe: keyframe.pts) - 1
    if place < 0:
        return False
    start = keyframes[place]
    try:
        if may_use_decord and video.plain and _is_clean(video, start) and fill_with_decord(video, tail):
            return True
        with _opened("input video", video.name, video.path) as (container, stream):
            _use_threads(stream)
            pictures = _decoded(_packets_from(container, stream, start))
            return _fill(tail, pictures, moments, start.pts)
    except InputError as error:
        logger.debug("decoding %s from its start: %s", video.name, error)
        return False


def _is_clean(video: InputVideo, start: Keyframe) -> bool:
    """Whether ``start`` and all keyframes after it are whole, progressive and of the video's size.

    Where the picture is refreshed bit by bit, unfinished frames are marked as keyframes too: PyAV leaves them
    out, decord does not.
    """
    size = (video.width, video.height)
    with _opened("input video", video.name, video.path) as (container, stream):
        stream.codec_context.skip_frame = "NONKEY"
        moments = []
        for picture in _decoded(_packets_from(container, stream, start)):
            if picture.is_corrupt or picture.interlaced_frame or (picture.width, picture.height) != size:
                return False
            moments.append(picture.pts)
    return moments[:1] == [start.pts]


def _packets_from(
    container: "av.container.InputContainer", stream: "av.video.stream.VideoStream", start: Keyframe
) -> "Iterator[av.packet.Packet]":
    """Packets from ``start`` or an earlier keyframe on; none if it cannot be found.

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


def _fill(tail: Tail, pictures: "Iterable[av.VideoFrame]", moments: Sequence[int], start: int) -> bool:
    """Whether the frames from ``start`` on are exactly those the timeline lists, all intact."""
    index = bisect_left(moments, start)
    for picture in pictures:
        if picture.pts is None:
            return False
        if picture.pts < start:  # it may refer to frames before the keyframe
            continue
        if index == len(moments) or picture.pts != moments[index] or picture.is_corrupt:
            return False
        tail.take(index, picture)
        index += 1
    return index == len(moments)


def fill_with_decord(video: InputVideo, tail: Tail) -> bool:
    """Read the last frames with decord; False where it is not installed or disagrees about the file."""
    try:
        import decord  # noqa: PLC0415 - this module is loaded at start-up, and there are no wheels for ARM

        decord.logging.set_level(decord.logging.QUIET)
        reader = decord.VideoReader(str(video.path.absolute()), ctx=decord.cpu(0), num_threads=1)
        if len(reader) != video.num_frames:
            return False
        for slot, index in enumerate(range(tail.first, video.num_frames)):
            image = reader[index].asnumpy()
            if image.shape != tail.images.shape[1:]:  # rows of 48 pixels come with 4 channels
                return False
            tail.images[slot] = image
    except Exception as error:  # whatever it is, PyAV can do it
        logger.debug("%s is not read with decord: %s", video.name, first_line(error))
        return False
    return True
