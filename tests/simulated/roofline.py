"""From counted kernels to parts of a network, and to the time they take at least on a GPU.

A kernel takes as long as its products at the GPU's full rate, or as its traffic at full bandwidth,
whichever is longer. Real kernels reach a part of either; what the roofline can judge is how far elementwise
passes keep a forward from the time that its products alone would take.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tests.simulated.gpus import Gpu
from tests.simulated.ledger import Kernel, Ledger

# The first pattern that is found in "operator | functions it was called from" names the part.
PARTS = (
    ("attention", r"^(_scaled_dot|_flash|_efficient)"),
    ("products", r"^(mm|addmm|bmm|baddbmm|_scaled_mm|linear)\b"),
    ("convolutions", r"^(convolution|copy for a convolution)"),
    ("rotary", r"rotary|rotate|rms_norm_rotary"),
    ("attention copies", r"^(clone|_to_copy|copy_|contiguous).*(attend|attention|Attn|Attention)"),
    ("norms", r"[Nn]orm|modulat"),
    ("residuals", r"residual|gated_add"),
    ("activation", r"^(gelu|silu|relu|tanh|sigmoid)|FeedForward"),
    ("padding and joins", r"^(constant_pad_nd|cat|stack|repeat)"),
)
PRODUCTS = ("attention", "products", "convolutions")


@dataclass(frozen=True, slots=True)
class Work:
    """Of several kernels together: how many, FLOPs, bytes to and from memory, seconds at least.

    ``limit`` are the seconds that the products alone take.
    """

    kernels: int = 0
    flops: float = 0.0
    traffic: int = 0
    seconds: float = 0.0
    limit: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.kernels + other.kernels,
            self.flops + other.flops,
            self.traffic + other.traffic,
            self.seconds + other.seconds,
            self.limit + other.limit,
        )

    def times(self, count: float) -> "Work":
        return Work(
            round(self.kernels * count),
            self.flops * count,
            round(self.traffic * count),
            self.seconds * count,
            self.limit * count,
        )


def part_of(kernel: Kernel) -> str:
    """Return the part of a network that a kernel belongs to."""
    words = f"{kernel.name} | {kernel.functions}"
    return next((part for part, pattern in PARTS if re.search(pattern, words)), "rest")


def work_by(
    kernels: Mapping[Kernel, int], gpu: Gpu, key: Callable[[Kernel], str] = part_of
) -> dict[str, Work]:
    """Return the work of each part (or of whatever ``key`` says), the longest first."""
    found: defaultdict[str, Work] = defaultdict(Work)
    for kernel, count in kernels.items():
        seconds = gpu.seconds(kernel.rate, kernel.flops, kernel.traffic)
        limit = kernel.flops / gpu.rate(kernel.rate)
        found[key(kernel)] += Work(1, kernel.flops, kernel.traffic, seconds, limit).times(count)
    return dict(sorted(found.items(), key=lambda item: -item[1].seconds))


def total(works: Iterable[Work]) -> Work:
    """Return the sum."""
    return sum(works, Work())


def select(ledger: Ledger, phase: str, step: int | None = None) -> dict[Kernel, int]:
    """Return the kernels of a phase, or of one forward in it."""
    return {
        kernel: count
        for kernel, count in ledger.kernels.items()
        if kernel.phase == phase and step in (None, kernel.step)
    }


def elementwise(works: Mapping[str, Work]) -> int:
    """Return the traffic of everything that is no product."""
    return sum(work.traffic for part, work in works.items() if part not in PRODUCTS)
