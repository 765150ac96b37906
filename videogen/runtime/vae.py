"""How a VAE works, set from outside: with which layers, in which dtype, with its weights in which order."""

import torch
from torch import nn

from videogen.models.hunyuan.vae_layers import IN_PARTS
from videogen.models.wan.vae_layers import FUSED

ORDERS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by dimensions of a convolution's weight


def prepare_vae(vae: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Set a VAE up for work on ``device``, decoding in ``dtype``; what it computes stays the same.

    Encoding, which a video is built on, keeps its dtype.
    """
    use_fused_layers(vae)
    for part in (vae.decoder, vae.post_quant_conv):
        part.to(dtype=dtype)
    if device.type == "cuda":
        order_channels_last(vae)


def use_fused_layers(vae: nn.Module) -> None:
    """Let the layers of a VAE compute the same in fewer passes, with the same weights."""
    layers = {**FUSED, **IN_PARTS}
    for module in vae.modules():
        module.__class__ = layers.get(type(module), type(module))


def order_channels_last(vae: nn.Module) -> None:
    """Let the channels of every convolution's weight lie side by side."""
    for parameter in vae.parameters():
        if parameter.ndim in ORDERS:
            parameter.data = parameter.data.contiguous(memory_format=ORDERS[parameter.ndim])
