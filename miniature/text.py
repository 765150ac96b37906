"""The miniature's text encoder: words as tokens, and a UMT5 of two layers."""

import itertools
import re

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from miniature import world
from videogen.models.tiny import SPECIAL, ended_tokenizer

WIDTH = 96


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose tokens are the words of all captions, and signs."""
    texts = itertools.chain(
        world.SHAPES,
        world.COLOURS,
        world.GROUNDS,
        *world.SKY_WORDS.values(),
        *world.MOTION_WORDS.values(),
        *world.CAMERA_WORDS.values(),
        ["a an the object over , ."],
    )
    words = dict.fromkeys(word for text in texts for word in re.findall(r"\w+|[^\w\s]", text))
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return ended_tokenizer(tokenizer)


def text_encoder(vocabulary: int) -> UMT5EncoderModel:
    """Return the encoder with fresh weights."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocabulary,
            d_model=WIDTH,
            d_kv=24,
            d_ff=2 * WIDTH,
            num_heads=4,
            num_layers=2,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
        )
    )
