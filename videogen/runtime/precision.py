"""One policy for how exactly float32 is computed; where which dtype is used, the components' table says."""

import torch


def set_precision(device: torch.device, dtype: torch.dtype) -> None:
    """Products and convolutions in float32: TF32 on a GPU where it is beside bfloat16 or float16, else exact.

    With a compute dtype of half precision float32 is for range and for sums, which TF32 has. With float32
    somebody wants to compare.
    """
    fast = device.type == "cuda" and dtype != torch.float32
    torch.set_float32_matmul_precision("high" if fast else "highest")
    torch.backends.cudnn.allow_tf32 = fast
