"""Input videos: any container and codec PyAV can decode, its frames one at a time or only the last few."""

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from av import Packet, VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream

from videogen.errors import InputError, first_line
from videogen.media.download import Fetcher, display_name, sha256_of
from videogen.media.frame_source import FrameSource, Keyframe, Resampling, Timeline, exact
from videogen.media.inputs import Source
from videogen.media.probe import (
    VIDEO,
    decode_packets,
    decode_timeline,
    find_truncation,
    open_video,
    probe_stream,
    shown_streams,
    use_threads,
)
from videogen.media.shown import Look, deinterlaced, look_of, to_rgb
from videogen.media.stored_frames import StoredFrames, is_stored, read_stored

logger = logging.getLogger(__name__)

MAX_SECONDS = 24 * 60 * 60  # seconds; a damaged time would mean any number of frames to resample


@dataclass(frozen=True, kw_only=True, slots=True)
class InputVideo(FrameSource):
    """A video file whose packets were all read and whose first frame was decoded."""

    timeline: Timeline = field(repr=False, compare=False)
    look: Look = field(repr=False, compare=False)

    def _by_timestamps(self, fps: float) -> Resampling:
        return Resampling(timeline=self.timeline, fps=exact(fps))

    def _read(self, indices: Iterator[int], size: tuple[int, int] | None) -> Iterator[np.ndarray]:
        """Yield the frames at ascending ``indices``, and decode the file to its end."""
        wanted = next(indices, None)
        for index, picture in _pictures(self):
            if index == wanted:
                image = _upright(self, picture, size)
            while index == wanted:
                yield image
                wanted = next(indices, None)

    def _fill(self, images: np.ndarray, indices: Sequence[int], size: tuple[int, int] | None) -> None:
        """Decode from a keyframe near the frames if that is possible, else from the start."""
        if not fill_from_keyframe(self, images, indices, size):
            FrameSource._fill(self, images, indices, size)


def read_video(flag: str, source: str, fetcher: Fetcher) -> InputVideo | StoredFrames:
    """Fetch a video, read all of its packets and decode its first frame; or check stored frames.

    Only where timestamps are missing or the decoder leaves out frames at the start (raw streams, some cut
    files) are all frames decoded to count them.

    Raises:
        InputError: no such file, not a video, truncated, without a video stream or frames.
    """
    path = Path(source).expanduser()
    file = Source(flag, source, path if path.is_dir() else fetcher.local(flag, source))
    if is_stored(file.path):
        return read_stored(file)
    with open_video(file) as (container, stream):
        probe = probe_stream(container, stream)
        if missing := find_truncation(file, container, stream, probe):
            raise file.error(f"is truncated: {missing}", "download or save it again")
        if probe.first is None:
            raise file.error("has no frames", "give another video")
        declared = stream.average_rate or stream.guessed_rate or Fraction(24)
        timeline = probe.timeline(declared) or decode_timeline(file, declared)
        start = max(0.0, float(timeline.moments[0] * timeline.tick) - (container.start_time or 0) / 1e6)
        has_audio = bool(container.streams.audio)
        probe.first.reformat(format="rgb24")  # or an error
        look, notes = look_of(probe.first, stream.sample_aspect_ratio)
        if (count := len(shown_streams(container))) > 1:
            notes.append(f"has {count} video streams; the first is used")
        if stream.metadata.get("alpha_mode") == "1":  # VP8 and VP9 in WebM: a stream beside the colours
            notes.append("has transparency beside its colours, which is not used")
    rate = timeline.rate(declared)
    seconds = float(len(timeline.moments) / rate)
    if seconds > MAX_SECONDS:
        raise file.error(f"lasts {seconds:.0f} s, more than {MAX_SECONDS}", "cut a part out")
    name, (width, height) = display_name(source), look.size
    return InputVideo(
        path=file.path,
        name=name,
        sha256=sha256_of(file.path),
        notes=tuple(f"{name} {note}" for note in notes),
        width=width,
        height=height,
        num_frames=len(timeline.moments),
        fps=float(rate),
        seconds=seconds,
        has_audio=has_audio,
        start=start,
        timeline=timeline,
        look=look,
    )


