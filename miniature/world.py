"""The world of the miniature: clips of one coloured shape that moves over a landscape, with captions.

Everything is drawn by formulas, from a seed; no data comes from elsewhere. A clip shows one of four shapes in
one of eight colours. Skies and grounds have weak colours: by its strong one ``measure.py`` finds the shape.

Shapes: F frames, H/W height/width in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]
"""[..., H, W, 3] in [0, 1]."""

RATE, FPS = 16000, 25  # samples, and frames of a portrait, a second
SPAN = 48  # frames in which a moving shape crosses its way
SHAPES = ("ball", "square", "triangle", "ring")
HUES: Mapping[str, float] = {  # degrees; saturation 0.9, value 0.95
    "red": 0,
    "orange": 28,
    "yellow": 56,
    "green": 120,
    "cyan": 180,
    "blue": 225,
    "purple": 275,
    "pink": 322,
}
COLOURS = tuple(HUES)
SKIES: Mapping[
    str, tuple[tuple[int, int, int], tuple[int, int, int]]
] = {  # 8-bit colours at the top and the horizon
    "clear": ((140, 165, 190), (205, 215, 222)),
    "night": ((16, 18, 30), (52, 54, 72)),
    "sunset": ((112, 98, 124), (218, 182, 160)),
    "fog": ((165, 167, 168), (203, 203, 202)),
}
GROUNDS: Mapping[str, tuple[int, int, int]] = {
    "grass": (96, 118, 84),
    "sand": (192, 174, 138),
    "snow": (234, 238, 240),
    "asphalt": (74, 75, 80),
}
MOTIONS = ("left", "right", "up", "down", "grow", "bounce", "turn")
AXIS = {"left": 0, "right": 0, "up": 1, "down": 1}  # of the motions that cross the picture: x or y
CAMERAS = ("still", "left", "right")

SKY_WORDS: Mapping[str, tuple[str, ...]] = {
    "clear": ("under a clear sky", "by day"),
    "night": ("at night", "under a night sky"),
    "sunset": ("at sunset", "under an evening sky"),
    "fog": ("in fog", "under a grey sky"),
}
MOTION_WORDS: Mapping[str, tuple[str, ...]] = {
    "left": ("moves left", "moves to the left", "flies to the left"),
    "right": ("moves right", "moves to the right", "flies to the right"),
    "up": ("moves up", "rises", "flies up"),
    "down": ("moves down", "falls", "sinks down"),
    "grow": ("grows", "gets bigger", "comes closer"),
    "bounce": ("bounces", "jumps up and down", "is bouncing"),
    "turn": ("turns", "spins", "turns around"),
}
CAMERA_WORDS: Mapping[str, tuple[str, ...]] = {
    "still": ("the camera stands still",),
    "left": ("the camera pans left",),
    "right": ("the camera pans right",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """All that a clip shows; lengths and speeds are parts of the shorter side of the picture.

    Args:
        way: (start, end) of the shape's centre along its motion, each 0..1 of the way that is free, for left,
            right, up and down in ``SPAN`` frames; other motions have a start only.
        across: place of the centre on the other axis, 0..1 of what is free.
        radius: of the shape.
        rate: turns, bounces, or pans of the camera in ``SPAN`` frames.
        phases: of the hills and of the ground's pattern, radians [6].
        horizon: height of the horizon, 0 (top) to 1.
    """

    shape: str
    colour: str
    sky: str
    ground: str
    motion: str
    camera: str
    way: tuple[float, float]
    across: float
    radius: float
    rate: float
    pan: float
    angle: float
    phases: tuple[float, ...]
    horizon: float


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene at random."""
    motion = str(rng.choice(MOTIONS))
    length = rng.uniform(0.75, 1.0) if motion in AXIS else 0.0
    start = rng.uniform(0, 1 - length)
    return Scene(
        shape=str(rng.choice(SHAPES)),
        colour=str(rng.choice(COLOURS)),
        sky=str(rng.choice(tuple(SKIES))),
        ground=str(rng.choice(tuple(GROUNDS))),
        motion=motion,
        camera=str(rng.choice(CAMERAS, p=(0.5, 0.25, 0.25))),
        way=(start, start + length),
        across=rng.uniform(0, 1),
        radius=rng.uniform(0.12, 0.16) if motion == "grow" else rng.uniform(0.15, 0.22),
        rate=rng.uniform(1.0, 1.5) if motion == "turn" else rng.uniform(2.0, 3.0),
        pan=rng.uniform(0.4, 0.8),
        angle=rng.uniform(0, 2 * np.pi),
        phases=tuple(rng.uniform(0, 2 * np.pi, 6)),
        horizon=rng.uniform(0.58, 0.72),
    )


