"""Chat models of the published classes at the size of a test: random weights, replies of plain ASCII."""

from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from videogen.models.tiny import byte_tokenizer

TEXT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VIDEO = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = (
    *("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
)


def tiny_chat_model(folder: Path, *, template: str | None = TEXT, tied: bool = False) -> Path:
    """A text chat model (Qwen2ForCausalLM); its replies are a few dozen random printable characters."""
    tokenizer = _tokenizer(template)
    config = Qwen2Config(vocab_size=len(tokenizer), tie_word_embeddings=tied, **_SIZES)
    return _save(Qwen2ForCausalLM, config, tokenizer, folder)


def tiny_captioner(folder: Path, *, template: str = VIDEO) -> Path:
    """A Qwen2.5-VL model; its replies are a few dozen random printable characters, so no JSON."""
    tokenizer = _tokenizer(template)
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad")}
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            **_SIZES,
        },
        vision_config={**vision, "fullatt_block_indexes": [1]},
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    return _save(Qwen2_5_VLForConditionalGeneration, config, tokenizer, folder)


_SIZES = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32768},
}


def _tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(list(SPECIAL), special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


def _save(factory, config, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = factory(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:  # large enough for every token of the prompt to matter
                torch.nn.init.normal_(parameter, std=2 * parameter[0].numel() ** -0.5)
    stop = tokenizer.convert_tokens_to_ids(".")
    written = {
        tokenizer.convert_tokens_to_ids(chr(code)) for code in range(33, 127)
    }  # no space, no line break
    model.generation_config = GenerationConfig(
        do_sample=True,
        eos_token_id=[stop],
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=[index for index in range(len(tokenizer)) if index not in written],
        exponential_decay_length_penalty=(24, 1.5),
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
