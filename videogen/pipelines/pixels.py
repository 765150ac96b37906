"""Conversions between images, frames and tensors, and the output formats."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from torch.nn import functional

Frames = Tensor | np.ndarray | list[list[Image.Image]]


@dataclass
class VideoOutput(BaseOutput):
    """Output of a pipeline call: ``frames``, one video per batch entry, in the requested form."""

    frames: Frames


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Finished segment: denoised latents [1, C, F, h, w] (float32, before denormalisation) and its video.

    ``frames`` decodes while it is read: [1, 3, f, H, W] in [-1, 1] per latent frame. After all frames are
    read, ``state`` returns what ``parts`` needs to continue from here.
    """

    latents: Tensor
    frames: Iterator[Tensor]
    state: Callable[[], dict[str, Tensor]] = dict

    def finish(self) -> dict[str, Tensor]:
        """Decode the frames that were not read, and return the state."""
        deque(self.frames, maxlen=0)
        return self.state()


def rounded(frames: Tensor) -> Tensor:
    """Convert frames in [-1, 1] to 0..255, rounded to the nearest level."""
    return (frames / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)


def truncated(frames: Tensor) -> Tensor:
    """Convert frames in [-1, 1] to 0..255, truncated to whole levels."""
    return (frames / 2 + 0.5).clamp(0, 1).mul(255).to(torch.uint8)


def frames_tensor(frames: np.ndarray | Tensor, height: int | None = None, width: int | None = None) -> Tensor:
    """Convert 8-bit frames [F, H, W, 3] to float32 [1, 3, F, H, W] in [-1, 1].

    If a size is given, frames are resized to it, nearest neighbour (spec skyreels_v3 section 2).
    """
    video = torch.as_tensor(frames).permute(3, 0, 1, 2)[None]
    if height is not None and width is not None:  # before the conversion, as source frames may be large
        video = functional.interpolate(video, size=(video.shape[2], height, width))
    return video.float() / 127.5 - 1


def image_tensor(image: Image.Image) -> Tensor:
    """Convert an RGB image to float32 [3, H, W] in [-1, 1], computed as x/255, then (x - 0.5) / 0.5."""
    unit = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    return torch.from_numpy((unit - np.float32(0.5)) / np.float32(0.5))


def record_frames(
    chunks: Iterator[Tensor], last: deque[Tensor], convert: Callable[[Tensor], Tensor] = Tensor.float
) -> Iterator[Tensor]:
    """Yield chunks [1, 3, f, H, W]; append their converted frames to ``last``, on the CPU."""
    for chunk in chunks:
        last.extend(convert(chunk).cpu().split(1, dim=2))
        yield chunk


def collect(chunks: Iterator[Tensor], output_type: str, to_uint8: Callable[[Tensor], Tensor]) -> Frames:
    """Collect all frames in the requested form."""
    if output_type == "uint8":
        return torch.cat([to_uint8(chunk).cpu() for chunk in chunks], dim=2).permute(0, 2, 3, 4, 1).numpy()
    video = torch.cat([(chunk / 2 + 0.5).clamp(0, 1).float().cpu() for chunk in chunks], dim=2)
    if output_type == "pt":
        return video.transpose(1, 2)
    array = video.permute(0, 2, 3, 4, 1).numpy()
    if output_type == "np":
        return array
    return [[Image.fromarray((frame * 255).round().astype(np.uint8)) for frame in frames] for frames in array]


def joined(videos: Sequence[Any]) -> Frames:
    """Return videos of one form as one batch."""
    if len(videos) == 1 or isinstance(videos[0], list):
        return videos[0] if len(videos) == 1 else [one for each in videos for one in each]
    return torch.cat([*videos]) if isinstance(videos[0], Tensor) else np.concatenate(videos)
