"""VAE setup: fused layers, decoding dtype and memory format of the weights."""

import torch
from torch import nn

from videogen.models.vae_layers import use_fused_layers

ORDERS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by dimensions of a convolution's weight


def prepare_vae(vae: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Prepare a VAE to run on ``device`` and decode in ``dtype``; the results stay the same.

    The encoder keeps its dtype, because its latents condition the whole video.
    """
    use_fused_layers(vae)
    for part in (vae.decoder, vae.post_quant_conv):
        part.to(dtype=dtype)
    if device.type == "cuda":
        order_channels_last(vae)


def order_channels_last(vae: nn.Module) -> None:
    """Convert the weight of every convolution to the channels-last memory format."""
    for parameter in vae.parameters():
        if parameter.ndim in ORDERS:
            parameter.data = parameter.data.contiguous(memory_format=ORDERS[parameter.ndim])
