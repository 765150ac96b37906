"""What videos are written as: files by their suffix, codecs, and how colours are stored. Plain data."""

import re
from dataclasses import dataclass
from typing import NamedTuple

STILL, FOLDER = "still", "png"  # kinds of output: one .png, and a folder of them
PNG_FILE = re.compile(r"\d{6,}\.png")  # in such a folder


class Codec(NamedTuple):
    """A video codec: ffmpeg's encoder and its options, and the sound that goes with it.

    ``crf`` is its usual quality, where it has one, ``worst`` the greatest number. ``is_rgb``: colours are
    stored as they are.
    """

    encoder: str
    pixels: str
    options: tuple[str, ...] = ()
    crf: int | None = None
    worst: int = 0
    is_rgb: bool = False


CODECS = {
    "h264": Codec("libx264", "yuv420p", crf=10, worst=51),  # as published (spec skyreels_v3 section 1)
    "prores": Codec("prores_ks", "yuv422p10le", ("-profile:v", "hq", "-vendor", "apl0")),
    "vp9": Codec(
        "libvpx-vp9",
        "yuv420p",
        ("-b:v", "0", "-deadline", "good", "-cpu-used", "2", "-row-mt", "1"),
        crf=15,
        worst=63,
    ),
    "ffv1": Codec("ffv1", "bgr0", ("-level", "3", "-g", "1", "-slicecrc", "1"), is_rgb=True),
}


class Container(NamedTuple):
    """A file that holds a video and its sound: its codecs, the usual one first, and ffmpeg's options."""

    codecs: tuple[str, ...]
    audio: str
    options: tuple[str, ...] = ()


INDEX_FIRST = ("-movflags", "+faststart")
CONTAINERS = {
    "mp4": Container(("h264",), "aac", INDEX_FIRST),
    "mov": Container(("prores", "h264"), "pcm_s16le", INDEX_FIRST),
    "webm": Container(("vp9",), "libopus"),
    "mkv": Container(("h264", "ffv1"), "flac"),
}
# Kinds that browsers show -> their MIME type.
MIME_TYPES = {"mp4": "video/mp4", "webm": "video/webm", "gif": "image/gif", STILL: "image/png"}
FILES = (*CONTAINERS, "gif", "npy")  # kinds that are their suffix
SUFFIXES = tuple(f".{kind}" for kind in (*FILES, "png"))
WITH_SOUND = tuple(f".{kind}" for kind in CONTAINERS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How a video is encoded.

    Args:
        codec: one of those of its container; None is the usual one.
        crf: quality, lower is better; None is the codec's usual one.
        published: colours as the published code stores them: BT.601 without a tag.
    """

    codec: str | None = None
    crf: int | None = None
    published: bool = False


def container_of(codec: str | None) -> str:
    """Return the kind of file that a codec is usually in."""
    return next(
        (kind for kind, file in CONTAINERS.items() if codec in file.codecs[:1]), "mkv" if codec else "mp4"
    )


def has_sound(output: str) -> bool:
    """Return whether a file with this name may hold sound."""
    return output.lower().endswith(WITH_SOUND)


def color_options(codec: Codec) -> list[str]:
    """Return ffmpeg's options for BT.709 in limited range, in the samples and in the tags."""
    if codec.is_rgb:
        return []
    tags = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv"}
    # The first converts; the second states what is not known of RGB; flags: all pixels count for the chroma.
    flags = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
    convert = f"scale=out_color_matrix=bt709:out_range=tv:flags={flags},format={codec.pixels}"
    state = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
    return [
        "-vf",
        f"{convert},{state}",
        *(word for name, value in tags.items() for word in (f"-{name}", value)),
    ]
