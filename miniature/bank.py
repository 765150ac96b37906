"""What the DiT is trained on: clips of the world as latents, made once, in files of some hundred clips each.

A clip is causal, so its first latent frames are the latents of its beginning: one clip serves every length.
Most clips show a motion from its beginning; the last files are longer and begin anywhere in it, for videos
that go on.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from torch.nn import functional

from miniature import world
from miniature.measure import CHROMA
from miniature.train_vae import SIZES, as_video
from miniature.training import fast_products
from miniature.whole_clip import encode

FRAMES = 49  # of a clip; 13 latent frames
LONG_FRAMES = 61  # 16 latent frames: an extension's 25 and 36 more
FIRST_LONG = 16  # number of the first file of long clips
LATEST_START = 24  # of a long clip, frame of its scene
SHOT_FRAMES = 9  # of another shot of the same shape
ENDS = (5, 9)  # latent frames of videos with an end image
PER_FILE = 250
CAPTIONS = 6  # variants of a caption
SEEDS = 10**6  # the first seed of a clip


@dataclass(frozen=True, slots=True)
class Clips:
    """Latents of clips of one size, normalized, bfloat16, with their captions.

    Args:
        video: [N, C, F, h, w].
        reference: the shape on white [N, C, 1, h, w].
        shot: another shot of the shape [N, C, 3, h, w].
        ends: the last frame of videos as long as ``ENDS`` says, as a still [N, C, 2, h, w].
        cover: 1 where the shape is in a video, else 0 [N, F, h, w].
        captions: variants for each clip; ``unnamed``: the same without shape and colour.
    """

    video: Tensor
    reference: Tensor
    shot: Tensor
    ends: Tensor
    cover: Tensor
    captions: list[list[str]]
    unnamed: list[list[str]]


def make(folder: Path, files: int, encode_file: Callable[[int], Mapping[str, object]]) -> None:
    """Make the files that are missing, of ``files`` in all; ``encode_file`` returns what a file holds."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(files):
        if not (file := folder / f"{index:03}.pt").exists():
            partial = file.with_suffix(".partial")
            torch.save(encode_file(index), partial)
            partial.replace(file)
            print(file, flush=True)


def load(folder: Path) -> Iterator[Clips]:
    """Load all files, those of one size and length together."""
    files = [torch.load(file, weights_only=True) for file in sorted(folder.glob("*.pt"))]
    for shape in dict.fromkeys(tuple(file["video"].shape[2:]) for file in files):
        same = [file for file in files if tuple(file["video"].shape[2:]) == shape]
        tensors = {
            name: torch.cat([file[name] for file in same])
            for name in ("video", "reference", "shot", "ends", "cover")
        }
        texts = {name: [text for file in same for text in file[name]] for name in ("captions", "unnamed")}
        yield Clips(**tensors, **texts)


@torch.no_grad()
def latents_of(vae: AutoencoderKLWan, video: Tensor) -> Tensor:
    """Encode video [F, H, W, 3] in [-1, 1] to normalized latents [C, f, h, w], bfloat16."""
    mean, std = (torch.tensor(values) for values in (vae.config.latents_mean, vae.config.latents_std))
    with fast_products():
        encoded, _ = encode(vae, video[None])
    return ((encoded[0].float() - mean) / std).movedim(-1, 0).bfloat16()


def encode_file(vae: AutoencoderKLWan, index: int) -> dict[str, Tensor | list[list[str]]]:
    """Draw and encode the clips of a file."""
    height, width = SIZES[index % len(SIZES)]

    def latents(pictures: world.Picture) -> Tensor:
        return latents_of(vae, as_video(pictures))

    tensors: dict[str, list[Tensor]] = {"video": [], "reference": [], "shot": [], "ends": [], "cover": []}
    texts: dict[str, list[list[str]]] = {"captions": [], "unnamed": []}
    for clip in range(PER_FILE):
        rng = np.random.default_rng(SEEDS + index * PER_FILE + clip)
        scene = world.draw_scene(rng)
        start = int(rng.integers(LATEST_START)) if index >= FIRST_LONG else 0
        frames = LONG_FRAMES if index >= FIRST_LONG else FRAMES
        pictures = world.draw(scene, range(start, start + frames), height, width)
        stills = [latents(pictures[None, 4 * (frames - 1)]) for frames in ENDS]
        tensors["video"].append(latents(pictures))
        tensors["cover"].append(cover_of(pictures))
        tensors["ends"].append(torch.cat(stills, dim=1))
        tensors["reference"].append(latents(world.draw_reference(scene, height, width)[None]))
        other = world.draw(world.another_shot(scene, rng), range(SHOT_FRAMES), height, width)
        tensors["shot"].append(latents(other))
        texts["captions"].append([world.describe(scene, rng) for _ in range(CAPTIONS)])
        texts["unnamed"].append([world.describe(scene, rng, subject="the object") for _ in range(CAPTIONS)])
    return {name: torch.stack(values) for name, values in tensors.items()} | texts


def cover_of(pictures: world.Picture) -> Tensor:
    """Return where the shape is in a clip, in latent frames and pixels [F, h, w], bfloat16."""
    strong = torch.from_numpy(pictures.max(-1) - pictures.min(-1) > CHROMA).float()
    pooled = functional.max_pool2d(strong[:, None], 8)[:, 0]
    later = pooled[1:].unflatten(0, (-1, 4)).amax(dim=1)
    return torch.cat([pooled[:1], later]).bfloat16()
