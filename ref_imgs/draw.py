"""Draws the sample reference images of this folder; they belong to this project and are free of any licence.

Run ``python ref_imgs/draw.py`` to make them again.
"""

from pathlib import Path

from PIL import Image, ImageDraw

SCALE = 4  # drawn large, then scaled down, for smooth edges
HERE = Path(__file__).parent


def canvas(width: int, height: int, top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Image.Image:
    """A vertical gradient."""
    column = Image.new("RGB", (1, 256))
    for y in range(256):
        column.putpixel((0, y), tuple(round(a + (b - a) * y / 255) for a, b in zip(top, bottom, strict=True)))
    return column.resize((width * SCALE, height * SCALE), Image.Resampling.BICUBIC)


def save(image: Image.Image, name: str) -> None:
    size = (image.width // SCALE, image.height // SCALE)
    image.resize(size, Image.Resampling.LANCZOS).save(HERE / name, optimize=True)


def robot() -> None:
    """A friendly robot, facing us."""
    image = canvas(320, 180, (214, 232, 244), (160, 190, 210))
    draw = ImageDraw.Draw(image)
    body, dark, light = (232, 140, 60), (60, 66, 80), (250, 250, 240)

    def box(x0: int, y0: int, x1: int, y1: int, fill: tuple[int, int, int], radius: int = 8) -> None:
        draw.rounded_rectangle([v * SCALE for v in (x0, y0, x1, y1)], radius * SCALE, fill=fill)

    def disc(x: int, y: int, r: int, fill: tuple[int, int, int]) -> None:
        draw.ellipse([(x - r) * SCALE, (y - r) * SCALE, (x + r) * SCALE, (y + r) * SCALE], fill=fill)

    box(0, 158, 320, 190, (120, 150, 120), 0)
    box(157, 14, 163, 34, dark, 2)
    disc(160, 14, 6, (220, 60, 60))
    box(122, 32, 198, 84, body)
    disc(143, 56, 11, light)
    disc(177, 56, 11, light)
    disc(145, 57, 5, dark)
    disc(179, 57, 5, dark)
    box(144, 72, 176, 77, dark, 2)
    box(114, 90, 206, 148, body)
    box(136, 102, 184, 130, light, 5)
    for i, level in enumerate((18, 10, 22, 14)):
        box(142 + i * 10, 126 - level, 148 + i * 10, 126, (70, 150, 190), 1)
    box(94, 92, 110, 136, dark, 6)
    box(210, 60, 226, 104, dark, 6)
    disc(218, 54, 10, body)
    disc(102, 142, 10, body)
    box(128, 150, 148, 170, dark, 4)
    box(172, 150, 192, 170, dark, 4)
    save(image, "robot.png")


def balloon() -> None:
    """A hot-air balloon, taller than wide."""
    image = canvas(180, 240, (120, 180, 236), (236, 240, 250))
    draw = ImageDraw.Draw(image)
    colours = ((214, 60, 70), (250, 210, 90), (60, 120, 190))
    x, y, r = 90 * SCALE, 88 * SCALE, 66 * SCALE
    for i in range(7):
        half = r * (7 - i) // 7
        draw.ellipse([x - half, y - r, x + half, y + r], fill=colours[i % 3])
    draw.polygon(
        [
            x - r // 3,
            y + r * 94 // 100,
            x + r // 3,
            y + r * 94 // 100,
            x + r // 6,
            y + r * 3 // 2,
            x - r // 6,
            y + r * 3 // 2,
        ],
        fill=(240, 236, 226),
    )
    draw.rounded_rectangle(
        [x - 14 * SCALE, 188 * SCALE, x + 14 * SCALE, 210 * SCALE], 4 * SCALE, fill=(140, 96, 56)
    )
    for cx, cy, w in ((34, 214, 46), (150, 60, 40), (140, 226, 60)):
        draw.ellipse(
            [(cx - w // 2) * SCALE, (cy - 8) * SCALE, (cx + w // 2) * SCALE, (cy + 8) * SCALE],
            fill=(255, 255, 255),
        )
    save(image, "balloon.png")


def hills() -> None:
    """A landscape to be in."""
    image = canvas(320, 200, (252, 214, 160), (250, 240, 220))
    draw = ImageDraw.Draw(image)
    draw.ellipse([220 * SCALE, 30 * SCALE, 270 * SCALE, 80 * SCALE], fill=(255, 244, 200))
    for centre, width, top, colour in (
        (60, 340, 96, (150, 170, 150)),
        (260, 360, 112, (120, 154, 120)),
        (130, 420, 142, (92, 134, 92)),
    ):
        draw.ellipse(
            [(centre - width // 2) * SCALE, top * SCALE, (centre + width // 2) * SCALE, (top + 260) * SCALE],
            fill=colour,
        )
    for tree in (40, 66, 250, 286):
        draw.polygon(
            [(tree - 9) * SCALE, 150 * SCALE, (tree + 9) * SCALE, 150 * SCALE, tree * SCALE, 116 * SCALE],
            fill=(54, 92, 64),
        )
    save(image, "hills.png")


if __name__ == "__main__":
    robot()
    balloon()
    hills()
