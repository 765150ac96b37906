"""Pictures of every kind of pixel: depth, transparency, colour profiles, HEIC."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from videogen.errors import InputError, brief
from videogen.media.download import Fetcher
from videogen.media.image import read_image

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (20, 30, 3), np.uint8)
GREY = COLOURS[..., 0].copy()
GREY[0, 0] = 255  # so that white is there, and the scale of floats is no guess
ALPHA = RNG.integers(0, 256, (20, 30), np.uint8)
ON_WHITE = "has transparent pixels, which are shown on white"


@pytest.fixture
def read(tmp_path):
    """Save a picture, and return its pixels as they are used, with what is said about it."""

    def run(image, name="picture.png", **options):
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(tmp_path / name, **options)
        found = read_image("--input_image", str(tmp_path / name), Fetcher(folder=tmp_path))
        pixels = np.asarray(found.load())
        assert pixels.shape == (found.height, found.width, 3)
        assert all(note.startswith(f"{name} ") for note in found.notes)
        return pixels, [note.removeprefix(f"{name} ") for note in found.notes]

    return run


def on_white(colour, alpha):
    alpha = alpha[..., None] / 255
    return colour * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_greys_of_16_bits(read, name):
    for dark in (1, 200):  # also of a picture whose values would fit into 8 bits
        values = (GREY.astype(np.uint32) * 257 // dark).astype(np.uint16)
        pixels, notes = read(values, name)
        assert np.array_equal(pixels, np.rint(values / 257).astype(np.uint8)[..., None].repeat(3, 2))
        assert not notes


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (GREY.astype(np.int32), "255"),
        (GREY.astype(np.int32) * 257, "65535"),
        ((GREY.astype(np.int64) * (2**31 - 1) // 255).astype(np.int32), "2.14748e+09"),
        ((GREY.astype(np.int64) * 16843009).astype(np.uint32).view(np.int32), "4.29497e+09"),
        (GREY.astype(np.float32) / 255, "1"),
        (GREY.astype(np.float32), "255"),
        (GREY.astype(np.float32) * 257, "65535"),
        (GREY.astype(np.float32) * 1000, "255000"),
    ],
)
def test_greys_whose_scale_is_told_by_their_values(read, values, white):
    pixels, (note,) = read(values, "a.tiff")
    assert np.array_equal(pixels, GREY[..., None].repeat(3, 2))
    assert note.endswith(f"; {white} is taken as white")


def test_greys_that_are_no_numbers(read):
    with pytest.raises(InputError, match="it holds values that are not finite numbers"):
        read(np.where(GREY > 9, GREY, np.nan).astype(np.float32), "a.tiff")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_on_white(read, mode):
    image = Image.fromarray(np.dstack([COLOURS, ALPHA])).convert(mode)
    pixels, notes = read(image)
    colour = np.asarray(image.convert("RGBA"))[..., :3]
    assert np.abs(pixels - on_white(colour, ALPHA)).max() <= 0.5
    assert notes == [ON_WHITE]
    image.putalpha(255)
    pixels, notes = read(image)
    assert np.array_equal(pixels, colour)
    assert not notes


@pytest.mark.parametrize(
    ("image", "key"),
    [
        (Image.fromarray(COLOURS).quantize(8), 3),
        (Image.fromarray(COLOURS).quantize(8), bytes([255, 128, 0, 255, 255, 255, 255, 255])),
        (Image.fromarray(GREY), 255),
        (Image.fromarray(COLOURS), tuple(int(value) for value in COLOURS[3, 4])),
        (Image.fromarray(GREY.astype(np.uint16) * 257), 65535),
    ],
)
def test_transparency_by_colour_or_palette(read, image, key):
    pixels, notes = read(image, transparency=key)
    assert notes == [ON_WHITE]
    values = np.asarray(image)
    if isinstance(key, bytes):
        alpha = np.frombuffer(key, np.uint8)[values]
    else:
        same = values == key
        alpha = np.where(same.all(2) if same.ndim == 3 else same, 0, 255)
    shown = Image.fromarray(GREY) if image.mode.startswith("I") else image
    assert np.abs(pixels - on_white(np.asarray(shown.convert("RGB")), alpha)).max() <= 0.5


def png_of_16_bits(values, kind):
    """A PNG written by hand: PIL has no 16-bit colours to write."""
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_colours_of_16_bits(tmp_path, kind, channels):
    values = RNG.integers(0, 65536, (20, 30, channels)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(png_of_16_bits(values, kind))
    found = read_image("--input_image", str(tmp_path / "a.png"), Fetcher(folder=tmp_path))
    colour = values[..., :3] if channels > 2 else values[..., :1].repeat(3, 2)
    expected = colour / 257 if channels == 3 else on_white(colour / 257, values[..., -1] / 257)
    assert np.abs(np.asarray(found.load()) - expected).max() < 2.5  # PIL keeps the high bytes
    assert len(found.notes) == (channels != 3)


def profile_of(red, gamma=2.2):
    """A matrix profile: the primaries of sRGB with another red, and a power for the curve."""
    white, green, blue = (0.9642, 1.0, 0.8249), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139)
    blue = tuple(w - r - g for w, r, g in zip(white, red, green, strict=True))

    def number(value):
        return struct.pack(">i", round(value * 65536))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {
        **{
            name: b"XYZ " + bytes(4) + b"".join(map(number, value))
            for name, value in ((b"rXYZ", red), (b"gXYZ", green), (b"bXYZ", blue), (b"wtpt", white))
        },
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(79),
        b"cprt": b"text" + bytes(4) + b"none\0\0\0\0",
    }
    place, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        content = value + bytes(-len(value) % 4)
        table += name + struct.pack(">II", place + len(data), len(content))
        data += content
    size = place + len(data)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12)
    head += b"acsp" + bytes(28) + b"".join(map(number, white))
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + data


def test_a_colour_profile_is_converted(read):
    profile = profile_of((0.60, 0.30, 0.02))
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    srgb = ImageCms.createProfile("sRGB")
    wanted = ImageCms.profileToProfile(Image.fromarray(COLOURS), source, srgb, outputMode="RGB")
    for name, options in (("a.png", {}), ("a.tiff", {}), ("a.webp", {"lossless": True})):
        pixels, notes = read(COLOURS, name, icc_profile=profile, **options)
        assert np.array_equal(pixels, wanted)
        assert np.abs(pixels.astype(int) - COLOURS).max() > 20
        assert not notes
    pixels, notes = read(np.dstack([COLOURS, ALPHA]), icc_profile=profile)
    assert np.abs(pixels - on_white(np.asarray(wanted), ALPHA)).max() <= 0.5
    assert notes == [ON_WHITE]
    pixels, _ = read(GREY, icc_profile=profile)  # a grey picture with a profile of colours
    assert np.ptp(pixels.astype(int), axis=2).max() < 30
    assert np.abs(pixels[..., 1].astype(int) - GREY).max() > 2


def test_an_srgb_profile_changes_nothing(read):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels, notes = read(COLOURS, icc_profile=profile)
    assert np.array_equal(pixels, COLOURS)
    assert not notes


def test_a_profile_that_is_none_is_said(read):
    pixels, notes = read(COLOURS, icc_profile=b"no profile" * 20)
    assert np.array_equal(pixels, COLOURS)
    assert notes == ["has a colour profile that cannot be used; its colours are taken as they are"]


def test_other_colour_spaces(read):
    smooth = Image.fromarray(COLOURS).resize((120, 80), Image.Resampling.BICUBIC)
    cmyk = smooth.convert("CMYK")
    pixels, notes = read(cmyk, "a.jpg", quality=100, subsampling=0)
    assert np.abs(pixels.astype(int) - np.asarray(smooth)).mean() < 2
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    pixels, more = read(ImageCms.profileToProfile(smooth, srgb, lab, outputMode="LAB"), "a.tiff")
    assert np.abs(pixels.astype(int) - np.asarray(smooth)).mean() < 3
    pixels, most = read(Image.fromarray(GREY > 127), "b.png")
    assert np.array_equal(pixels[..., 2], np.where(GREY > 127, 255, 0))
    assert not [*notes, *more, *most]


def test_of_several_pictures_the_first_is_used_and_that_is_said(read):
    frames = [Image.fromarray(COLOURS), Image.fromarray(COLOURS[::-1])]
    for name in ("a.gif", "a.png", "a.webp", "a.tiff"):
        options = {"lossless": True} if name == "a.webp" else {}
        pixels, notes = read(frames[0], name, save_all=True, append_images=frames[1:], **options)
        assert notes == ["holds 2 pictures; the first is used"]
        if name != "a.gif":
            assert np.array_equal(pixels, COLOURS)


@pytest.fixture
def heic(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    image = Image.fromarray(COLOURS[:4, :6]).resize((96, 64), Image.Resampling.BICUBIC)
    image.save(tmp_path / "photo.heic", quality=95)
    return tmp_path / "photo.heic", image


def test_heic(heic, tmp_path):
    path, image = heic
    for name in ("photo.heic", "photo.jpg"):  # the content tells
        path = path.rename(tmp_path / name)
        found = read_image("--input_image", str(path), Fetcher(folder=tmp_path))
        assert (found.width, found.height) == image.size == (96, 64)
        assert np.abs(np.asarray(found.load()).astype(int) - np.asarray(image)).mean() < 3
        assert not found.notes


def test_heic_that_is_none(heic, tmp_path):
    path, _ = heic
    content = path.read_bytes()
    for broken in (b"no picture", content[:300], content[:-300], content[:40] + b"x" * 900, b""):
        path.write_bytes(broken)
        with pytest.raises(InputError) as caught:
            read_image("--input_image", str(path), Fetcher(folder=tmp_path))
        assert str(caught.value).startswith(f"--input_image {brief(path)}")
        assert "\n" not in str(caught.value)


def test_heic_without_its_package(heic, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match="needs the package pillow-heif; pip install pillow-heif"):
        read_image("--input_image", str(heic[0]), Fetcher(folder=tmp_path))
