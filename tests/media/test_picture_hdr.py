"""Still pictures in HDR: the colours that were brought into it are found again."""

import struct
import subprocess
import zlib

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from tests.colours import COLOURS, TO_BT2020, from_srgb, hlg, pq
from videogen.media.download import Fetcher
from videogen.media.image import read_image

CURVES = {"PQ": (16, pq), "HLG": (18, hlg)}


def stripes(curve):
    """The colours as signals of 16 bits [64, 96, 3]."""
    signals = np.clip(curve(from_srgb(COLOURS) @ TO_BT2020.T), 0, 1)
    return np.rint(signals * 65535).astype(np.uint16).repeat(16, 0)[None].repeat(64, 0)


def write_png(file, pixels, transfer, primaries=9):
    """A PNG written by hand: PIL writes neither 16-bit colours nor cICP."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = pixels.shape
    depth = 8 * pixels.itemsize
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, depth, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = (chunk(b"IHDR", header), chunk(b"cICP", bytes([primaries, transfer, 0, 1])))
    chunks += (chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def write_avif(file, pixels, transfer):
    size = f"{pixels.shape[1]}x{pixels.shape[0]}"
    trc = {16: "smpte2084", 18: "arib-std-b67"}[transfer]
    tags = f"color_primaries=bt2020:color_trc={trc}:colorspace=bt2020nc:range=tv"
    filters = f"scale=out_color_matrix=bt2020:out_range=tv,format=yuv420p10le,setparams={tags}"
    source = ("-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", size, "-i", "-")
    coded = ("-frames:v", "1", "-c:v", "libaom-av1", "-cpu-used", "8", "-crf", "4", "-still-picture", "1")
    said = ("-color_primaries", "bt2020", "-color_trc", trc, "-colorspace", "bt2020nc")
    words = (
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-y",
        "-loglevel",
        "error",
        *source,
        "-vf",
        filters,
        *coded,
        *said,
    )
    subprocess.run([*words, str(file)], check=True, input=pixels.tobytes())


def write_heic(file, pixels, transfer):
    pillow_heif = pytest.importorskip("pillow_heif")
    size, nclx = pixels.shape[1::-1], {"color_primaries": 9, "transfer_characteristics": transfer}
    picture = pillow_heif.from_bytes("RGB;16", size, pixels.tobytes())
    picture.save(file, quality=100, **nclx, matrix_coefficients=9, full_range_flag=1)


def read(file):
    found = read_image("--input_image", str(file), Fetcher(folder=file.parent))
    return np.asarray(found.load()), found.notes


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("write", [write_png, write_avif, write_heic])
def test_hdr_is_tone_mapped(tmp_path, name, write):
    transfer, curve = CURVES[name]
    file = tmp_path / f"a.{write.__name__.removeprefix('write_')}"
    write(file, stripes(curve), transfer)
    pixels, notes = read(file)
    assert notes == (f"{file.name} is HDR ({name}, BT.2020) and is tone-mapped to SDR",)
    assert pixels.shape == (64, 96, 3)
    assert np.abs(pixels[32, 8::16].astype(int) - COLOURS).max() <= 4


def test_hdr_in_8_bits_with_transparency(tmp_path):
    signals = np.rint(stripes(pq) / 257).astype(np.uint8)
    alpha = np.full((64, 96, 1), 255, np.uint8)
    alpha[:32] = 0
    write_png(tmp_path / "a.png", np.concatenate([signals, alpha], -1), 16)
    pixels, notes = read(tmp_path / "a.png")
    assert len(notes) == 2
    assert (pixels[:32] == 255).all()
    assert np.abs(pixels[48, 8::16].astype(int) - COLOURS).max() <= 16  # a level of PQ is several of sRGB


def test_a_picture_that_says_it_is_sdr_stays_as_it_is(tmp_path):
    colours = np.full((8, 8, 3), 100, np.uint8)
    write_png(tmp_path / "a.png", colours, 13, primaries=1)
    Image.fromarray(colours).save(tmp_path / "b.avif", quality=100, subsampling="4:4:4")
    for file in tmp_path.iterdir():
        pixels, notes = read(file)
        assert not notes
        assert np.abs(pixels.astype(int) - 100).max() <= 1
