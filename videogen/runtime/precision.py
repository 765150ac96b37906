"""Float32 precision of matrix products, and the inner tensors of quantized weights.

The table of components gives the dtype of each part.
"""

from typing import TypeGuard

import torch
from torch import Tensor, nn


def set_precision(device: torch.device, dtype: torch.dtype) -> None:
    """Set float32 products and convolutions to TF32 (beside half precision on a GPU) or exact.

    With a half-precision compute dtype, float32 is used for range and sums, for which TF32 is enough. With
    float32, results are meant to be compared.
    """
    fast = device.type == "cuda" and dtype != torch.float32
    torch.set_float32_matmul_precision("high" if fast else "highest")
    torch.backends.cudnn.allow_tf32 = fast


def is_quantized(tensor: Tensor) -> bool:
    """Return True if a tensor represents numbers in another format, as torchao's do."""
    return hasattr(tensor, "__tensor_flatten__")


def is_plain_linear(layer: nn.Module, name: str) -> TypeGuard[nn.Linear]:
    """Return True for a linear layer that may be quantized: not yet quantized, and no layer of a LoRA."""
    return type(layer) is nn.Linear and "lora_" not in name and not is_quantized(layer.weight)


def inner_tensors(tensor: Tensor) -> list[str]:
    """Return the names of the attributes that hold a tensor's numbers: of a quantised one several."""
    return list(tensor.__tensor_flatten__()[0]) if is_quantized(tensor) else ["data"]  # type: ignore[attr-defined]
