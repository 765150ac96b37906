"""Which polynomial TeaCache uses for a model: the published tables, and how one is chosen.

Nothing here imports torch: the choice is made while arguments are checked. Source: spec skyreels_v2
section 10.
"""

import re
from dataclasses import dataclass
from pathlib import PurePath

from videogen.errors import InputError, nearest

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
    plain: tuple[float, ...]
    retained: tuple[float, ...]
    width: int | None = None

    def coefficients(self, use_ret_steps: bool) -> tuple[float, ...]:
        return self.retained if use_ret_steps else self.plain


# fmt: off
TABLES = (
    Table("I2V-540P", (-302.33167, 223.948934, -52.546397, 5.8734844, -0.201973289),
          (257151.496, -35422.9917, 1402.86849, -13.5890334, 0.132517977)),
    Table("I2V-720P", (-114.36346466, 65.26524496, -18.82220707, 4.91518089, -0.23412683),
          (8107.05460, 2133.93892, -372.934672, 16.6203073, -0.0417769401)),
    Table("T2V-1.3B", (2396.76752, -1311.10545, 201.331979, -8.29855975, 0.137887774),
          (-52186.2437, 9230.41404, -528.275948, 13.6987616, -0.0499875664), width=1536),
    Table("T2V-14B", (-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404),
          (-303318.725, 49053.7029, -2655.30556, 58.7365115, -0.315583525), width=5120),
)
# fmt: on
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
