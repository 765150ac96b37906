"""How a VAE decodes, set from outside: in which dtype, and with its weights in which order."""

import torch
from torch import distributed, nn

ORDERS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by dimensions of a convolution's weight


def prepare_decode(vae: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Set a VAE up for decoding in ``dtype``; encoding, which a video is built on, stays as it is.

    On one GPU the weights are put in the order that its convolutions are fastest with (several have less to
    do each, and lose by it).
    """
    for part in (vae.decoder, vae.post_quant_conv):
        part.to(dtype=dtype)
    alone = not (distributed.is_available() and distributed.is_initialized())
    if device.type == "cuda" and alone:
        order_channels_last(vae)


def order_channels_last(vae: nn.Module) -> None:
    """Let the channels of every convolution's weight lie side by side."""
    for parameter in vae.parameters():
        if parameter.ndim in ORDERS:
            parameter.data = parameter.data.contiguous(memory_format=ORDERS[parameter.ndim])
