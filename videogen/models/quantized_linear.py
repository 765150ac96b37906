"""Linear layers whose weights stay in the format of their file: float8, or a kind of GGUF.

Every product dequantizes its weight first, in float32, so that a run equals one on the dequantized
checkpoint to rounding, and the device holds the weights in their own size.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from videogen.checkpoints import gguf_files


class QuantizedLinear(nn.Linear):
    """Linear layer that computes in its input's dtype; the classes differ in how weights are stored."""

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in]."""
        raise NotImplementedError

    def forward(self, hidden_states: Tensor) -> Tensor:
        return functional.linear(hidden_states, self.dequantized(hidden_states.dtype), self.bias)


class ScaledLinear(QuantizedLinear):
    """Layer of HunyuanVideo's published float8 weights, scaled in the compute dtype (spec section 12)."""

    scale: Tensor

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in]."""
        return self.weight.to(dtype) * self.scale.to(dtype)


class Float8Linear(QuantizedLinear):
    """Layer with float8 weights, with or without a scale: one number, or one per row."""

    scale: Tensor | None

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in]."""
        return dequantize_float8(self.weight, self.scale).to(dtype)


class GgufLinear(QuantizedLinear):
    """Layer with the blocks of a GGUF file, as bytes."""

    format: str

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in]."""
        return dequantize_gguf(self.weight, self.format).to(dtype)


def dequantize_float8(stored: Tensor, scale: Tensor | None) -> Tensor:
    """Return float8 numbers in float32; a scale is for all, or for each row."""
    numbers = stored.to(torch.float32)
    if scale is None:
        return numbers
    scale, per_row = scale.to(numbers.device, torch.float32), (-1, *[1] * (numbers.ndim - 1))
    return numbers.mul_(scale.reshape(per_row if scale.numel() > 1 else ()))


def dequantize_gguf(stored: Tensor, name: str) -> Tensor:
    """Return the numbers of GGUF blocks [..., bytes] in float32, with diffusers' functions."""
    import gguf  # noqa: PLC0415 - for these files alone
    from diffusers.quantizers.gguf import utils  # noqa: PLC0415 - needs gguf

    kind = gguf.GGMLQuantizationType[name]
    per_block, size = gguf.GGML_QUANT_SIZES[kind]
    numbers = utils.dequantize_functions[kind](stored.reshape(-1, size), per_block, size, dtype=torch.float32)
    return numbers.reshape(*stored.shape[:-1], stored.shape[-1] // size * per_block)


def dequantize(stored: Tensor, dtype: str, scale: Tensor | None) -> Tensor:
    """Return the numbers that a tensor stands for, in float32; ``dtype`` is the file's name."""
    if dtype in gguf_files.QUANTIZED:
        return dequantize_gguf(stored, dtype)
    return dequantize_float8(stored, scale)


def install(layer: nn.Module, stored: Tensor, dtype: str, scale: Tensor | None) -> None:
    """Let a linear layer keep its weight as it is stored."""
    assert isinstance(layer, nn.Linear)
    layer.weight = nn.Parameter(stored, requires_grad=False)
    if dtype in gguf_files.QUANTIZED:
        layer.__class__ = GgufLinear
        layer.format = dtype  # type: ignore[assignment]
        return
    layer.__class__ = Float8Linear
    own = None if scale is None else scale.to(stored.device, torch.float32, copy=True)
    layer.register_buffer("scale", own)


def use_scale(layer: nn.Module, scale: Tensor) -> None:
    """Install the scale of a layer of HunyuanVideo's published float8 weights."""
    layer.__class__ = ScaledLinear
    layer.register_buffer("scale", scale.to(layer.get_parameter("weight").device, copy=True))


@contextmanager
def pretend_dtype(transformer: nn.Module) -> Iterator[None]:
    """Show quantized weights in the compute dtype and shape while adapters, which copy both, are created."""
    layers = [module for module in transformer.modules() if isinstance(module, QuantizedLinear)]
    weights = [layer.weight for layer in layers]
    try:
        for layer in layers:
            dtype = torch.get_default_dtype() if layer.bias is None else layer.bias.dtype
            shown = torch.empty(1, dtype=dtype, device=layer.weight.device)
            shown = shown.expand(layer.out_features, layer.in_features)
            layer.weight = nn.Parameter(shown, requires_grad=False)
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight = weight
