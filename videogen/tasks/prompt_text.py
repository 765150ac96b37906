"""Prompts as text: how they are cleaned, and how much of them an encoder sees."""

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass


def clean_prompt(prompt: str) -> str:
    """Repair encoding errors, resolve HTML entities (twice), collapse whitespace (spec skyreels_v3)."""
    import ftfy  # noqa: PLC0415 - this module is loaded at start-up

    repaired = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", repaired.strip()).strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLimits:
    """How much of a prompt the encoders of a family see.

    Args:
        tokens: tokenizer -> tokens of a prompt, without those that begin and end it.
        clean: what is done to a prompt before.
    """

    tokens: Mapping[str, int]
    clean: Callable[[str], str] = str
