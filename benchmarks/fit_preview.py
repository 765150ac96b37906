"""Fit the linear map from a VAE's latents to colours that previews are made with (--preview_every).

    python -m benchmarks.fit_preview --model FOLDER
    python -m benchmarks.fit_preview --model tiny:wan22-5b --out table.json

The VAE encodes videos that are drawn from formulas (gradients, waves, noise, moving shapes), and least
squares find the colours of a latent pixel from its channels. The table goes to FOLDER/preview.json, where it
takes the place of the published one of configs/previews.yaml. What is printed is how well it does on other
videos: the correlation of what it shows with what the VAE decodes, both at the size of the latents. On an
accelerator if there is one.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from videogen.checkpoints import resolve
from videogen.checkpoints.layouts import Checkpoint
from videogen.engine.load import fetch
from videogen.errors import VideoGenError
from videogen.files import write_json
from videogen.models.components import plan_component
from videogen.models.latent_preview import TABLE_FILE, LinearDecoder
from videogen.runtime.device import choose_device
from videogen.tasks.geometry import TIME_STRIDE
from videogen.tasks.table import TASKS

DIGITS = 4  # of a factor


def noise(draw: torch.Generator, frames: int, size: int, cells: int) -> Tensor:
    """Return smooth noise [3, F, size, size] that changes slowly; ``cells`` of it side by side."""
    coarse = torch.randn((1, 3, 2, cells, cells), generator=draw)
    return functional.interpolate(coarse, (frames, size, size), mode="trilinear", align_corners=True)[0]


def video(draw: torch.Generator, frames: int, size: int) -> Tensor:
    """Draw a video [3, F, size, size] in [-1, 1]: a gradient, waves, noise of two scales, moving discs."""

    def number(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=draw))

    def colour() -> Tensor:
        return torch.rand((3, 1, 1, 1), generator=draw) * 2 - 1

    axis = torch.linspace(-1, 1, size)
    time, y, x = torch.meshgrid(torch.linspace(0, 1, frames), axis, axis, indexing="ij")
    picture = noise(draw, frames, size, 2) * number(0, 0.6) + colour() * number(0, 1)
    angle, length, speed = number(0, math.tau), number(1, 24), number(-3, 3)
    wave = torch.sin(length * (x * math.cos(angle) + y * math.sin(angle)) + speed * time)
    picture = picture + wave * colour() * number(0, 0.5)
    picture = picture + noise(draw, frames, size, size // 8) * number(0, 0.15)
    for _ in range(4):
        left, top = (number(-0.9, 0.9) + number(-0.7, 0.7) * time for _ in range(2))
        wide, high = number(0.1, 0.6), number(0.1, 0.6)
        inside = ((x - left) / wide) ** 2 + ((y - top) / high) ** 2 < 1
        picture = torch.where(inside, colour() + 0.2 * wave, picture)
    return picture.clamp(-1, 1)


def videos(seed: int, count: int, frames: int, size: int) -> list[Tensor]:
    """Draw videos [1, 3, F, size, size]."""
    draw = torch.Generator().manual_seed(seed)
    return [video(draw, frames, size)[None] for _ in range(count)]


def encode(vae: Any, frames: Tensor) -> Tensor:
    """Encode a video to latents [1, C, f, h, w] as the transformer sees them."""
    latents, config = vae.encode(frames).latent_dist.mode(), vae.config
    if "latents_mean" not in config:
        return latents * config["scaling_factor"]
    mean, std = (torch.tensor(config[f"latents_{name}"]).to(latents) for name in ("mean", "std"))
    return (latents - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1)


def shrink(frames: Tensor, latents: Tensor) -> Tensor:
    """Return frames [1, 3, F, H, W] at the size of their latents, those of a latent frame averaged."""
    first = frames[:, :, :1].repeat_interleave(TIME_STRIDE, dim=2)
    return functional.adaptive_avg_pool3d(torch.cat([first, frames[:, :, 1:]], dim=2), latents.shape[2:])


@torch.no_grad()
def fit(vae: Any, drawn: list[Tensor]) -> LinearDecoder:
    """Return the linear map that least squares find."""
    channels, colours = [], []
    for frames in drawn:
        latents = encode(vae, frames)
        channels.append(latents[0].flatten(1).T.cpu().double())
        colours.append(shrink(frames, latents)[0].flatten(1).T.cpu().double())
    known = functional.pad(torch.cat(channels), (0, 1), value=1.0)
    solved = torch.linalg.lstsq(known, torch.cat(colours), driver="gelsd").solution.float()
    return LinearDecoder(solved[:-1], solved[-1])


@torch.no_grad()
def correlation(vae: Any, decoder: LinearDecoder, drawn: list[Tensor]) -> float:
    """Return the correlation of what a linear map shows with what the VAE decodes, over all pixels."""
    shown, true = [], []
    for frames in drawn:
        latents = encode(vae, frames)
        shown.append(torch.stack(list(decoder.frames(latents)), dim=1).flatten().cpu())
        decoded = vae.decode(vae.encode(frames).latent_dist.mode()).sample
        true.append(shrink(decoded.clamp(-1, 1), latents).flatten().cpu())
    return float(torch.corrcoef(torch.stack([torch.cat(shown), torch.cat(true)]))[0, 1])


def find(model: str) -> Checkpoint:
    """Return a model on this machine, of whatever task.

    Raises:
        VideoGenError: it is not there, or no task knows it.
    """
    for task in TASKS.values():
        try:
            found = resolve.locate(model, None, task)
            found = fetch(found, task) if found.tiny else found
        except VideoGenError as error:
            why = error
        else:
            break
    else:
        raise why
    if found.folder is None:
        raise VideoGenError(f"--model {model}: not on this machine; download it, or give a folder")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder, a hub id that is downloaded, or tiny")
    parser.add_argument("--out", type=Path, help=f"file of the table (default {TABLE_FILE} in the folder)")
    parser.add_argument("--videos", type=int, default=32)
    parser.add_argument("--size", type=int, default=256, help="pixels of their sides")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    checkpoint, device = find(args.model), choose_device(args.device)
    plan = plan_component(checkpoint.components["vae"], checkpoint.place("vae"))
    vae: Any = plan.load_weights(torch.float32, device)
    seen, others = (
        [frames.to(device) for frames in videos(seed, count, 9, args.size)]
        for seed, count in ((0, args.videos), (1, max(1, args.videos // 4)))
    )
    decoder = fit(vae, seen)
    table = {
        name: [[round(float(value), DIGITS) for value in row] for row in values]
        for name, values in (("factors", decoder.factors), ("bias", decoder.bias[None]))
    }
    reached = round(correlation(vae, decoder, others), 3)
    out = args.out or Path(checkpoint.folder or "") / TABLE_FILE
    write_json(out, {"factors": table["factors"], "bias": table["bias"][0], "correlation": reached})
    print(f"{out}: correlation {reached} with what the VAE decodes of {len(others)} other videos")


if __name__ == "__main__":
    main()
