"""Float32 precision of matrix products, and the inner tensors of quantized weights.

Where which dtype is used, the components' table says.
"""

import torch
from torch import Tensor


def set_precision(device: torch.device, dtype: torch.dtype) -> None:
    """Set float32 products and convolutions to TF32 (beside half precision on a GPU) or exact.

    With a compute dtype of half precision float32 is for range and for sums, which TF32 has. With float32
    somebody wants to compare.
    """
    fast = device.type == "cuda" and dtype != torch.float32
    torch.set_float32_matmul_precision("high" if fast else "highest")
    torch.backends.cudnn.allow_tf32 = fast


def is_quantized(tensor: Tensor) -> bool:
    """Return True if a tensor represents numbers in another format, as torchao's do."""
    return hasattr(tensor, "__tensor_flatten__")


def inner_tensors(tensor: Tensor) -> list[str]:
    """Return the names of the attributes that hold a tensor's numbers: of a quantised one several."""
    return list(tensor.__tensor_flatten__()[0]) if is_quantized(tensor) else ["data"]  # type: ignore[attr-defined]
