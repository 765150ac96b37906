"""A video described in prose by InternVL3.5, from 8 of its frames. Spec wan22 sections 14 and 15.

Frames are chosen, cut into tiles and put into tokens here: transformers' own processor for this model chooses
other frames, and cannot be made without torchvision.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from videogen.errors import CheckpointError, VideoGenError
from videogen.prompts.chat import FRAMES_CHAT, Chat

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
    """What happens in a video, in one line, said by a model of the kind ``FRAMES_CHAT``.

    Frames are read one at a time, and none after the last one chosen. The reply is the likeliest one, so no
    published model draws from ``seed``.

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
    """A reply in one line, without the thoughts that it may begin with."""
    return " ".join(THOUGHTS.sub("", reply).split())


def segment_indices(count: int, k: int = NUM_FRAMES) -> list[int]:
    """The frame near the middle of each of ``k`` equal parts of a video; in a short one some come twice."""
    assert count > 0
    segment = (count - 1) / k
    return [int(segment / 2 + round(segment * i)) for i in range(k)]


def tile_grid(
    width: int, height: int, *, min_tiles: int = 1, max_tiles: int = MAX_TILES, size: int = TILE
) -> tuple[int, int]:
    """(columns, rows) of the tiles whose whole is nearest in shape to a picture.

    Of grids equally near the largest is taken that the picture fills by more than half.
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
    """A picture stretched to its grid and cut row by row; after more than one tile comes all of it as one."""
    from PIL.Image import Resampling  # noqa: PLC0415 - this module may be loaded at start-up

    columns, rows = tile_grid(*image.size, min_tiles=min_tiles, max_tiles=max_tiles, size=size)
    image = image.convert("RGB")
    whole = image.resize((columns * size, rows * size), Resampling.BICUBIC)
    corners = [(x * size, y * size) for y in range(rows) for x in range(columns)]
    cut = [whole.crop((x, y, x + size, y + size)) for x, y in corners]
    return cut if len(cut) == 1 else [*cut, image.resize((size, size), Resampling.BICUBIC)]


def pixel_values(pictures: "Sequence[Image]") -> "Tensor":
    """Pictures of one size as the model takes them, float32 [N, 3, H, W]."""
    import numpy as np  # noqa: PLC0415 - this module may be loaded at start-up
    import torch  # noqa: PLC0415
    from einops import rearrange  # noqa: PLC0415

    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).float() / 255
    pixels = (pixels - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    return rearrange(pixels, "n h w c -> n c h w").contiguous()


def frame_pixels(source: "InputVideo | FrameArray", size: int) -> "Tensor":
    """The chosen frames of a video, each one tile of ``size`` pixels a side, float32 [8, 3, size, size]."""
    import torch  # noqa: PLC0415 - this module may be loaded at start-up
    from PIL import Image  # noqa: PLC0415

    from videogen.media.frames import frames_at  # noqa: PLC0415 - numpy

    def pixels_of(frame: "np.ndarray") -> "Tensor":
        return pixel_values(tiles(Image.fromarray(frame), size=size, max_tiles=1))

    frames = frames_at(source, segment_indices(source.count()), prefer_decord=True)
    return torch.cat(list(map(pixels_of, frames)))  # map: no frame is kept while the next is read


def prompt_tokens(model: Chat, tiles_per_frame: Sequence[int]) -> "Tensor":
    """The question about frames of so many tiles each, int64 [1, L].

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
    """Pixels of a tile's side that a model is made for."""
    return config.vision_config.image_size[0]


def tokens_per_tile(config: Any) -> int:
    """How many tokens a model makes of one tile."""
    vision = config.vision_config
    rows, columns = (
        int(pixels // patch * config.downsample_ratio)
        for pixels, patch in zip(vision.image_size, vision.patch_size, strict=True)
    )
    return rows * columns
