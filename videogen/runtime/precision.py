"""How exactly float32 is computed, and what quantised tensors consist of.

Where which dtype is used, the components' table says.
"""

import torch
from torch import Tensor


def set_precision(device: torch.device, dtype: torch.dtype) -> None:
    """Products and convolutions in float32: TF32 on a GPU where it is beside bfloat16 or float16, else exact.

    With a compute dtype of half precision float32 is for range and for sums, which TF32 has. With float32
    somebody wants to compare.
    """
    fast = device.type == "cuda" and dtype != torch.float32
    torch.set_float32_matmul_precision("high" if fast else "highest")
    torch.backends.cudnn.allow_tf32 = fast


def is_quantized(tensor: Tensor) -> bool:
    """Whether a tensor stands for numbers in another format, as torchao's do."""
    return hasattr(tensor, "__tensor_flatten__")


def inner_tensors(tensor: Tensor) -> list[str]:
    """Return the names of the attributes that hold a tensor's numbers: of a quantised one several."""
    return list(tensor.__tensor_flatten__()[0]) if is_quantized(tensor) else ["data"]  # type: ignore[attr-defined]
