"""Data sheets of the GPUs that are simulated: rates without sparsity, bandwidth, memory."""

from dataclasses import dataclass

import torch

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One kind of GPU; rates in FLOP per second, ``bandwidth`` and ``memory`` in bytes.

    Args:
        half: products in bfloat16 and float16, with sums in float32.
        tf32: products in float32 with TF32; ``single`` without.
        float8: products in float8; on cards without it, those of ``half``.
        link: bytes per second from pinned memory on the host.
    """

    name: str
    capability: tuple[int, int]
    memory: int
    bandwidth: float
    half: float
    tf32: float
    single: float
    float8: float
    link: float

    def rate(self, kind: str) -> float:
        """Return the rate of matrix products of a kind: 'half', 'tf32', 'single' or 'float8'."""
        return {"half": self.half, "tf32": self.tf32, "single": self.single, "float8": self.float8}[kind]

    def seconds(self, kind: str, flops: float, traffic: float) -> float:
        """Return how long a kernel takes at least: its products, or its traffic to and from memory."""
        return max(flops / self.rate(kind), traffic / self.bandwidth)


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(
            name="H100", capability=(9, 0), memory=80 * 10**9, bandwidth=3.35e12,
            half=989e12, tf32=494e12, single=67e12, float8=1979e12, link=50e9,
        ),
        Gpu(
            name="H200", capability=(9, 0), memory=141 * 10**9, bandwidth=4.8e12,
            half=989e12, tf32=494e12, single=67e12, float8=1979e12, link=50e9,
        ),
        Gpu(
            name="A100", capability=(8, 0), memory=80 * 10**9, bandwidth=2.04e12,
            half=312e12, tf32=156e12, single=19.5e12, float8=312e12, link=25e9,
        ),
        Gpu(
            name="4090", capability=(8, 9), memory=24 * 10**9, bandwidth=1.01e12,
            half=165e12, tf32=83e12, single=83e12, float8=330e12, link=25e9,
        ),
    )
}  # fmt: skip


def product_kind(name: str, dtype: torch.dtype) -> str:
    """Return which rate an operator computes at, by its name, its dtype, and whether TF32 is allowed now."""
    if dtype in FLOAT8:
        return "float8"
    if dtype in HALF:
        return "half"
    if name == "convolution":
        return "tf32" if torch.backends.cudnn.allow_tf32 else "single"
    return "tf32" if torch.get_float32_matmul_precision() != "highest" else "single"
