"""HunyuanVideo at laptop size; the numbers are in ``configs/tiny``."""

import re

from diffusers import HunyuanVideoTransformer3DModel
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaModel,
    PreTrainedTokenizerFast,
)

from videogen.models.hunyuan.components import COMPONENTS
from videogen.models.hunyuan.text import TEMPLATE
from videogen.models.tiny import TinyParts, byte_tokenizer
from videogen.tasks.config import Config

HEADERS, IMAGE = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<image>"
LLAMA3_WORDS = (  # the regular expression of Llama 3's tokenizer
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def parts(sizes: Config) -> TinyParts:
    """Return the parts of a tiny model."""
    words, letters = template_tokenizer(), byte_tokenizer()
    image, pad = words.convert_tokens_to_ids([IMAGE, "<pad>"])
    llava = LlavaConfig(
        text_config=LlamaConfig(vocab_size=len(words), pad_token_id=pad, **sizes["llava"]["text"]),
        vision_config=CLIPVisionConfig(**sizes["llava"]["vision"]),
        image_token_id=image,
        pad_token_id=pad,
    )
    ends = {"vocab_size": len(letters), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
    side = sizes["llava"]["vision"]["image_size"]
    modules = {
        "transformer": HunyuanVideoTransformer3DModel(**sizes["transformer"]),
        "vae": COMPONENTS["hunyuan_vae"].make(sizes["vae"]),
        "text_encoder": LlavaModel(llava),
        "text_encoder_2": COMPONENTS["clip_text"].make({**sizes["clip_text"], **ends}),
    }
    beside = {
        "tokenizer": words,
        "tokenizer_2": letters,
        "image_processor": CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=side),
    }
    return TinyParts(modules, beside, "HunyuanVideoImageToVideoPipeline")


def template_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with whole words for HunyuanVideo's template and bytes for everything else.

    So the template has the length that its published offsets assume.
    """
    split = pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    before = pre_tokenizers.Sequence([split, as_bytes])
    headers = ("<|begin_of_text|>", "<|end_of_text|>", *HEADERS, IMAGE, "<pad>")
    plain = [text for text in re.split("|".join(map(re.escape, headers)), TEMPLATE["template"]) if text]
    words = sorted({word for text in plain for word, _ in before.pre_tokenize_str(text.replace("{}", ""))})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(dict.fromkeys((*headers, *alphabet, *words)))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = before
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(headers))
    begin = headers[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, vocab[begin])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, pad_token="<pad>", padding_side="right"
    )
