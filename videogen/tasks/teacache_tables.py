"""Which polynomial TeaCache uses for a model: the published tables, and how one is chosen.

Nothing here imports torch: the choice is made while arguments are checked. Source: spec skyreels_v2
section 10.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from videogen.errors import InputError, nearest
from videogen.tasks import config

FLAG = "--teacache_model"
SNAPSHOT = re.compile(r"models--[^/\\]+?--([^/\\]+)[/\\]snapshots")  # in a Hugging Face cache


@dataclass(frozen=True, slots=True)
class Table:
    """Polynomials, highest power first, from the relative change of the signal to that of the result.

    Args:
        name: as ``--teacache_model`` takes it: what the network does, and a word of the model's name.
        plain: for the signal without ``--use_ret_steps``, the time embedding.
        retained: for the signal with it, the modulation.
        width: width D of the network where that tells it from the others.
    """

    name: str
    plain: Sequence[float]
    retained: Sequence[float]
    width: int | None = None

    def coefficients(self, use_ret_steps: bool) -> Sequence[float]:
        return self.retained if use_ret_steps else self.plain


TABLES = tuple(Table(name, **row) for name, row in config.read("teacache").items())
NAMES = tuple(table.name for table in TABLES)


def choose_table(asked: str | None, model: str, width: int | None, image: bool) -> Table:
    """Return the table of a model: as asked, else by its name, else by its width. Case does not matter.

    Image-conditioned models differ by resolution, all others by size.

    Args:
        asked: value of --teacache_model: a table's name, or any model id that contains its words.
        model: hub id, folder, or snapshot in a Hugging Face cache; its own name counts, no parent's.
        width: D of the transformer, if known.
        image: whether the network takes an image as condition (then it is no T2V or DF model).

    Raises:
        InputError: nothing fits, or more than one table does.
    """
    name = _own_name(model if asked is None else asked)
    i2v = "I2V" in name.upper() or (asked is None and image)
    kind = [table for table in TABLES if (table.width is None) == i2v]
    fits = [table for table in kind if table.name.split("-")[1] in name.upper()]
    if len(fits) != 1 and asked is None:
        fits = [table for table in kind if width is not None and table.width == width]
    if len(fits) == 1:
        return fits[0]
    words = [table.name for table in (kind if i2v else TABLES)]
    if asked is not None:
        what = f"must be one of {', '.join(NAMES)}, or a model id that contains such words"
        close = nearest(asked.upper(), words)
        raise InputError(FLAG, asked, what, f"nearest {close}" if close else f"for example {words[-1]}")
    looked = name if width is None else f"{name} (width {width})"
    what = f"needed with {looked}, which does not say what coefficients it takes"
    raise InputError(FLAG, None, what, f"give {', '.join(words[:-1])} or {words[-1]}, or such a model id")


def _own_name(model: str) -> str:
    """Return the last word of a hub id or path; for a snapshot that of its hub id."""
    found = SNAPSHOT.search(model)
    return found[1] if found else PurePath(model).name
