"""VAE setup: fused layers, decoding dtype and memory format of the weights."""

import torch
from torch import nn

from videogen.models.hunyuan.vae_layers import IN_PARTS
from videogen.models.wan.vae_layers import FUSED

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


def use_fused_layers(vae: nn.Module) -> None:
    """Replace the layers of a VAE by ones that need fewer passes; weights and results stay the same."""
    layers = {**FUSED, **IN_PARTS}
    for module in vae.modules():
        module.__class__ = layers.get(type(module), type(module))


def order_channels_last(vae: nn.Module) -> None:
    """Convert the weight of every convolution to the channels-last memory format."""
    for parameter in vae.parameters():
        if parameter.ndim in ORDERS:
            parameter.data = parameter.data.contiguous(memory_format=ORDERS[parameter.ndim])
