"""What is meant by flags that other programs have: by meaning first, then by spelling."""

from functools import cache

from videogen.errors import nearest
from videogen.tasks import config
from videogen.tasks.options import FLAG_NAMES

SHORTEST = 2  # letters; shorter words are like everything
# Words behind a name that say no more than the name.
TAILS = (
    *("path", "file", "name", "value", "id", "info", "out", "output", "model", "wh", "scale", "strength"),
    *("weight", "low", "high", "option", "mode"),
)


@cache
def synonyms() -> dict[str, str]:
    """Return word -> what to use instead."""
    return {word: advice for advice, words in config.read("hints").items() for word in words.split()}


def option_named(spelling: str) -> str | None:
    """Return the name of the option that a flag, key or column names, with dashes or without."""
    return FLAG_NAMES.get(spelling.lstrip("-").replace("-", "_"))


def hint(flag: str) -> str | None:
    """Return what an unknown flag or key may have meant, as advice; None where nothing is like it."""
    name = flag.lstrip("-").lower().replace("-", "_")
    dashes = "--" if flag.startswith("-") else ""
    head, _, tail = name.rpartition("_")
    for meant in (name, head) if tail in TAILS else (name,):
        if advice := synonyms().get(meant):
            return f"use {advice}"
        if meant in FLAG_NAMES:
            return f"nearest {dashes}{meant}"
    if name.startswith("no_") and name[3:] in FLAG_NAMES:
        return f"leave {dashes}{name[3:]} out"
    if len(name) <= SHORTEST:
        return None
    if close := nearest(name, FLAG_NAMES):
        return f"nearest {dashes}{close}"
    close = nearest(
        name, (word for word in synonyms() if len(word) > SHORTEST and abs(len(word) - len(name)) < 3)
    )
    return f"use {synonyms()[close]}" if close else None
