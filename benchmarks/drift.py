"""Drift over the rolls of an extension: as published, latents handed over, colours matched.

    python -m benchmarks.drift [--seconds 5] [--count 3]
    python -m benchmarks.drift --model PATH --video FILE --prompt TEXT --device cuda --seconds 30

Prints, for every roll: the distance of the mean colour (RGB, levels of 255) of its frames from that of the
source's last frame; the jump at the seam before it, the mean absolute difference between its first frame and
the last one before; and with the miniature the part of the videos in which the shape still has its colour.
Without ``--video`` the sources are clips of the miniature's world, and the figures their mean.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

import videogen
from miniature import measure, world
from videogen.pipelines.base import VideoPipeline

WORLD_SEED = 78
SOURCE_FRAMES = 25
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "as published": {},
    "--handover latents": {"handover": "latents"},
    "--color_match": {"color_match": True},
    "both": {"handover": "latents", "color_match": True},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What is extended; ``colour`` is that of the shape, None if nobody knows."""

    video: str | list[Image.Image]
    prompt: str
    colour: str | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="miniature")
    parser.add_argument("--video", help="default: clips of the miniature's world")
    parser.add_argument("--prompt", default="", help="of --video")
    parser.add_argument("--count", type=int, default=3, help="clips of the world")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=int, default=5)
    given = parser.parse_args()
    dtype = torch.float32 if given.device == "cpu" else torch.bfloat16
    pipeline = videogen.load("single_shot_extension", given.model, dtype=dtype, device=given.device)
    pipeline.set_progress_bar_config(disable=True)
    own = Source(video=given.video, prompt=given.prompt, colour=None)
    sources = [own] if given.video else list(map(drawn, range(given.count)))
    print("| colour distance / seam / right colour | " + " | ".join(VARIANTS) + " |")
    print("|---" * (len(VARIANTS) + 1) + "|")
    found = [
        np.mean([measured(pipeline, source, given.seconds, options) for source in sources], axis=0)
        for options in VARIANTS.values()
    ]
    for roll, cells in enumerate(zip(*found, strict=True), 1):
        texts = (
            f"{drift:.1f} / {seam:.1f}" + ("" if np.isnan(right) else f" / {right:.0%}")
            for drift, seam, right in cells
        )
        print(f"| roll {roll} | " + " | ".join(texts) + " |")


def drawn(number: int) -> Source:
    """Draw a clip of the world, with what describes it."""
    scene = world.draw_scene(np.random.default_rng((WORLD_SEED, number)))
    frames = (world.draw(scene, range(SOURCE_FRAMES), 64, 96) * 255).round().astype(np.uint8)
    return Source(video=[*map(Image.fromarray, frames)], prompt=world.describe(scene), colour=scene.colour)


def measured(
    pipeline: VideoPipeline, source: Source, seconds: int, options: Mapping[str, Any]
) -> list[tuple[float, float, float]]:
    """Return (distance of the mean colour, jump at the seam, whether the shape has its colour) per roll."""
    asked = {"prompt": source.prompt, "input_video": source.video, "duration": seconds, **options}
    arguments = pipeline.complete(asked)
    size = arguments["width"], arguments["height"]
    last = np.asarray(Image.fromarray(arguments["input_video"].tail(1)[0]).resize(size), dtype=float)
    home, rows = last.mean((0, 1)), []
    for part in pipeline.parts(**arguments, generator=torch.Generator(pipeline.device).manual_seed(42)):
        chunks = [pipeline.to_uint8(chunk)[0].permute(1, 2, 3, 0).cpu().numpy() for chunk in part.frames]
        frames = np.concatenate(chunks).astype(np.float32)
        drift = float(np.linalg.norm(frames.mean((0, 1, 2)) - home))
        right = measure.see(frames / 255).colour == source.colour if source.colour else np.nan
        rows.append((drift, float(np.abs(frames[0] - last).mean()), float(right)))
        last = frames[-1]
    return rows


if __name__ == "__main__":
    main()
