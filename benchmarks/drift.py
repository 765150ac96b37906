"""Drift over the segments of a long video, and what acts against it.

    python -m benchmarks.drift
    python -m benchmarks.drift --task single_shot_extension --model PATH --video FILE --prompt TEXT \\
        --device cuda --seconds 30

Prints for every segment: the distance of the mean colour (RGB, levels of 255) of its frames from that of the
frame before all, the source's last or else the first one made; the jump at the seam before it, the mean
absolute difference between its first frame and the last one before; and with the miniature the part of the
videos in which the shape has its colour. Without ``--prompt``, prompts of the miniature's world, and means.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

import videogen
from miniature import measure, world
from videogen.pipelines.base import VideoPipeline

WORLD_SEED = 78
VARIANTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "single_shot_extension": {
        "as published": {},
        "--handover latents": {"handover": "latents"},
        "--color_match": {"color_match": True},
        "both": {"handover": "latents", "color_match": True},
    },
    "diffusion_forcing": {
        f"--addnoise_condition {noise}": {"addnoise_condition": noise} for noise in (0, 10, 20, 50)
    },
}
MINIATURE = {"base_num_frames": 33, "overlap_history": 17, "num_frames": 33 + 4 * 16}  # five segments


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What is asked for; ``colour`` is that of the shape, None if nobody knows."""

    options: Mapping[str, Any]
    colour: str | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", choices=VARIANTS, default="diffusion_forcing")
    parser.add_argument("--model", default="miniature")
    parser.add_argument("--prompt", help="default: prompts of the miniature's world")
    parser.add_argument("--video", help="what is extended")
    parser.add_argument("--count", type=int, default=3, help="prompts of the world")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=int, default=30, help="of an extension")
    given = parser.parse_args()
    dtype = torch.float32 if given.device == "cpu" else torch.bfloat16
    pipeline = videogen.load(given.task, given.model, dtype=dtype, device=given.device)
    pipeline.set_progress_bar_config(disable=True)
    own = {"prompt": given.prompt}
    if given.task == "single_shot_extension":
        own |= {"input_video": given.video, "duration": given.seconds}
    sources = [Source(options=own)] if given.prompt else list(map(drawn, range(given.count)))
    variants = VARIANTS[given.task]
    print("| colour distance / seam / right colour | " + " | ".join(variants) + " |")
    print("|---" * (len(variants) + 1) + "|")
    found = [
        np.mean([measured(pipeline, source, options) for source in sources], axis=0)
        for options in variants.values()
    ]
    for number, cells in enumerate(zip(*found, strict=True), 1):
        texts = (
            f"{drift:.1f} / {seam:.1f}" + ("" if np.isnan(right) else f" / {right:.0%}")
            for drift, seam, right in cells
        )
        print(f"| segment {number} | " + " | ".join(texts) + " |")


def drawn(number: int) -> Source:
    """Return a prompt of the world in which the shape stays in the picture."""
    scene = replace(world.draw_scene(np.random.default_rng((WORLD_SEED, number))), motion="turn")
    return Source(options={"prompt": world.describe(scene), **MINIATURE}, colour=scene.colour)


def measured(
    pipeline: VideoPipeline, source: Source, variant: Mapping[str, Any]
) -> list[tuple[float, float, float]]:
    """Return (distance of the mean colour, jump at the seam, whether the shape has its colour) by segment."""
    arguments = pipeline.complete({**source.options, **variant})
    last = None
    if video := arguments.get("input_video"):
        size = arguments["width"], arguments["height"]
        last = np.asarray(Image.fromarray(video.tail(1)[0]).resize(size), dtype=np.float32)
    home, rows = last, []
    for part in pipeline.parts(**arguments, generator=torch.Generator(pipeline.device).manual_seed(42)):
        chunks = [pipeline.to_uint8(chunk)[0].permute(1, 2, 3, 0).cpu().numpy() for chunk in part.frames]
        frames = np.concatenate(chunks).astype(np.float32)
        home, last = (frames[0] if frame is None else frame for frame in (home, last))
        drift = float(np.linalg.norm(frames.mean((0, 1, 2)) - home.mean((0, 1))))
        right = measure.see(frames / 255).colour == source.colour if source.colour else np.nan
        rows.append((drift, float(np.abs(frames[0] - last).mean()), float(right)))
        last = frames[-1]
    return rows


if __name__ == "__main__":
    main()
