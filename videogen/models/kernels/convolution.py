"""3-D convolution with the fastest implementation for each device."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

POINT = (1, 1, 1)  # the kernel size of a product per pixel


def convolve(layer: nn.Conv3d, x: Tensor, padding: Sequence[int], *, biased: bool = True) -> Tensor:
    """Convolve ``x`` with the weights and strides of ``layer``; zeros are padded as asked for here.

    On a CPU torch uses its own code for inputs with few channels, which is up to ten times slower than
    oneDNN, so oneDNN is called directly. Without ``biased`` the caller adds the bias later.
    """
    bias = layer.bias if biased else None
    if _suits_onednn(layer, x):
        return torch.mkldnn_convolution(
            x, layer.weight, bias, padding, layer.stride, layer.dilation, layer.groups
        )
    x = x.contiguous() if x.device.type == "mps" else x  # MPS supports no other memory format for 5-D tensors
    return functional.conv3d(x, layer.weight, bias, layer.stride, padding, layer.dilation, layer.groups)


def _suits_onednn(layer: nn.Conv3d, x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == layer.weight.dtype == torch.float32
        and layer.kernel_size != POINT
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
    )


def has_hooks(layer: nn.Module) -> bool:
    """Return whether offloading, of accelerate or diffusers, has to see every call of a layer."""
    return hasattr(layer, "_hf_hook") or hasattr(layer, "_diffusers_hook")
