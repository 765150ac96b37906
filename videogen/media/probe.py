"""What the packets of a video file say, before frames are decoded. PyAV is imported with the first file."""

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from videogen.errors import InputError, first_line
from videogen.media.timeline import MILLISECOND, Keyframe, Timeline

if TYPE_CHECKING:
    import av
    import av.container
    import av.packet
    import av.video.stream

# Demuxers that read one self-contained file: no playlists, patterns of names, still images or text.
FORMATS = "mov,matroska,avi,flv,mpegts,mpeg,ogg,asf,mxf,ivf,gif,h264,hevc"
# What decord was compared with PyAV for.
PLAIN_FORMATS = ("mov", "matroska", "avi")
PLAIN_CODECS = ("h264", "hevc", "vp8", "vp9")  # decoding them is exactly specified; MPEG-4's was not equal
PLAIN_PIXELS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p")
MAX_THREADS = 4  # each holds a frame
PATIENCE = 0.25  # seconds by which a container may overstate its duration: codecs pad the sound
ANOTHER_COPY = "download or save it again, or convert it to an H.264 mp4"


class Turn(NamedTuple):
    """What makes a decoded frame upright, in this order."""

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False


@contextmanager
def opened(
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


def surveyed(container: "av.container.InputContainer", stream: "av.video.stream.VideoStream") -> Survey:
    """Read every packet; decode up to the first frame."""
    survey = Survey(tick=stream.time_base or MILLISECOND, avi=family(container) == "avi")
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
            survey.first = next(decoded([packet]), None)
    return survey


def missing_part(
    flag: str,
    source: str,
    path: Path,
    file: "tuple[av.container.InputContainer, av.video.stream.VideoStream]",
    survey: Survey,
) -> str:
    """What the container declares and does not have; empty if it is whole."""
    container, stream = file
    kind, whole, declared, end = family(container), survey.whole, 0.0, 0.0
    if kind == "mov" and whole < stream.frames:
        # Edit lists also leave out packets altogether.
        with opened(flag, source, path, ignore_editlist="1") as everything:
            whole = surveyed(*everything).whole
        if whole < stream.frames:
            return f"{whole} of {stream.frames} frames are there"
    if kind == "matroska":
        declared, end = (container.duration or 0) / 1e6, float(survey.end)
    elif kind == "avi" and survey.last is not None:
        declared, end = float(stream.frames * survey.tick), float(sum(survey.last) * survey.tick)
    if declared - end > PATIENCE:
        about = round(declared * (stream.guessed_rate or 24))
        return f"{whole} of about {about} frames are there ({end:.2f} of {declared:.2f} s)"
    return f"{whole} of at least {survey.packets} frames are there" if survey.partial else ""


def family(container: "av.container.InputContainer") -> str:
    return container.format.name.partition(",")[0]


def counted(flag: str, source: str, path: Path, rate: Fraction) -> Timeline:
    """The frames that decoding yields, at the average rate."""
    with opened(flag, source, path) as (container, stream):
        use_threads(stream)
        count = sum(1 for _ in decoded(container.demux(stream)))
    if not count:
        raise InputError(flag, source, "has no frames", "give another video")
    return Timeline(moments=range(count), end=count, tick=1 / rate)


def is_plain(container: "av.container.InputContainer", survey: Survey, timeline: Timeline) -> bool:
    """Whether decord 0.6.0 gives the same frames as PyAV 17 and 18, as measured.

    Older PyAV decodes BT.709 with the matrix of BT.601.
    decord converts the chroma of interlaced frames and of odd sizes in another way, applies the display
    matrix itself, and may choose another of several streams. It finds frames by counting packets, so none may
    be cut away by an edit list, none that follows a keyframe may be shown before it, and timestamps must be
    right.
    """
    picture = survey.first
    return (
        picture is not None
        and len(container.streams.video) == 1
        and family(container) in PLAIN_FORMATS
        and container.streams.video[0].codec_context.name in PLAIN_CODECS
        and picture.format.name in PLAIN_PIXELS
        and not picture.width % 2
        and not picture.height % 2
        and not picture.interlaced_frame
        and not any(turn_of(picture))
        and bool(timeline.keyframes)
        and timeline.is_steady()
        and not survey.cut
        and not survey.leading
    )


def turn_of(picture: "av.VideoFrame") -> Turn:
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


def use_threads(stream: "av.video.stream.VideoStream") -> None:
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)


def _is_flush(packet: "av.packet.Packet") -> bool:
    """Whether PyAV added it at the end, to get the last frames out."""
    return not packet.size and packet.dts is None


def decoded(packets: "Iterable[av.packet.Packet]") -> "Iterator[av.VideoFrame]":
    for packet in packets:
        if packet.size or _is_flush(packet):  # any other empty packet would end the decoding
            yield from packet.decode()
