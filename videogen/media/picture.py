"""From what a picture's pixels mean to 8-bit sRGB: depth, colour profile, transparency."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageCms, ImageOps

WHITE = (255, 255, 255)
SAMPLE_FORMAT, SIGNED = 339, 2  # the TIFF tag, and its value for signed integers
GRID = 17  # levels of each channel at which a colour profile is tried
SAME = 1  # level; a profile that changes colours no more than rounding does is sRGB


def to_srgb(image: Image.Image, *, turned: bool = False) -> tuple[Image.Image, list[str]]:
    """Return a picture in 8-bit sRGB, on white where it is transparent, and what there is to say about it.

    Args:
        turned: turn it upright, as its EXIF data say.

    Raises:
        ValueError: it holds values that are not finite numbers.
    """
    whites, notes = _whites(image), []
    image = ImageOps.exif_transpose(image) if turned else image
    alpha = _alpha(image)
    if whites:
        profile = image.info.get("icc_profile")
        image, note = _grey(image, whites)
        image.info["icc_profile"] = profile
        notes += [note] if note else []
    image, note = _with_profile(image)
    notes += [note] if note else []
    if alpha is None or alpha.getextrema()[0] == 255:
        return image, notes
    shown = Image.composite(image, Image.new("RGB", image.size, WHITE), alpha)
    return shown, [*notes, "has transparent pixels, which are shown on white"]


def _alpha(image: Image.Image) -> Image.Image | None:
    """Return the opacity of every pixel, as 8 bits; None if the picture cannot be transparent."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return image.getchannel(len(image.getbands()) - 1)
    key = image.info.get("transparency")
    if key is None:
        return None
    if image.mode.startswith("I") and isinstance(key, int):
        return Image.fromarray(np.where(np.asarray(image) == key, 0, 255).astype(np.uint8))
    return image.convert("RGBA").getchannel("A")


def _whites(image: Image.Image) -> tuple[float, ...]:
    """Return what white may be in a grey picture of more than 8 bits; nothing for another picture.

    The scale of 32-bit and float greys is nowhere in the file: it is the smallest that holds the values.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return (65535.0,)
    if image.mode == "I":
        stated = getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, 1)
        signed = (stated[0] if isinstance(stated, tuple) else stated) == SIGNED
        return (255.0, 65535.0, 2.0**31 - 1 if signed else 2.0**32 - 1)
    return (1.0, 255.0, 65535.0) if image.mode == "F" else ()


def _grey(image: Image.Image, whites: Sequence[float]) -> tuple[Image.Image, str]:
    """Return greys as 8 bits, and how they were taken where there is a choice."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite numbers")
    if image.mode == "I" and values.min() < 0:  # PIL reads unsigned values as signed
        values %= 2.0**32
    most = float(values.max())
    white = next((white for white in whites if most <= white), 2.0**32 - 1 if image.mode == "I" else most)
    levels = Image.fromarray(np.clip(np.rint(values * 255 / white), 0, 255).astype(np.uint8))
    if len(whites) == 1:
        return levels, ""
    kind = "floating-point" if image.mode == "F" else "32-bit"
    return levels, f"holds {kind} greys up to {most:g}; {white:g} is taken as white"


def _with_profile(image: Image.Image) -> tuple[Image.Image, str]:
    """Return a picture in RGB, converted by its colour profile to sRGB, and what there is to say."""
    content, mode = image.info.get("icc_profile"), image.mode
    if mode not in ("CMYK", "LAB"):
        image = image.convert("RGBA") if mode in ("RGBa", "PA", "P") else image
        image = image.convert("L" if mode in ("1", "L", "LA", "La") else "RGB")
    try:
        if content:
            return _converted(image, ImageCms.ImageCmsProfile(io.BytesIO(content))), ""
        note = ""
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        note = "has a colour profile that cannot be used; its colours are taken as they are"
    if mode == "LAB":
        return _converted(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))), note
    return image.convert("RGB"), note


def _converted(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    """Return a picture in sRGB; to the bit as it is if its profile is sRGB."""
    space = profile.profile.xcolor_space.strip()
    if space in ("RGB", "GRAY") and image.mode in ("RGB", "L"):
        image = image.convert("RGB" if space == "RGB" else "L")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    change = ImageCms.buildTransform(profile, srgb, image.mode, "RGB")
    if image.mode in ("RGB", "L"):
        tried = _colours(image.mode)
        differences = np.asarray(change.apply(tried)).astype(int) - np.asarray(tried.convert("RGB"))
        if np.abs(differences).max() <= SAME:
            return image.convert("RGB")
    return change.apply(image)


def _colours(mode: str) -> Image.Image:
    """Return a picture of colours from all over a space."""
    steps = np.linspace(0, 255, GRID).round().astype(np.uint8)
    if mode == "L":
        return Image.fromarray(steps[None])
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(GRID * GRID, GRID, 3)
    return Image.fromarray(np.ascontiguousarray(colours))
