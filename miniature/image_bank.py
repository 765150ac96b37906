"""What the network with an image beside the noise is trained on: clips as latents, made once, in files.

A file has clips of one kind and size: scenes that begin with an image, or end with one as well, and portraits
that speak. Which frames are known is encoded as ``WanPipeline.encode_ends`` does it: grey frames between.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from miniature import train_vae, world
from miniature.bank import CAPTIONS, cover_of, latents_of
from miniature.train_vae import as_video
from videogen.pipelines.wan import MASK_CHANNELS, known_mask
from videogen.tasks.avatar_clips import TARGET_FRAMES
from videogen.tasks.geometry import latent_frames

FRAMES = 33  # of a clip; 9 latent frames
MOTION = 5  # frames that a portrait's clip takes over from the one before
LONGEST_SOUND = 100  # frames
PER_FILE = 125
SEEDS = 2 * 10**6  # the first seed of a clip
SIZES = tuple(dict.fromkeys(train_vae.SIZES))  # height, width


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of clip: how many of its ``frames`` are known, the ``first`` and the ``last`` ones."""

    is_portrait: bool
    first: int
    last: int
    frames: int = FRAMES


KINDS = {
    "image": Kind(is_portrait=False, first=1, last=0),
    "both_images": Kind(is_portrait=False, first=1, last=1),
    "both_images_short": Kind(is_portrait=False, first=1, last=1, frames=17),
    "portrait": Kind(is_portrait=True, first=1, last=0),
    "portrait_to_target": Kind(is_portrait=True, first=1, last=TARGET_FRAMES),
    "portrait_goes_on": Kind(is_portrait=True, first=MOTION, last=TARGET_FRAMES),
}
FILES = (  # kinds of the files, in order
    *("image", "image", "both_images", "portrait", "image", "image", "portrait_to_target"),
    *("image", "image", "portrait_goes_on", "both_images_short", "image", "image", "both_images"),
    *("portrait", "image", "image", "portrait_to_target", "portrait_goes_on", "both_images_short"),
)
SPOKEN = (  # the tokenizer knows none of their nouns and verbs: only the sound tells what happens
    "a person is talking",
    "a person speaks",
    "a face that talks",
    "talking",
)


@dataclass(frozen=True, slots=True)
class ImageClips:
    """Clips of one kind and size; latents are normalized, bfloat16.

    Args:
        video: [N, 16, F, h, w].
        beside: the mask of known frames, then the latents of what is known [N, 20, F, h, w].
        cover: 1 where the shape or the mouth is, else 0 [N, F, h, w].
        image: the first known frame, 8 bits [N, H, W, 3].
        captions: variants for each clip.
        sounds: samples of each portrait's voice [n], 16 kHz; ``starts``: frame of the sound with which the
            clip begins. Empty for scenes.
    """

    kind: str
    video: Tensor
    beside: Tensor
    cover: Tensor
    image: Tensor
    captions: list[list[str]]
    sounds: list[Tensor]
    starts: list[int]


def load(folder: Path) -> Iterator[ImageClips]:
    """Load all files."""
    for file in sorted(folder.glob("*.pt")):
        yield ImageClips(**torch.load(file, weights_only=True))


def encode_file(vae: AutoencoderKLWan, index: int) -> dict[str, object]:
    """Draw and encode the clips of a file: what ``ImageClips`` holds."""
    name = FILES[index]
    kind, size = KINDS[name], SIZES[FILES[:index].count(name) % len(SIZES)]
    made: dict[str, list[Tensor]] = {"video": [], "beside": [], "cover": [], "image": []}
    captions, sounds, starts = [], [], []
    for clip in range(PER_FILE):
        rng = np.random.default_rng(SEEDS + index * PER_FILE + clip)
        if kind.is_portrait:
            portrait, loudness, start = draw_speech(rng, kind)
            heard = loudness[start : start + FRAMES]
            pictures, target = draw_portrait_clip(rng, kind, portrait, heard, size)
            cover = mouth_cover(portrait, size)
            captions.append(list(SPOKEN))
            sounds.append(torch.from_numpy(world.voice(rng, loudness)).half())
            starts.append(start)
        else:
            scene = world.draw_scene(rng)
            pictures = world.draw(scene, range(kind.frames), *size)
            target, cover = pictures[-1:], cover_of(pictures)
            captions.append([world.describe(scene, rng) for _ in range(CAPTIONS)])
        video = as_video(pictures)
        ends = as_video(np.repeat(target, kind.last, axis=0)) if kind.last else video[:0]
        made["video"].append(latents_of(vae, video))
        made["beside"].append(encode_known_frames(vae, video[: kind.first], ends, kind.frames))
        made["cover"].append(cover)
        made["image"].append(torch.from_numpy((pictures[0] * 255).round().astype(np.uint8)))
    tensors = {key: torch.stack(values) for key, values in made.items()}
    return {"kind": name, **tensors, "captions": captions, "sounds": sounds, "starts": starts}


def encode_known_frames(vae: AutoencoderKLWan, first: Tensor, last: Tensor, frames: int) -> Tensor:
    """Return mask and latents [20, F, h, w] of known first and last frames [f, H, W, 3]."""
    grey = first.new_zeros(frames - len(first) - len(last), *first.shape[1:])
    latents = latents_of(vae, torch.cat([first, grey, last]))
    mask = known_mask(len(first), len(last), frames, first.device)
    return torch.cat([mask[:, :, None, None].expand_as(latents[:MASK_CHANNELS]), latents])


def draw_speech(rng: np.random.Generator, kind: Kind) -> tuple[world.Portrait, NDArray[np.float32], int]:
    """Draw a portrait, the loudness of what it says [rows], and the row with which the clip begins."""
    portrait = world.draw_portrait(rng)
    loudness = world.draw_loudness(rng, int(rng.integers(FRAMES, LONGEST_SOUND)))
    start = 0 if kind.first == 1 else int(rng.integers(len(loudness) - FRAMES + 1))
    return portrait, loudness, start


def draw_portrait_clip(
    rng: np.random.Generator,
    kind: Kind,
    portrait: world.Portrait,
    loudness: NDArray[np.float32],
    size: tuple[int, int],
) -> tuple[world.Picture, world.Picture]:
    """Draw a clip [33, H, W, 3] and a target frame [1, H, W, 3], whose mouth is open at random.

    If the clip begins with a portrait, so is that one's mouth in most clips: the picture was there before the
    sound.
    """
    shown = loudness.copy()
    if kind.first == 1 and rng.uniform() < 0.7:
        shown[0] = rng.uniform() * (rng.uniform() < 0.5)
    other = replace(portrait, sway=rng.uniform(0, 2 * np.pi))
    target = world.speak(other, np.float32([rng.uniform()]), *size)
    return world.speak(portrait, shown, *size), target


def mouth_cover(portrait: world.Portrait, size: tuple[int, int]) -> Tensor:
    """Return where the mouth is, in latent frames and pixels [9, h, w], bfloat16."""
    closed, wide = (world.speak(portrait, np.full(1, loud, np.float32), *size) for loud in (0, 1))
    moves = torch.from_numpy(np.abs(wide - closed).max(-1) > 0.05).float()
    return functional.max_pool2d(moves, 8).expand(latent_frames(FRAMES), -1, -1).bfloat16()