def another_shot(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return a scene with the same shape in the same colour, all else drawn anew."""
    return replace(draw_scene(rng), shape=scene.shape, colour=scene.colour)


def describe(scene: Scene, rng: np.random.Generator | None = None, *, subject: str | None = None) -> str:
    """Return a caption: the whole one, or with ``rng`` one of its variants, which may leave things out.

    ``subject`` stands for the coloured shape, as in captions of pictures that are references.
    """

    def choose(words: tuple[str, ...]) -> str:
        return words[0] if rng is None else str(rng.choice(words))

    def said(chance: float) -> bool:
        return rng is None or rng.uniform() < chance

    article = "an" if scene.colour[0] in "aeiou" else "a"
    text = f"{subject or f'{article} {scene.colour} {scene.shape}'} {choose(MOTION_WORDS[scene.motion])}"
    if said(0.75):
        text += f" over {scene.ground}"
    if said(0.75):
        text += f" {choose(SKY_WORDS[scene.sky])}"
    if said(0.3 if scene.camera == "still" else 0.9):
        text += f", {choose(CAMERA_WORDS[scene.camera])}"
    return text


def draw(scene: Scene, frames: NDArray[np.int_] | range, height: int, width: int) -> Picture:
    """Draw frames [F, H, W, 3] of a scene, by their numbers."""
    t = np.asarray(frames, dtype=np.float32)[:, None, None]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    unit = min(height, width)
    picture = _landscape(scene, t, x / unit, y / unit, height / unit)
    centre_x, centre_y, radius = _place(scene, t, height, width)
    angle = scene.angle + (2 * np.pi * scene.rate * t / SPAN if scene.motion == "turn" else 0)
    return _paint(picture, scene, (x - centre_x) / radius, (y - centre_y) / radius, angle, radius)


def draw_reference(scene: Scene, height: int, width: int) -> Picture:
    """Draw the shape alone, large, on white [H, W, 3]."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    radius = np.float32(min(height, width) * (0.25 + scene.radius / 2))
    white = np.ones((1, height, width, 3), np.float32)
    place = ((x - width / 2) / radius)[None], ((y - height / 2) / radius)[None]
    return _paint(white, scene, *place, np.float32(scene.angle), radius)[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Portrait:
    """A speaking face; colours are RGB in [0, 1], places and sizes parts of the shorter side."""

    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    shirt: tuple[float, float, float]
    wall: tuple[float, float, float]
    place: tuple[float, float]
    size: float
    sway: float


SKINS = ((0.96, 0.82, 0.70), (0.87, 0.68, 0.52), (0.65, 0.45, 0.32), (0.42, 0.28, 0.20))
HAIRS = ((0.10, 0.08, 0.08), (0.35, 0.22, 0.12), (0.75, 0.60, 0.32), (0.55, 0.55, 0.56))


def draw_portrait(rng: np.random.Generator) -> Portrait:
    """Draw a portrait at random."""
    wall = 0.45 + 0.4 * rng.uniform() + 0.06 * rng.normal(size=3)
    return Portrait(
        skin=SKINS[rng.integers(len(SKINS))],
        hair=HAIRS[rng.integers(len(HAIRS))],
        shirt=_triple(rgb(str(rng.choice(COLOURS)), 0.7, 0.6)),
        wall=_triple(np.clip(wall, 0, 1)),
        place=(rng.uniform(-0.08, 0.08), rng.uniform(-0.05, 0.05)),
        size=rng.uniform(0.24, 0.30),
        sway=rng.uniform(0, 2 * np.pi),
    )


def speak(portrait: Portrait, loudness: NDArray[np.float32], height: int, width: int) -> Picture:
    """Draw frames [F, H, W, 3] of a face whose mouth opens with the loudness [F], 0..1."""
    t = np.arange(len(loudness), dtype=np.float32)[:, None, None]
    loud = np.clip(loudness, 0, 1)[:, None, None]
    unit = min(height, width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    x = (x - width / 2) / unit - portrait.place[0] - 0.012 * np.sin(t * 0.13 + portrait.sway)
    y = (y - height / 2) / unit - portrait.place[1] + 0 * t
    size, soft = np.float32(portrait.size), unit
    picture = np.broadcast_to(np.float32(portrait.wall), (*x.shape, 3))

    def ellipse(cx: float, cy: float, rx: float, ry: Picture | float) -> Picture:
        rx, ry = rx * size, ry * size
        dx, dy = np.abs(x - cx * size), np.abs(y - cy * size)
        inside = (1 - np.hypot(dx / rx, dy / ry)) * np.minimum(rx, ry)
        box = np.minimum(rx - dx, ry - dy)  # without it a flat ellipse has long soft ends
        return _soft(np.minimum(inside, box) * soft)

    parts: tuple[tuple[Sequence[float], Picture], ...] = (
        (portrait.shirt, ellipse(0, 2.2, 1.7, 1.1)),
        (portrait.hair, ellipse(0, -0.18, 0.98, 1.18)),
        (portrait.skin, ellipse(0, 0.05, 0.80, 1.05)),
        ((0.98, 0.98, 0.98), ellipse(-0.32, -0.12, 0.17, 0.11)),
        ((0.98, 0.98, 0.98), ellipse(0.32, -0.12, 0.17, 0.11)),
        ((0.10, 0.10, 0.15), ellipse(-0.32, -0.12, 0.08, 0.09)),
        ((0.10, 0.10, 0.15), ellipse(0.32, -0.12, 0.08, 0.09)),
        ((0.62, 0.20, 0.20), ellipse(0, 0.58, 0.34, 0.07 + 0.30 * loud)),
        ((0.22, 0.05, 0.06), ellipse(0, 0.58, 0.25, 0.01 + 0.24 * loud)),
    )
    for colour, cover in parts:
        picture = _over(picture, np.float32(colour), cover)
    return picture


def draw_loudness(rng: np.random.Generator, frames: int) -> NDArray[np.float32]:
    """Draw how loud a voice is in every frame [F], 0..1: syllables with pauses between words."""
    t = np.arange(frames) / FPS
    syllables = np.abs(np.sin(np.pi * (rng.uniform(2.0, 3.5) * t + rng.uniform())))
    words = np.sin(2 * np.pi * (rng.uniform(0.4, 0.9) * t + rng.uniform())) > rng.uniform(-0.7, 0)
    return np.float32(syllables * words * rng.uniform(0.6, 1.0))


def voice(rng: np.random.Generator, loudness: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a voice of buzz and breath, 16 kHz [n], as loud as ``loudness`` says 25 times a second [F]."""
    count = len(loudness) * RATE // FPS
    t = np.arange(count) / RATE
    pitch = rng.uniform(90, 240) * (1 + 0.08 * np.sin(2 * np.pi * (rng.uniform(0.5, 2) * t + rng.uniform())))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tone = np.zeros(count)
    formants = rng.uniform((300, 900, 2200), (800, 2000, 3200))
    for harmonic in range(1, 13):
        reach = (harmonic * pitch - formants[:, None]) / (0.25 * formants[:, None])
        strength = (0.1 + np.exp(-(reach**2)).sum(axis=0)) / harmonic**0.5
        tone += np.sin(harmonic * phase + rng.uniform(0, 6)) * strength
    breath = rng.normal(size=count) * rng.uniform(0.05, 0.3)
    frame = np.linspace(0, len(loudness) - 1, count)
    envelope = np.interp(frame, np.arange(len(loudness)), loudness)
    floor = rng.normal(size=count) * rng.uniform(0, 0.003)
    return np.float32(0.2 * envelope * (tone + breath) + floor)


def _triple(colour: Picture) -> tuple[float, float, float]:
    red, green, blue = map(float, colour)
    return red, green, blue


def rgb(colour: str, value: float = 0.95, saturation: float = 0.9) -> Picture:
    """Return the colour [3] of a name."""
    sector = (np.array([5, 3, 1]) + HUES[colour] / 60) % 6
    return np.float32(value - value * saturation * np.clip(np.minimum(sector, 4 - sector), 0, 1))


def _landscape(scene: Scene, t: Picture, x: Picture, y: Picture, height: float) -> Picture:
    """Draw sky, hills and ground [F, H, W, 3]; a pan moves what is near more than what is far."""
    pan = {"still": 0, "left": -1, "right": 1}[scene.camera] * scene.pan * t / SPAN
    p = scene.phases
    top, low = (np.float32(colour) / 255 for colour in SKIES[scene.sky])
    ground = np.float32(GROUNDS[scene.ground]) / 255 * (0.55 if scene.sky == "night" else 1)
    horizon = scene.horizon * height
    depth = np.clip(y / horizon, 0, 1)[..., None]
    picture = np.broadcast_to(top + (low - top) * depth, (len(t), *y.shape, 3))
    far = x + 0.6 * pan
    ridge = horizon - 0.07 - 0.05 * np.sin(4.2 * far + p[0]) - 0.03 * np.sin(9.1 * far + p[1])
    picture = _over(picture, low * 0.5 + ground * 0.25, _soft((y - ridge) * 40))
    near = x + pan
    pattern = np.sin(11 * near + 5 * y + p[2]) * np.sin(17 * y - 4 * near + p[3])
    land = ground * (1 + 0.10 * pattern[..., None])
    return _over(picture, land, _soft((y - horizon) * 60 + 0 * near))


def _place(scene: Scene, t: Picture, height: int, width: int) -> tuple[Picture, Picture, Picture]:
    """Return the shape's centre and radius in pixels, each [F, 1, 1]."""
    unit, part = min(height, width), t / SPAN
    radius = np.broadcast_to(np.float32(scene.radius * unit), t.shape)
    largest = np.float32(scene.radius * unit)
    if scene.motion == "grow":
        radius = radius * (1 + 1.2 * np.minimum(part, 1.25))
        largest = largest * 2.2
    margin = largest + 1
    free_x, free_y = max(width - 2 * margin, 0), max(height - 2 * margin, 0)
    way = scene.way[0] + (scene.way[1] - scene.way[0]) * np.minimum(part, 1)  # it stops at the end
    along_x = margin + free_x * (1 - way if scene.motion == "left" else way)
    along_y = margin + free_y * (1 - way if scene.motion == "up" else way)
    fixed_x, fixed_y = margin + free_x * scene.across + 0 * t, margin + free_y * scene.across + 0 * t
    if (axis := AXIS.get(scene.motion)) is not None:
        return (along_x, fixed_y, radius) if axis == 0 else (fixed_x, along_y, radius)
    if scene.motion == "bounce":
        lift = np.abs(np.sin(np.pi * (scene.rate * part + scene.way[0])))
        return fixed_x, height - margin - 0.06 * unit - (free_y - 0.06 * unit) * 0.8 * lift, radius
    return fixed_x, margin + free_y * scene.way[0] + 0 * t, radius


def _paint(
    picture: Picture, scene: Scene, x: Picture, y: Picture, angle: Picture, radius: Picture
) -> Picture:
    """Paint the shape at places in units of its radius, with a light spot that turns with it."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = x * cos + y * sin, y * cos - x * sin
    distance = np.hypot(x, y)
    edge = {
        "ball": lambda: distance - 1,
        "square": lambda: np.maximum(np.abs(x), np.abs(y)) - 0.85,
        "triangle": lambda: np.maximum(np.abs(x) * 0.866 + y * 0.5, -y) - 0.55,
        "ring": lambda: np.abs(distance - 0.72) - 0.28,
    }[scene.shape]()
    colour = rgb(scene.colour)
    picture = _over(picture, colour * (0.85 - 0.15 * y[..., None].clip(-1, 1)), _soft(-edge * radius))
    place, size = {"ring": (0.72, 0.2)}.get(scene.shape, (0.4, 0.24))
    spot = np.hypot(x, y + place) - size if scene.shape != "triangle" else np.hypot(x, y - 0.05) - 0.22
    return _over(picture, 0.35 * colour + 0.65, _soft(-spot * radius))


def _soft(inside: Picture) -> Picture:
    """Return how much of a pixel is covered, from its distance to the edge in pixels."""
    return np.clip(inside + 0.5, 0, 1)[..., None]


def _over(picture: Picture, colour: Picture, cover: Picture) -> Picture:
    return np.clip(picture + (colour - picture) * cover, 0, 1, dtype=np.float32)
