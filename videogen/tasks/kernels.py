"""The attention kernels and dtypes there are, by name; needs no torch."""

from dataclasses import dataclass
from typing import NamedTuple


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


ATTENTION_KERNELS = {
    kernel.name: kernel
    for kernel in (
        AttentionKernel(option="native", name="native"),  # torch chooses
        AttentionKernel(option="cudnn", name="_native_cudnn", sdpa="CUDNN_ATTENTION", in_ring=True),
        AttentionKernel(
            option="flash",
            name="flash",
            package=Package("flash_attn", "pip install flash-attn --no-build-isolation"),
            in_ring=True,
        ),
        AttentionKernel(
            option="flash3",
            name="_flash_3",
            package=Package(
                "flash_attn_interface",
                "build flash-attention 3 (hopper/ of github.com/Dao-AILab/flash-attention)",
            ),
        ),
        AttentionKernel(
            option="sage",
            name="sage",
            package=Package(
                "sageattention", "build sageattention 2.1.1 or newer (github.com/thu-ml/SageAttention)"
            ),
            in_ring=True,
            largest_error=0.15,
        ),
        AttentionKernel(
            option="xformers", name="xformers", package=Package("xformers", "pip install xformers")
        ),
        AttentionKernel(name="_native_flash", sdpa="FLASH_ATTENTION", in_ring=True),
        AttentionKernel(name="_native_efficient", sdpa="EFFICIENT_ATTENTION"),
        AttentionKernel(name="_native_math", sdpa="MATH"),
    )
}
BFLOAT16_CAPABILITY, FLOAT8_CAPABILITY = (8, 0), (8, 9)
"""Compute capabilities from which NVIDIA's GPUs calculate in these."""
BACKENDS = {kernel.option: kernel.name for kernel in ATTENTION_KERNELS.values() if kernel.option}
"""Value of ``--attention_backend`` -> diffusers' name."""


@dataclass(frozen=True, slots=True)
class Dtype:
    """A dtype of weights: its short name, and the bytes of a number."""

    short: str
    bytes: int


DTYPES = {"bfloat16": Dtype("bf16", 2), "float16": Dtype("fp16", 2), "float32": Dtype("fp32", 4)}
"""torch's name -> what is true of it."""
