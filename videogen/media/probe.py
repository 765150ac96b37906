"""Opening media files, and probing videos: reading all packets without decoding."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av import Packet, VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream

from videogen.errors import first_line
from videogen.media.frame_source import MILLISECOND, Keyframe, Timeline
from videogen.media.inputs import Source

# Demuxers that read one self-contained file: no playlists, patterns of names, still images or text.
FORMATS = "mov,matroska,avi,flv,mpegts,mpeg,ogg,asf,mxf,ivf,gif,h264,hevc"
MOST_PIXELS = 40_000_000  # of a frame; 8K has 33 million
LIMITS = {"max_pixels": str(MOST_PIXELS)}  # for the decoders that look for a stream's size
MAX_THREADS = 4  # each holds a frame
DURATION_TOLERANCE = 0.25  # seconds by which a container may overstate its duration: codecs pad the sound


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
def open_container(source: Source, kind: MediaKind = VIDEO, **options: str) -> Iterator[InputContainer]:
    """Open a media file with PyAV; what goes wrong in the block becomes an InputError too."""
    options |= {"format_whitelist": kind.formats, "protocol_whitelist": "file"}
    try:
        # "file:" and an absolute path: nothing in the name is a protocol or an option.
        container = av.open(
            f"file:{source.path.absolute()}",
            options=LIMITS,
            container_options=options,
            metadata_errors="replace",
        )
    except OSError as error:
        raise source.error(f"cannot be read ({error.strerror})", "check the file") from None
    except (av.FFmpegError, ValueError):
        raise source.error(kind.rejected, kind.expected) from None
    with container, source.reported(f"download or save it again, or {kind.convert}"):
        try:
            yield container
        except av.FFmpegError as error:  # that of too little memory comes from a size in the file
            raise ValueError(error.strerror or first_line(error)) from None


@contextmanager
def open_video(source: Source, **options: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video file: its container and its first video stream."""
    with open_container(source, VIDEO, **options) as container:
        streams = shown_streams(container)
        if not streams:
            raise source.error("has no video stream", "give a video file")
        stream = streams[0]
        if stream.codec_context is None:
            raise source.error("its codec is not known here", VIDEO.convert)
        check_pixels(source, stream.width, stream.height)
        stream.codec_context.options = LIMITS  # also for frames of another size than the first
        yield container, stream


def check_pixels(source: Source, width: int, height: int) -> None:
    """Refuse frames that are too large.

    Raises:
        InputError: they are.
    """
    if width * height > MOST_PIXELS:
        what = f"has {width}x{height} pixels, more than {MOST_PIXELS:,}"
        raise source.error(what, "scale it down")


def shown_streams(container: InputContainer) -> list[VideoStream]:
    """Return the video streams but for pictures: covers of music files are video streams too."""
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
    first: VideoFrame | None = None

    @property
    def whole(self) -> int:
        """Number of complete packets."""
        return self.packets - self.partial

    def add(self, packet: Packet, *, hidden: bool) -> None:
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


def probe_stream(container: InputContainer, stream: VideoStream) -> StreamProbe:
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
    source: Source, container: InputContainer, stream: VideoStream, probe: StreamProbe
) -> str:
    """Return what the container declares but does not hold, in words; empty if the file is complete."""
    kind, whole, declared, end = format_family(container), probe.whole, 0.0, 0.0
    if kind == "mov" and whole < stream.frames:
        # Edit lists also leave out packets altogether.
        with open_video(source, ignore_editlist="1") as everything:
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


def format_family(container: InputContainer) -> str:
    """Return the name of the container's format, such as 'mov'."""
    return container.format.name.partition(",")[0]


def decode_timeline(source: Source, rate: Fraction) -> Timeline:
    """Return the timeline of the frames that decoding yields, at the average rate."""
    with open_video(source) as (container, stream):
        use_threads(stream)
        count = sum(1 for _ in decode_packets(container.demux(stream)))
    if not count:
        raise source.error("has no frames", "give another video")
    return Timeline(moments=range(count), end=count, tick=1 / rate)


def use_threads(stream: VideoStream) -> None:
    """Let the decoder use several threads."""
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)


def _is_flush(packet: Packet) -> bool:
    """Return whether PyAV added the packet at the end, to flush the decoder."""
    return not packet.size and packet.dts is None


def decode_packets(packets: Iterable[Packet]) -> Iterator[VideoFrame]:
    """Yield the frames of packets."""
    for packet in packets:
        if packet.size or _is_flush(packet):  # any other empty packet would end the decoding
            yield from packet.decode()


def read_comment(path: Path) -> str | None:
    """Return the comment of a video file, if it has one.

    Raises:
        InputError: the file cannot be read as a video.
    """
    with open_container(Source("", path.name, path)) as container:
        # Matroska's names are in capitals.
        return next((text for name, text in container.metadata.items() if name.lower() == "comment"), None)
