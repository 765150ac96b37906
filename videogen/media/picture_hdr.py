"""Still pictures beyond SDR: PNG with cICP, AVIF and HEIC with nclx, converted as videos are (hdr.py)."""

import struct
from pathlib import Path

import av
import numpy as np
from PIL import Image

from videogen.media.hdr import Colours, colours_of, to_sdr

HEAD = 1 << 20  # bytes of a file in which its colours are stated


def colours_of_picture(path: Path) -> Colours | None:
    """Return what must be converted; None for a picture that is shown as it is."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"\x89PNG"):
        head, mark, codes = head.partition(b"IDAT")[0], b"cICP", ">BB"
    else:
        mark, codes = b"colrnclx", ">HH"
    place = head.find(mark) + len(mark)
    if place < len(mark) or place + struct.calcsize(codes) > len(head):
        return None
    primaries, transfer = struct.unpack_from(codes, head, place)
    return colours_of(transfer, primaries)


def as_sdr(image: Image.Image, path: Path, colours: Colours) -> Image.Image:
    """Return a picture in 8-bit sRGB with the opacity and orientation of ``image``, which PIL has opened."""
    deep = _heif(path) if image.format == "HEIF" else _decoded(path)
    if deep is None or deep.shape[1::-1] != image.size:  # of tiles, say: PIL has the upper 8 bits
        deep = np.asarray(image.convert("RGB")).astype(np.uint16) * 257
    shown = Image.fromarray(to_sdr(deep, colours))
    if "A" in image.getbands():
        shown.putalpha(image.getchannel("A"))
    shown.info = {name: value for name, value in image.info.items() if name == "exif"}
    return shown


def _decoded(path: Path) -> np.ndarray | None:
    """Return a PNG's or an AVIF's uint16 RGB [H, W, 3] through PyAV; None if it cannot read it."""
    try:
        with av.open(str(path)) as container:
            return next(container.decode(video=0)).to_ndarray(format="rgb48le")
    except (av.FFmpegError, StopIteration, IndexError):
        return None


def _heif(path: Path) -> np.ndarray:
    """Return a HEIC's uint16 RGB [H, W, 3], upright."""
    import pillow_heif  # noqa: PLC0415 - only for HEIC files

    pixels = np.asarray(pillow_heif.open_heif(path, convert_hdr_to_8bit=False))[..., :3]
    return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * 257
