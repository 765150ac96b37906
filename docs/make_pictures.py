"""Make the pictures of README and manual: ``python -m docs.make_pictures [PAGE ...]``.

The inputs are drawn here. Everything else is made by the commands that the pages show: all that name a file
in docs/pictures, in the order of the pages.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from miniature import world

ROOT = Path(__file__).parent.parent
PICTURES = "docs/pictures"
PAGES = ("README.md", "docs/miniature.md", "docs/speed.md")
LARGEST, ALL = 300_000, 3_000_000  # bytes of a picture, and of all
HEIGHT, WIDTH = 64, 96
PORTRAIT = 920  # seed of the face and its voice
SPOKEN = 50  # frames of the voice


def commands(page: str) -> Iterator[list[str]]:
    """Yield the words of a page's commands that read or write a picture."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if PICTURES in line:
                yield shlex.split(line)


def draw_inputs(folder: Path) -> None:
    """Draw an image to start with, one to end with, a reference, and a portrait with a voice."""
    scene = world.draw_scene(np.random.default_rng(5))
    scene = replace(scene, shape="ball", colour="orange", motion="right", way=(0.05, 0.95))
    start, end = world.draw(scene, np.array([0, 12]), HEIGHT, WIDTH)
    purple = replace(scene, colour="purple")
    rng = np.random.default_rng(PORTRAIT)
    portrait, loudness = world.draw_portrait(rng), world.draw_loudness(rng, SPOKEN)
    drawn = {
        "start": start,
        "end": end,
        "reference": world.draw_reference(purple, HEIGHT, WIDTH),
        "portrait": world.speak(portrait, 0 * loudness[:1], height=WIDTH, width=HEIGHT)[0],
    }
    for name, picture in drawn.items():
        Image.fromarray((picture * 255).round().astype(np.uint8)).save(folder / f"{name}.png")
    soundfile.write(folder / "voice.wav", world.voice(rng, loudness), world.RATE)


def main() -> None:
    """Draw, run the commands, and check the sizes."""
    folder = ROOT / PICTURES
    folder.mkdir(exist_ok=True)
    draw_inputs(folder)
    for page in sys.argv[1:] or PAGES:
        for words in commands(page):
            more = ["--overwrite"] if "generate_video.py" in words else []
            subprocess.run([sys.executable, *words[1:], *more], cwd=ROOT, check=True)
    for record in folder.glob("*.json"):
        record.unlink()
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    too_large = [name for name, size in sizes.items() if size > LARGEST]
    if too_large or sum(sizes.values()) > ALL:
        sys.exit(f"too large: {', '.join(too_large) or 'all together'}")


if __name__ == "__main__":
    main()
