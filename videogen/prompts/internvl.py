"""Descriptions of videos by InternVL3.5, from 8 of their frames. Spec wan22 sections 14 and 15.

Frames are chosen, cut into tiles and tokenized here: transformers' own processor for this model chooses other
frames, and needs torchvision.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from videogen.errors import CheckpointError, VideoGenError
from videogen.prompts.chat import Chat
from videogen.prompts.chat_models import FRAMES_CHAT

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

    from videogen.media.frames import FrameArray
    from videogen.media.video_reader import InputVideo

DEFAULT_MODEL = FRAMES_CHAT.default
NUM_FRAMES = 8
MAX_TOKENS = 1024
QUESTION = "Describe this video in detail."
BEFORE, AFTER = "<img>", "</img>"  # around the tokens of a picture

TILE = 448  # pixels; a model's config may say otherwise
MAX_TILES = 12  # of a picture; a frame of a video is one tile
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

THOUGHTS = re.compile(r"\A\s*<think>.*?(</think>|\Z)", re.DOTALL)  # cut short, they are all of the reply


def describe(source: "InputVideo | FrameArray", model: Chat, *, seed: int) -> str:
    """Return a description of a video in one line, by a model of the kind ``FRAMES_CHAT``.

    Decoding is greedy, so ``seed`` does not matter to the published models.

    Raises:
        InputError: the video cannot be decoded.
        CheckpointError: the model's tokenizer or chat template is not that of an InternVL model.
        OutOfMemoryError: the device is full.
        VideoGenError: the model's reply is empty.
    """
    pixels = frame_pixels(source, image_size(model.model.config))
    inputs = {"input_ids": prompt_tokens(model, [1] * len(pixels)), "pixel_values": pixels}
    reply = model.complete(inputs, max_new_tokens=MAX_TOKENS, temperature=0, seed=seed)
    if text := tidy(reply):
        return text
    what = "described the video with nothing; give another model, or a prompt"
    raise VideoGenError(f"{model.found.flag} {model.found.name}: {what}")


def tidy(reply: str) -> str:
    """Return a reply in one line, without the reasoning that it may begin with."""
    return " ".join(THOUGHTS.sub("", reply).split())


def segment_indices(count: int, k: int = NUM_FRAMES) -> list[int]:
    """Return the frame near the middle of each of ``k`` equal parts; short videos repeat some."""
    assert count > 0
    segment = (count - 1) / k
    return [int(segment / 2 + round(segment * i)) for i in range(k)]


def tile_grid(
    width: int, height: int, *, min_tiles: int = 1, max_tiles: int = MAX_TILES, size: int = TILE
) -> tuple[int, int]:
    """Return (columns, rows) of the grid of tiles whose aspect ratio is nearest to an image's.

    Of equally near grids it is the largest that the image fills by more than half.
    """
    grids = [
        (columns, rows)
        for columns in range(1, max_tiles + 1)
        for rows in range(1, max_tiles // columns + 1)
        if columns * rows >= min_tiles
    ]
    best, least = (1, 1), float("inf")
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        distance = abs(width / height - columns / rows)
        is_filled = width * height > 0.5 * size**2 * columns * rows
        if distance < least or (distance == least and is_filled):
            best, least = (columns, rows), distance
    return best


def tiles(
    image: "Image", *, size: int = TILE, min_tiles: int = 1, max_tiles: int = MAX_TILES
) -> "list[Image]":
    """Stretch an image to its grid and cut it row by row; several tiles are followed by the whole image."""
    from PIL.Image import Resampling  # noqa: PLC0415 - this module may be loaded at start-up

    columns, rows = tile_grid(*image.size, min_tiles=min_tiles, max_tiles=max_tiles, size=size)
    image = image.convert("RGB")
    whole = image.resize((columns * size, rows * size), Resampling.BICUBIC)
    corners = [(x * size, y * size) for y in range(rows) for x in range(columns)]
    cut = [whole.crop((x, y, x + size, y + size)) for x, y in corners]
    return cut if len(cut) == 1 else [*cut, image.resize((size, size), Resampling.BICUBIC)]


def pixel_values(pictures: "Sequence[Image]") -> "Tensor":
    """Return images of one size as the model's input, float32 [N, 3, H, W]."""
    import numpy as np  # noqa: PLC0415 - this module may be loaded at start-up
    import torch  # noqa: PLC0415
    from einops import rearrange  # noqa: PLC0415

    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).float() / 255
    pixels = (pixels - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    return rearrange(pixels, "n h w c -> n c h w").contiguous()


def frame_pixels(source: "InputVideo | FrameArray", size: int) -> "Tensor":
    """Return the chosen frames of a video, one tile of ``size`` pixels each, float32 [8, 3, size, size]."""
    import torch  # noqa: PLC0415 - this module may be loaded at start-up
    from PIL import Image  # noqa: PLC0415

    from videogen.media.frames import frames_at  # noqa: PLC0415 - numpy

    def pixels_of(frame: "np.ndarray") -> "Tensor":
        return pixel_values(tiles(Image.fromarray(frame), size=size, max_tiles=1))

    frames = frames_at(source, segment_indices(source.count()), prefer_decord=True)
    return torch.cat(list(map(pixels_of, frames)))  # map: no frame is kept while the next is read


def prompt_tokens(model: Chat, tiles_per_frame: Sequence[int]) -> "Tensor":
    """Return the tokens of the question about frames of so many tiles each, int64 [1, L].

    Raises:
        CheckpointError: the model's tokenizer or chat template does not keep every token of the frames.
    """
    config = model.model.config
    token = model.tokenizer.convert_ids_to_tokens(config.image_token_id)
    frames = [
        f"Frame{i}: {BEFORE}{token * (tokens_per_tile(config) * count)}{AFTER}\n"
        for i, count in enumerate(tiles_per_frame, start=1)
    ]
    ids = model.tokens([{"role": "user", "content": "".join(frames) + QUESTION}])
    wanted, found = tokens_per_tile(config) * sum(tiles_per_frame), int((ids == config.image_token_id).sum())
    if found != wanted:
        what = f"its tokenizer and chat template leave {found} of {wanted} picture tokens; download it again"
        raise CheckpointError(f"{model.found.flag} {model.found.name}: {what}")
    return ids


def image_size(config: Any) -> int:
    """Return the side of a model's tiles in pixels."""
    return config.vision_config.image_size[0]


def tokens_per_tile(config: Any) -> int:
    """Return the number of tokens of one tile."""
    vision = config.vision_config
    rows, columns = (
        int(pixels // patch * config.downsample_ratio)
        for pixels, patch in zip(vision.image_size, vision.patch_size, strict=True)
    )
    return rows * columns
