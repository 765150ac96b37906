"""HunyuanVideo's two text encoders: llava reads the prompt and the image, CLIP sums the prompt up.

Spec hunyuan section 7; the template and the expansion of image tokens are diffusers'.
"""

import torch
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_image2video import (
    DEFAULT_PROMPT_TEMPLATE as TEMPLATE,
)
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_image2video import (
    _expand_input_ids_with_image_tokens,
)
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextModel,
    LlavaConfig,
    LlavaModel,
    PreTrainedTokenizerBase,
)

BEFORE = TEMPLATE["crop_start"]  # tokens of the template before the prompt
IMAGE = slice(TEMPLATE["image_emb_start"], TEMPLATE["image_emb_end"])
IMAGE_TOKENS = TEMPLATE["image_emb_len"]
TEXT_TOKENS = 256
CLIP_TOKENS = 77
ENDING = 4  # tokens that end the user's turn and begin the assistant's
LAYER = -3  # of the hidden states
HEADERS = 3  # system, user, assistant


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    processor: CLIPImageProcessorPil,
    llava: LlavaModel,
    prompt: str,
    image: Image.Image,
    *,
    interleave: int,
    device: torch.device,
) -> Tensor:
    """Rows [1, T, dim] of an image and a prompt: every ``interleave``-th of the image's, then the text's.

    ``device`` is where llava computes; its weights may be elsewhere until then. Rows of padding are left out:
    nothing that is made depends on them.
    """
    length = BEFORE + TEXT_TOKENS
    given = tokenizer(
        [TEMPLATE["template"].format(prompt)],
        max_length=length,
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    )
    ids, mask = given.input_ids, given.attention_mask
    expanded = _expand_input_ids_with_image_tokens(
        ids,
        mask,
        length,
        llava.config.image_token_id,
        IMAGE_TOKENS,
        IMAGE.start,
        IMAGE.stop,
        pad_id(llava.config),
    )
    pixels = processor(image, return_tensors="pt").pixel_values
    states = llava(
        **{name: value.to(device) for name, value in expanded.items()},
        pixel_values=pixels.to(device, llava.dtype),
        output_hidden_states=True,
    ).hidden_states[LAYER]
    # Where the assistant's turn begins; a prompt that was cut off has none.
    headers = (ids[0] == tokenizer.convert_tokens_to_ids("<|end_header_id|>")).nonzero()[:, 0].tolist()
    start = headers[-1] + 1 if len(headers) >= HEADERS else length
    kept = torch.cat([torch.arange(BEFORE, start - ENDING), torch.arange(start, length)])
    kept = kept[mask[0, kept] > 0]
    text = states[:, (kept + IMAGE_TOKENS - 1).to(states.device)]
    return torch.cat([states[:, IMAGE][:, ::interleave], text], dim=1)


def pad_id(config: LlavaConfig) -> int:
    """Of padding; the published config has it at its top alone."""
    own = getattr(config, "pad_token_id", None)
    return own if own is not None else config.get_text_config().pad_token_id


def encode_summary(
    tokenizer: PreTrainedTokenizerBase, clip: CLIPTextModel, prompt: str, *, device: torch.device
) -> Tensor:
    """A prompt as one vector [1, dim]."""
    ids = tokenizer(
        [prompt], max_length=CLIP_TOKENS, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    return clip(ids.to(device)).pooler_output