def _upright(video: InputVideo, picture: VideoFrame, size: tuple[int, int] | None) -> np.ndarray:
    """Convert a frame to upright uint8 RGB [H, W, 3] of ``size``."""
    with video.source.reported(VIDEO.convert, "{}"):
        return to_rgb(picture, video.look, size)


def _shown(video: InputVideo, pictures: Iterable[VideoFrame]) -> Iterable[VideoFrame]:
    return deinterlaced(pictures) if video.look.interlaced else pictures


def _pictures(video: InputVideo) -> Iterator[tuple[int, VideoFrame]]:
    """Yield every frame from the start, with its index."""
    index = -1
    with open_video(video.source) as (container, stream):
        use_threads(stream)
        for index, picture in enumerate(_shown(video, decode_packets(container.demux(stream)))):
            yield index, picture
    if index + 1 != video.num_frames:
        what = f"{index + 1} frames can be decoded, {video.num_frames} should be there"
        raise video.source.error(what, VIDEO.expected)


def fill_from_keyframe(
    video: InputVideo, images: np.ndarray, indices: Sequence[int], size: tuple[int, int] | None = None
) -> bool:
    """Read the frames at ``indices``, to the last, into ``images``, decoding from the last keyframe before.

    Returns:
        whether that gives the expected frames.
    """
    moments, keyframes = video.timeline.moments, video.timeline.keyframes
    needed = max(0, indices[0] - 1) if video.look.interlaced else indices[0]  # fields are compared
    place = bisect_right(keyframes, moments[needed], key=lambda keyframe: keyframe.pts) - 1
    if place < 0:
        return False
    start = keyframes[place]
    try:
        with open_video(video.source) as (container, stream):
            use_threads(stream)
            pictures = _from(start.pts, decode_packets(_packets_from(container, stream, start)))
            index = bisect_left(moments, start.pts)
            for picture in _shown(video, pictures):
                # Those of the timeline, all intact?
                if index == len(moments) or picture.pts != moments[index] or picture.is_corrupt:
                    return False
                if index in indices:
                    images[np.equal(indices, index)] = _upright(video, picture, size)
                index += 1
            return index == len(moments)
    except InputError as error:
        logger.debug("decoding %s from its start: %s", video.name, error)
        return False


def _packets_from(container: InputContainer, stream: VideoStream, start: Keyframe) -> Iterator[Packet]:
    """Yield packets from ``start`` or an earlier keyframe on; none if it cannot be found.

    Containers are indexed by either kind of timestamp.
    """
    for moment in (start.pts, start.dts):
        if moment is None:
            continue
        container.seek(moment, stream=stream)
        packets = container.demux(stream)
        first = next((p for p in packets if p.is_keyframe and p.pts is not None), None)
        if first is not None and first.pts is not None and first.pts <= start.pts:
            yield first
            yield from packets
            return


def _from(start: int, pictures: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    """Leave out frames before ``start``, which may refer to others before the keyframe."""
    return (picture for picture in pictures if picture.pts is None or picture.pts >= start)


def read_with_decord(video: InputVideo, indices: Sequence[int]) -> list[np.ndarray] | None:
    """Return the frames at ``indices``; None if decord is not installed or cannot read or show the file."""
    if not video.look.is_plain:
        return None
    try:
        import decord  # noqa: PLC0415 - there are no wheels for ARM

        decord.logging.set_level(decord.logging.QUIET)
        reader = decord.VideoReader(str(video.path.absolute()), ctx=decord.cpu(0), num_threads=1)
        images = [reader[index].asnumpy() for index in indices] if len(reader) == video.num_frames else []
    except Exception as error:  # decord raises many kinds of errors; PyAV reads the file then
        logger.debug("%s is not read with decord: %s", video.name, first_line(error))
        return None
    # Of videos 48 pixels wide decord returns 4 channels.
    shape = (video.height, video.width, 3)
    return images if images and all(image.shape == shape for image in images) else None
