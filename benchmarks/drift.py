"""Colour drift over the rolls of an extension: as published, latents handed over, colours matched.

    python -m benchmarks.drift [--model PATH] [--video FILE] [--device cuda]

Prints, for every roll, the distance of the mean colour (RGB, levels of 255) of its frames from that of the
source's last frame, and the jump at the seam before it: the mean absolute difference between its first frame
and the last one before. With random weights the figures say how the remedies work, not how a model looks.
"""

import argparse
from typing import Any

import numpy as np
import torch
from PIL import Image

import videogen

VARIANTS = {
    "as published": {},
    "--handover latents": {"handover": "latents"},
    "--color_match": {"color_match": True},
    "both": {"handover": "latents", "color_match": True},
}


def drawn() -> list[Image.Image]:
    """A square that moves over a gradient."""
    frames = []
    for index in range(30):
        picture = np.zeros((96, 160, 3), np.uint8)
        picture[..., 0] = np.linspace(40, 200, 160, dtype=np.uint8)
        picture[..., 1] = np.linspace(60, 180, 96, dtype=np.uint8)[:, None]
        picture[30:60, index * 3 : index * 3 + 30] = 220
        frames.append(Image.fromarray(picture))
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--video", help="default: drawn here")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=int, default=30)
    given = parser.parse_args()
    dtype = torch.float32 if given.device == "cpu" else torch.bfloat16
    pipeline = videogen.load("single_shot_extension", given.model, dtype=dtype, device=given.device)
    pipeline.set_progress_bar_config(disable=True)
    video = given.video or drawn()
    rows = {name: measure(pipeline, video, given.seconds, options) for name, options in VARIANTS.items()}
    rolls = len(next(iter(rows.values())))
    print(f"{'colour distance / seam, roll':<28}" + "".join(f"{roll:>14}" for roll in range(1, rolls + 1)))
    for name, row in rows.items():
        print(f"{name:<28}" + "".join(f"{drift:>7.1f}/{seam:<6.1f}" for drift, seam in row))


def measure(pipeline: Any, video: object, seconds: int, options: dict) -> list[tuple[float, float]]:
    """(distance of the mean colour, jump at the seam) of every roll."""
    arguments = pipeline.complete(
        {"prompt": "a square moves", "input_video": video, "duration": seconds, **options}
    )
    last = np.asarray(arguments["input_video"].tail(1)[0], dtype=float)
    last = np.asarray(
        Image.fromarray(last.astype(np.uint8)).resize((arguments["width"], arguments["height"])), dtype=float
    )
    home, rows = last.mean((0, 1)), []
    for part in pipeline.parts(**arguments, generator=torch.Generator(pipeline.device).manual_seed(42)):
        chunks = [pipeline.to_uint8(chunk)[0].permute(1, 2, 3, 0).cpu().numpy() for chunk in part.frames]
        frames = np.concatenate(chunks).astype(float)
        drift = float(np.linalg.norm(frames.mean((0, 1, 2)) - home))
        rows.append((drift, float(np.abs(frames[0] - last).mean())))
        last = frames[-1]
    return rows


if __name__ == "__main__":
    main()
