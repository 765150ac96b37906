"""Opening media files, and probing videos: reading all packets without decoding. PyAV is imported lazily."""

import math
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from videogen.errors import InputError, first_line, reported_as

if TYPE_CHECKING:
    import av
    import av.container
    import av.packet
    import av.video.stream

# Demuxers that read one self-contained file: no playlists, patterns of names, still images or text.
FORMATS = "mov,matroska,avi,flv,mpegts,mpeg,ogg,asf,mxf,ivf,gif,h264,hevc"
MOST_PIXELS = 40_000_000  # of a frame; 8K has 33 million
LIMITS = {"max_pixels": str(MOST_PIXELS)}  # for the decoders that look for a stream's size
MAX_THREADS = 4  # each holds a frame
DURATION_TOLERANCE = 0.25  # seconds by which a container may overstate its duration: codecs pad the sound
RATE_TOLERANCE = 0.02  # between the container's average rate and that of the timestamps
MILLISECOND = Fraction(1, 1000)


class Keyframe(NamedTuple):
    """A frame at which decoding may start; times in ticks."""

    pts: int
    dts: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """Presentation times of the frames, in ticks of ``tick`` seconds.

    ``moments`` ascend; ``end`` is the end of the last frame. Without ``keyframes`` (ascending), decoding can
    only start at the beginning of the file.
    """

    moments: Sequence[int]
    end: int
    tick: Fraction
    keyframes: tuple[Keyframe, ...] = ()

    @property
    def seconds(self) -> Fraction:
        return (self.end - self.moments[0]) * self.tick

    def rate(self, declared: Fraction) -> Fraction:
        """Return the average frames per second: ``declared``, unless it is far off (variable rates)."""
        measured = len(self.moments) / self.seconds
        return declared if abs(declared / measured - 1) < RATE_TOLERANCE else measured


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """Resampling to the source frame nearest to k / ``fps`` seconds; of two equally near, the later."""

    timeline: Timeline
    fps: Fraction

    @property
    def count(self) -> int:
        """Number of output frames that start before the last source frame ends.

        That end may be late by the rounding to ticks (mkv: 1 ms), which must not add a frame.
        """
        rounding = min(self.timeline.tick, MILLISECOND) if self.timeline.keyframes else 0
        return max(1, math.ceil((self.timeline.seconds - rounding) * self.fps))

    def source(self, k: int) -> int:
        """Return the index of the source frame for output frame ``k``."""
        moments = self.timeline.moments
        moment = moments[0] + k / (self.fps * self.timeline.tick)
        index = bisect_right(moments, moment) - 1
        if index + 1 < len(moments) and moment - moments[index] >= moments[index + 1] - moment:
            return index + 1
        return index


def regular(num_frames: int, source_fps: float, fps: float) -> Resampling:
    """Return the resampling of ``num_frames`` frames of which frame i is at i / source_fps seconds."""
    timeline = Timeline(moments=range(num_frames), end=num_frames, tick=1 / exact(source_fps))
    return Resampling(timeline=timeline, fps=exact(fps))


def exact(rate: float) -> Fraction:
    """Return a rate as the short decimal it was given as: 29.97 is 2997/100."""
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"frame rate {rate}: must be a number above 0")
    return Fraction(rate).limit_denominator(1_000_000) or Fraction(rate)


class MediaKind(NamedTuple):
    """A kind of input file: the demuxers that may open it, and words for error messages."""

    formats: str
    rejected: str  # what is said of a file that is not of this kind
    expected: str  # what to give instead
    convert: str


VIDEO = MediaKind(
    FORMATS,
    rejected="is not a video, or not all of one",
    expected="download or save it again, or convert it to an H.264 mp4",
    convert="convert it to an H.264 mp4",
)


@contextmanager
def open_container(
    flag: str, source: str, path: Path, kind: MediaKind = VIDEO, **options: str
) -> "Iterator[av.container.InputContainer]":
    """Open a media file with PyAV; what goes wrong in the block becomes an InputError too."""
    import av  # noqa: PLC0415 - this module is loaded at start-up

    options |= {"format_whitelist": kind.formats, "protocol_whitelist": "file"}
    try:
        # "file:" and an absolute path: nothing in the name is a protocol or an option.
        container = av.open(
            f"file:{path.absolute()}", options=LIMITS, container_options=options, metadata_errors="replace"
        )
    except OSError as error:
        raise InputError(flag, source, f"cannot be read ({error.strerror})", "check the file") from None
    except (av.FFmpegError, ValueError):
        raise InputError(flag, source, kind.rejected, kind.expected) from None
    fix = f"download or save it again, or {kind.convert}"
    with container, reported_as(lambda why: InputError(flag, source, f"cannot be decoded ({why})", fix)):
        try:
            yield container
        except av.FFmpegError as error:  # that of too little memory comes from a size in the file
            raise ValueError(error.strerror or first_line(error)) from None


