"""Prompts that are longer than their encoder reads: what of them is lost.

The tokenizer's own files are read, without torch and transformers, and only for texts long enough to matter.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from videogen.checkpoints.layouts import Checkpoint
from videogen.errors import brief
from videogen.tasks import config
from videogen.tasks.prompt_text import TextLimits

if TYPE_CHECKING:
    from tokenizers import Tokenizer

QUOTED = 60  # characters of the words that are lost
READERS = {"tokenizer": "the text encoder", "tokenizer_2": "the second text encoder"}


def cut_notes(limits: TextLimits, checkpoint: Checkpoint, texts: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for every text of which an encoder sees only the beginning.

    Args:
        limits: of the model's family.
        checkpoint: a model; nothing is known of one that is not on this machine.
        texts: what a message calls it -> text.
    """
    if checkpoint.folder is None:
        return
    for name, text in texts.items():
        lost = [
            found
            for part, most in limits.tokens.items()
            if (found := _lost(limits, checkpoint, part, most, text))
        ]
        if lost:
            yield f"{name} is too long: {'; '.join(lost)}"


def _lost(limits: TextLimits, checkpoint: Checkpoint, part: str, most: int, text: str) -> str | None:
    """Say what of a text one encoder does not see; None if it sees all of it."""
    if len(text.encode()) < most:  # no token is less than a byte, but the first, which may be a space
        return None
    text = limits.clean(text)
    tokenizer = _tokenizer(checkpoint.place(part))
    if tokenizer is None:
        return None
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    if len(offsets) <= most:
        return None
    begin = offsets[most][0]
    begin = text.rfind(" ", 0, begin + 1) + 1  # of the word that is cut
    words = text[begin:].strip()
    return f"{READERS[part]} reads {most} of its {len(offsets)} tokens, and not {brief(words, QUOTED)!r}"


@cache
def _tokenizer(place: Path) -> "Tokenizer | None":
    """Read a tokenizer's files; None if there are none that can be read so."""
    from tokenizers import Tokenizer, models  # noqa: PLC0415 - only for long texts

    try:
        if (place / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
        elif (place / "merges.txt").is_file():
            tokenizer = Tokenizer.from_str(json.dumps(config.read("clip_tokenizer")))
            tokenizer.model = models.BPE.from_file(
                str(place / "vocab.json"),
                str(place / "merges.txt"),
                end_of_word_suffix="</w>",
                unk_token="<|endoftext|>",
            )
        else:
            return None
    except Exception:  # of the library; loading the model says what is wrong
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
