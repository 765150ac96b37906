"""Formats of --quantize: transformer weights in 8 or 4 bits, made with torchao when they are loaded.

Activations keep their dtype. Layers outside of the blocks (few weights, and much of the error), layers that
are float32 whatever the dtype, and those that a file holds quantized already, stay as they are.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from videogen.models.quantized_linear import QuantizedLinear
from videogen.runtime.memory import convert_blocks
from videogen.runtime.precision import is_plain_linear

GROUPS = (32, 16)  # weights of a row that share a scale in 4 bits; the first that divides the row


def quantize(transformer: nn.Module, device: torch.device, name: str) -> None:
    """Quantize the linear layers of a transformer's blocks, one at a time on the device."""
    exact = tuple(getattr(transformer, "_keep_in_fp32_modules", None) or ())

    def convert(block: nn.Module) -> None:
        layers = [
            layer
            for place, layer in block.named_modules()
            if is_plain_linear(layer, place) and not any(part in exact for part in place.split("."))
        ]
        if name == "int4":
            _to_int4(layers)
        else:
            _to_8_bits(layers, name)

    convert_blocks(transformer, device, convert, rest=False)


def _to_8_bits(layers: Iterable[nn.Linear], name: str) -> None:
    """Quantize to int8 or float8, with a scale per row."""
    from torchao import quantization  # noqa: PLC0415 - slow, and noisy

    config = {"int8": quantization.Int8WeightOnlyConfig, "float8": quantization.Float8WeightOnlyConfig}[name]
    for layer in layers:
        quantization.quantize_(layer, config())


def _to_int4(layers: Iterable[nn.Linear]) -> None:
    """Quantize to 4 bits, two weights in a byte; torchao's own packing needs kernels of few GPUs."""
    from torchao import quantization  # noqa: PLC0415 - slow, and noisy
    from torchao.quantization.granularity import PerGroup  # noqa: PLC0415

    for layer in layers:
        group = next((size for size in GROUPS if layer.in_features % size == 0), None)
        if group is None:
            continue
        dtype = getattr(torch, "int4")  # noqa: B009 - type stubs do not know it
        config = quantization.IntxWeightOnlyConfig(weight_dtype=dtype, granularity=PerGroup(group))
        quantization.quantize_(layer, config)
        quantized = cast(Any, layer.weight)
        numbers, scale = quantized.qdata, quantized.scale
        pairs = (numbers + 8).to(torch.uint8).unflatten(1, (-1, 2))
        layer.weight = nn.Parameter(pairs[..., 0] | pairs[..., 1] << 4, requires_grad=False)
        layer.register_buffer("scale", scale.to(torch.bfloat16).reshape(layer.out_features, -1))
        layer.__class__ = Int4Linear


class Int4Linear(QuantizedLinear):
    """Layer with two weights in a byte, the first in the lower bits, and a scale per group of a row."""

    scale: Tensor

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in]."""
        numbers = torch.stack([self.weight & 15, self.weight >> 4], dim=-1).flatten(1)
        grouped = (numbers.to(torch.float32) - 8).unflatten(1, (self.scale.shape[1], -1))
        return (grouped * self.scale.to(torch.float32)[..., None]).flatten(1).to(dtype)
