"""HunyuanVideo's two text encoders: llava encodes prompt and image, CLIP pools the prompt to one vector.

Spec hunyuan section 7; the template and the expansion of image tokens are diffusers'.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_image2video import (
    DEFAULT_PROMPT_TEMPLATE as TEMPLATE,
)
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_image2video import (
    _expand_input_ids_with_image_tokens,
)
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextModel,
    LlavaConfig,
    LlavaModel,
    PreTrainedTokenizerBase,
)

TEXT_TOKENS = 256
CLIP_TOKENS = 77
ENDING = 4  # tokens that end the user's turn and begin the assistant's
LAYER = -3  # index of the hidden states used


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    processor: CLIPImageProcessorPil,
    llava: LlavaModel,
    prompt: str,
    image: Image.Image,
    *,
    interleave: int,
    device: torch.device,
    template: Mapping[str, Any] = TEMPLATE,
    rows: int = TEXT_TOKENS,
) -> Tensor:
    """Return rows [1, T, dim]: every ``interleave``-th image row, then the text rows.

    ``device`` is where llava computes; its weights may be elsewhere before. Padding rows are left out,
    because no result depends on them. A ``template`` without ``crop_start`` gives all rows as they are.
    """
    before, count = template["crop_start"], template["image_emb_len"]
    place = slice(template["image_emb_start"], template["image_emb_end"])
    ids, start = prompt_ids(tokenizer, prompt, template, rows)
    told = ids.shape[1]
    if not before:
        ids = functional.pad(ids, (0, rows - told), value=tokenizer.pad_token_id)
    expanded = _expand_input_ids_with_image_tokens(
        ids,
        torch.ones_like(ids),
        ids.shape[1],
        llava.config.image_token_id,
        count,
        place.start,
        place.stop,
        pad_id(llava.config),
    )
    pixels = processor(image, return_tensors="pt").pixel_values
    states = llava(
        **{name: value.to(device) for name, value in expanded.items()},
        pixel_values=pixels.to(device, llava.dtype),
        output_hidden_states=True,
    ).hidden_states[LAYER]
    if not before:
        return states[:, :told]
    kept = torch.cat([torch.arange(before, start - ENDING), torch.arange(start, ids.shape[1])])
    text = states[:, (kept + count - 1).to(states.device)]
    return torch.cat([states[:, place][:, ::interleave], text], dim=1)


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    template: Mapping[str, Any] = TEMPLATE,
    rows: int = TEXT_TOKENS,
) -> tuple[Tensor, int]:
    """Return the tokens [1, n] of a prompt in its template, and the start of the template's last part.

    Too long prompts are truncated as published.

    Special tokens such as "<image>" are plain text inside the prompt. A truncated prompt has no last part;
    its end is where the assistant's turn would start.
    """
    before, after = template["template"].split("{}")
    said = tokenizer(prompt, add_special_tokens=False, split_special_tokens=True).input_ids
    first = tokenizer(before).input_ids if before else []
    ids = [*first, *said, *tokenizer(after, add_special_tokens=False).input_ids]
    length = template["crop_start"] + rows
    whole = len(ids) <= length
    return torch.tensor([ids[:length]]), (len(ids) - 1 if whole else length)


def pad_id(config: LlavaConfig) -> int:
    """Return the id of padding; the published config has it only at its top level."""
    own = getattr(config, "pad_token_id", None)
    return own if own is not None else config.get_text_config().pad_token_id


def encode_summary(
    tokenizer: PreTrainedTokenizerBase, clip: CLIPTextModel, prompt: str, *, device: torch.device
) -> Tensor:
    """Return the pooled CLIP embedding of a prompt [1, dim]."""
    ids = tokenizer(
        [prompt],
        max_length=CLIP_TOKENS,
        padding="max_length",
        padding_side="right",
        truncation=True,
        split_special_tokens=True,
        return_tensors="pt",
    ).input_ids
    return clip(ids.to(device)).pooler_output
