"""The attention kernels and dtypes there are, by name; needs no torch."""

from dataclasses import dataclass
from typing import NamedTuple

from videogen.tasks import config
from videogen.tasks.config import Config


class Package(NamedTuple):
    """A module that is not always installed, and how to get it."""

    module: str
    how: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionKernel:
    """A kernel of ``--attention_backend``, or one that only 'auto' takes.

    Args:
        name: diffusers' name of it.
        option: what the flag calls it.
        sdpa: torch's name of it, where it is one of torch's own.
        package: that it needs, where torch does not have it itself.
        in_ring: whether it says how much weight its result has, by which the parts of a ring are put
            together; "native" does so on the CPU alone.
        largest_error: relative error of a row of its result that is accepted. bfloat16 gives 0.3 %; attending
            to a tile of padding gives 30 %.
    """

    name: str
    option: str | None = None
    sdpa: str | None = None
    package: Package | None = None
    in_ring: bool = False
    largest_error: float = 0.01


def _kernel(name: str, facts: Config) -> AttentionKernel:
    package = Package(*facts["package"]) if "package" in facts else None
    return AttentionKernel(**{**facts, "name": name, "package": package})


ATTENTION_KERNELS = {name: _kernel(name, facts) for name, facts in config.read("attention_kernels").items()}
BACKENDS = {kernel.option: kernel.name for kernel in ATTENTION_KERNELS.values() if kernel.option}
"""Value of ``--attention_backend`` -> diffusers' name."""


@dataclass(frozen=True, slots=True)
class Dtype:
    """A dtype of weights: its short name, and the bytes of a number."""

    short: str
    bytes: int


DTYPES = {"bfloat16": Dtype("bf16", 2), "float16": Dtype("fp16", 2), "float32": Dtype("fp32", 4)}
"""torch's name -> what is true of it."""
