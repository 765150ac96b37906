"""Still images: opening them safely, and each task's resize rule. What their pixels mean: picture.py."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from PIL import Image, UnidentifiedImageError

from videogen.media.download import Fetcher, display_name, sha256_of
from videogen.media.inputs import InputFile, Source
from videogen.media.picture import to_srgb
from videogen.media.picture_hdr import as_sdr, colours_of_picture

# Formats PIL decodes by itself; others (EPS, say) would start helper programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "MPO", "AVIF")
HEIF = "HEIF"  # through pillow-heif
# Brands in the first box of a HEIC or HEIF file (ISO 23008-12, annexes B to D), AVIF's not among them.
HEIF_BRANDS = (*(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
LARGEST = 500_000_000  # bytes
WHITE = (255, 255, 255)


@dataclass(frozen=True, kw_only=True, slots=True)
class InputImage(InputFile):
    """An image file that was opened and decoded once; ``width`` and ``height`` are upright (EXIF applied)."""

    width: int
    height: int

    def load(self) -> Image.Image:
        """Load the image upright, in sRGB, on white where it is transparent."""
        return _open(Source("input image", self.name, self.path))[0]


def _open(source: Source) -> tuple[Image.Image, list[str]]:
    """Decode an image, of an animation the first frame; return it with what there is to say about it."""
    with source.reported("the file is damaged; save it again"), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        Image.init()
        formats = [name for name in FORMATS if name in Image.OPEN]
        if _is_heif(source.path):
            _pillow_heif(source).register_heif_opener()
            formats = [HEIF]
        try:
            with Image.open(source.path, formats=formats) as image:
                count = getattr(image, "n_frames", 1)
                notes = [f"holds {count} pictures; the first is used"] if count > 1 else []
                colours = colours_of_picture(source.path)
                if colours is not None and (colours.is_hdr or not image.info.get("icc_profile")):
                    notes.append(colours.note)
                    shown, more = to_srgb(as_sdr(image, source.path, colours), turned=True)
                else:
                    shown, more = to_srgb(image, turned=True)
                return shown, notes + more
        except UnidentifiedImageError:
            known = ", ".join((*FORMATS, "HEIC"))
            what = "is not a whole HEIC image" if formats == [HEIF] else "is not an image"
            raise source.error(what, f"give one of {known}") from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
            raise source.error(f"more than {limit} megapixels", "scale it down") from None


def _is_heif(path: Path) -> bool:
    """Return whether a file says that it is HEIC or HEIF: its first box lists its brands."""
    with path.open("rb") as file:
        head = file.read(64)
    size = int.from_bytes(head[:4], "big")
    if head[4:8] != b"ftyp":
        return False
    brands = [head[start : start + 4] for start in (8, *range(16, min(size, 64), 4))]
    if any(brand in AVIF_BRANDS for brand in brands):
        return False
    return any(brand in HEIF_BRANDS for brand in brands)


def _pillow_heif(source: Source) -> ModuleType:
    try:
        import pillow_heif  # noqa: PLC0415 - only for HEIC files
    except ImportError:
        what, fix = "is a HEIC image, which needs the package pillow-heif", "pip install pillow-heif"
        raise source.error(what, f"{fix}, or save it as PNG or JPEG") from None
    return pillow_heif


def read_image(flag: str, source: str, fetcher: Fetcher) -> InputImage:
    """Fetch and fully decode one image.

    Raises:
        InputError: no such file, not an image, a truncated or an absurdly large one.
    """
    file = Source(flag, source, fetcher.local(flag, source))
    if file.path.stat().st_size > LARGEST:  # some decoders read the whole file first
        raise file.error(f"larger than {LARGEST / 1e6:.0f} MB", "scale it down")
    image, notes = _open(file)
    name = display_name(source)
    return InputImage(
        path=file.path,
        name=name,
        sha256=sha256_of(file.path),
        notes=tuple(f"{name} {note}" for note in notes),
        width=image.width,
        height=image.height,
    )


def fit_on_white(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale to fit inside width x height (Lanczos), centred on white (spec skyreels_v3 section 9)."""
    ratio = image.width / image.height
    if ratio > width / height:
        new_width, new_height = width, int(width / ratio)
    else:
        new_width, new_height = int(height * ratio), height
    scaled = image.resize((max(1, new_width), max(1, new_height)), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (width, height), WHITE)
    canvas.paste(scaled, ((width - scaled.width) // 2, (height - scaled.height) // 2))
    return canvas


def crop_to_ratio(image: Image.Image, width: int, height: int) -> Image.Image:
    """Cut the centre out in the ratio of width x height, not scaled (spec skyreels_v2 section 7)."""
    if image.size == (width, height):
        return image
    if image.height / image.width > height / width:
        new_width, new_height = image.width, int(image.width * height / width)
    else:
        new_width, new_height = int(image.height * width / height), image.height
    left, top = (image.width - new_width) / 2, (image.height - new_height) / 2
    return image.crop((left, top, left + new_width, top + new_height))  # PIL rounds


def cover(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale to cover width x height (Lanczos) and cut the centre out (spec wan22 section 4, 5B)."""
    scale = max(width / image.width, height / image.height)
    scaled = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    left, top = (scaled.width - width) // 2, (scaled.height - height) // 2
    return scaled.crop((left, top, left + width, top + height))


def crop_bilinear(image: Image.Image, width: int, height: int) -> Image.Image:
    """Bring the shorter side to that of width x height (bilinear) and cut the centre out.

    Where that would not cover it, which the sizes of the model never ask for, more. Spec hunyuan section 3.
    """
    short = min(width, height)
    if image.width <= image.height:
        size = (short, int(short * image.height / image.width))
    else:
        size = (int(short * image.width / image.height), short)
    if size[0] < width or size[1] < height:
        return cover_bilinear(image, width, height)
    return _centre(image.resize(size, Image.Resampling.BILINEAR), width, height)


def cover_bilinear(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale to cover width x height (bilinear) and cut the centre out (spec talking_avatar section 4)."""
    scale = max(height / image.height, width / image.width)
    size = (math.ceil(scale * image.width), math.ceil(scale * image.height))
    return _centre(image.resize(size, Image.Resampling.BILINEAR), width, height)


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    """Cut out the centre; halves of pixels are rounded to even numbers."""
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
