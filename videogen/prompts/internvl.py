"""Descriptions of videos by InternVL3.5, from 8 of their frames. Spec wan22 sections 14 and 15.

Frames are chosen, scaled and tokenized here: transformers' own processor for this model chooses other frames,
and needs torchvision.
"""

import re
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import InternVLConfig
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from videogen.errors import CheckpointError, VideoGenError
from videogen.media.frames import FrameArray, frames_at
from videogen.media.stored_frames import StoredFrames
from videogen.media.video_reader import InputVideo
from videogen.prompts.chat import Chat
from videogen.prompts.questions import Question

NUM_FRAMES = 8
MAX_TOKENS = 1024
QUESTION = "Describe this video in detail."
BEFORE, AFTER = "<img>", "</img>"  # around the tokens of a picture

THOUGHTS = re.compile(r"\A\s*<think>.*?(</think>|\Z)", re.DOTALL)  # cut short, they are all of the reply


def question(source: InputVideo | StoredFrames | FrameArray, model: Chat) -> Question[str]:
    """Return what a model of the kind ``FRAMES_CHAT`` is asked for a description of a video in one line.

    Decoding is greedy. An empty reply is refused.

    Raises:
        InputError: the video cannot be decoded.
        CheckpointError: the model's tokenizer or chat template is not that of an InternVL model.
    """

    def read(reply: str) -> str:
        if text := tidy(reply):
            return text
        what = "described the video with nothing; give another model, or a prompt"
        raise VideoGenError(f"{model.found.label}: {what}")

    pixels = frame_pixels(source, image_size(model.model.config))
    inputs = {"input_ids": prompt_tokens(model, len(pixels)), "pixel_values": pixels}
    return Question(inputs=inputs, options={"max_new_tokens": MAX_TOKENS, "temperature": 0}, read=read)


def tidy(reply: str) -> str:
    """Return a reply in one line, without the reasoning that it may begin with."""
    return " ".join(THOUGHTS.sub("", reply).split())


def segment_indices(count: int, k: int = NUM_FRAMES) -> list[int]:
    """Return the frame near the middle of each of ``k`` equal parts; short videos repeat some."""
    assert count > 0
    segment = (count - 1) / k
    return [int(segment / 2 + round(segment * i)) for i in range(k)]


def frame_pixels(source: InputVideo | StoredFrames | FrameArray, size: int) -> Tensor:
    """Return the chosen frames of a video as the model's input, float32 [8, 3, size, size]."""
    frames = frames_at(source, segment_indices(source.count()), prefer_decord=True)
    return torch.cat([*map(partial(pixel_values, size=size), frames)])  # map keeps no frame for the next one


def pixel_values(frame: np.ndarray, size: int) -> Tensor:
    """Return a frame [H, W, 3], stretched to a square, as the model's input, float32 [1, 3, size, size]."""
    square = Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(square)).float() / 255
    pixels = (pixels - torch.tensor(IMAGENET_DEFAULT_MEAN)) / torch.tensor(IMAGENET_DEFAULT_STD)
    return pixels.permute(2, 0, 1)[None].contiguous()


def prompt_tokens(model: Chat, num_frames: int) -> Tensor:
    """Return the tokens of the question about so many frames, int64 [1, L].

    Raises:
        CheckpointError: the model's tokenizer or chat template does not keep every token of the frames.
    """
    config = model.model.config
    token, count = model.tokenizer.convert_ids_to_tokens(config.image_token_id), tokens_per_frame(config)
    frames = [f"Frame{index + 1}: {BEFORE}{token * count}{AFTER}\n" for index in range(num_frames)]
    ids = model.inputs([{"role": "user", "content": "".join(frames) + QUESTION}])["input_ids"]
    wanted, found = count * num_frames, int((ids == config.image_token_id).sum())
    if found != wanted:
        what = f"its tokenizer and chat template leave {found} of {wanted} picture tokens; download it again"
        raise CheckpointError(f"{model.found.label}: {what}")
    return ids


def image_size(config: InternVLConfig) -> int:
    """Return the side of a model's input in pixels."""
    return config.vision_config.image_size[0]


def tokens_per_frame(config: InternVLConfig) -> int:
    """Return the number of tokens of one frame."""
    vision = config.vision_config
    rows, columns = (
        int(pixels // patch * config.downsample_ratio)
        for pixels, patch in zip(vision.image_size, vision.patch_size, strict=True)
    )
    return rows * columns
