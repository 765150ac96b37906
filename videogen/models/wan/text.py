"""Prompt encoding: cleaning, tokenization, UMT5. Spec skyreels_v3 section 3."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from videogen.tasks.prompt_text import clean_prompt

TEXT_ROWS = 512


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: nn.Module,
    prompt: str,
    device: torch.device,
    rows: int = TEXT_ROWS,
) -> Tensor:
    """Encode one prompt to [1, rows, text_dim]; padding rows are exactly zero, and are attended to as well.

    Prompts of more than ``rows - 1`` tokens are truncated (the last row is the end-of-sequence token).
    """
    tokens = tokenizer(
        [clean_prompt(prompt)],
        padding="max_length",
        max_length=rows,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    ids, mask = tokens.input_ids.to(device), tokens.attention_mask.to(device)
    hidden = text_encoder(ids, attention_mask=mask).last_hidden_state
    return hidden * mask.unsqueeze(-1).to(hidden)