@contextmanager
def open_video(
    flag: str, source: str, path: Path, **options: str
) -> "Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]":
    """Open a video file: its container and its first video stream."""
    with open_container(flag, source, path, VIDEO, **options) as container:
        streams = shown_streams(container)
        if not streams:
            raise InputError(flag, source, "has no video stream", "give a video file")
        if streams[0].codec_context is None:
            raise InputError(flag, source, "its codec is not known here", VIDEO.convert)
        if streams[0].width * streams[0].height > MOST_PIXELS:
            what = f"has {streams[0].width}x{streams[0].height} pixels, more than {MOST_PIXELS:,}"
            raise InputError(flag, source, what, "scale it down")
        streams[0].codec_context.options = LIMITS  # also for frames of another size than the first
        yield container, streams[0]


def shown_streams(container: "av.container.InputContainer") -> "list[av.video.stream.VideoStream]":
    """Return the video streams but for pictures: covers of music files are video streams too."""
    import av  # noqa: PLC0415 - this module is loaded at start-up

    attached = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & attached]


@dataclass(kw_only=True, slots=True)
class StreamProbe:
    """Facts about a video stream, collected from its packets.

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
    reordered: bool = False
    first: "av.VideoFrame | None" = None

    @property
    def whole(self) -> int:
        """Number of complete packets."""
        return self.packets - self.partial

    def add(self, packet: "av.packet.Packet", *, hidden: bool) -> None:
        """Count a packet of the stream; ``hidden`` ones hold a frame that is never shown."""
        self.packets += 1
        self.partial = packet.is_corrupt
        self.reordered |= packet.pts != packet.dts
        if packet.pts is not None and packet.is_keyframe:
            self.keyframes.append(Keyframe(packet.pts, packet.dts))
        if packet.size and not packet.is_discard and not hidden:
            time = packet.dts if self.avi else packet.pts
            self.times.append(time)
            if time is not None:
                latest = (time, packet.duration or 0)
                self.last = max(self.last or latest, latest)

    def timeline(self, rate: Fraction) -> Timeline | None:
        """Return the timeline; None if timestamps are missing or the decoder left out the first frames."""
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


def probe_stream(
    container: "av.container.InputContainer", stream: "av.video.stream.VideoStream"
) -> StreamProbe:
    """Read every packet of the file and decode the first frame."""
    probe = StreamProbe(tick=stream.time_base or MILLISECOND, avi=format_family(container) == "avi")
    vp8 = stream.codec_context.name.startswith(("vp8", "libvpx"))
    for packet in container.demux():
        if packet.pts is not None and packet.time_base:
            probe.end = max(probe.end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        if packet.stream.index != stream.index:
            continue
        if not _is_flush(packet):
            # VP8 has frames that are only referred to; their show_frame bit is 0 (RFC 6386, 9.1).
            probe.add(packet, hidden=vp8 and bool(packet.size) and not bytes(packet)[0] & 0x10)
        if probe.first is None:
            probe.first = next(decode_packets([packet]), None)
    return probe


def find_truncation(
    flag: str,
    source: str,
    path: Path,
    file: "tuple[av.container.InputContainer, av.video.stream.VideoStream]",
    probe: StreamProbe,
) -> str:
    """Return what the container declares but does not hold, in words; empty if the file is complete."""
    container, stream = file
    kind, whole, declared, end = format_family(container), probe.whole, 0.0, 0.0
    if kind == "mov" and whole < stream.frames:
        # Edit lists also leave out packets altogether.
        with open_video(flag, source, path, ignore_editlist="1") as everything:
            whole = probe_stream(*everything).whole
        if whole < stream.frames:
            return f"{whole} of {stream.frames} frames are there"
    if kind == "matroska":
        declared, end = (container.duration or 0) / 1e6, float(probe.end)
    elif kind == "avi" and probe.last is not None:
        declared, end = float(stream.frames * probe.tick), float(sum(probe.last) * probe.tick)
    if declared - end > DURATION_TOLERANCE:
        about = round(declared * (stream.guessed_rate or 24))
        return f"{whole} of about {about} frames are there ({end:.2f} of {declared:.2f} s)"
    return f"{whole} of at least {probe.packets} frames are there" if probe.partial else ""


def format_family(container: "av.container.InputContainer") -> str:
    """Return the name of the container's format, such as 'mov'."""
    return container.format.name.partition(",")[0]


def decode_timeline(flag: str, source: str, path: Path, rate: Fraction) -> Timeline:
    """Return the timeline of the frames that decoding yields, at the average rate."""
    with open_video(flag, source, path) as (container, stream):
        use_threads(stream)
        count = sum(1 for _ in decode_packets(container.demux(stream)))
    if not count:
        raise InputError(flag, source, "has no frames", "give another video")
    return Timeline(moments=range(count), end=count, tick=1 / rate)


def use_threads(stream: "av.video.stream.VideoStream") -> None:
    """Let the decoder use several threads."""
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)


def _is_flush(packet: "av.packet.Packet") -> bool:
    """Return whether PyAV added the packet at the end, to flush the decoder."""
    return not packet.size and packet.dts is None


def decode_packets(packets: "Iterable[av.packet.Packet]") -> "Iterator[av.VideoFrame]":
    """Yield the frames of packets."""
    for packet in packets:
        if packet.size or _is_flush(packet):  # any other empty packet would end the decoding
            yield from packet.decode()
