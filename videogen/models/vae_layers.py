"""VAE layers that need fewer passes or less memory than diffusers'; weights and results stay the same."""

from torch import nn

LAYERS: dict[type[nn.Module], type[nn.Module]] = {}
"""diffusers' layers, and ours for them: every family's own file adds its own."""


def register(*layers: type[nn.Module]) -> None:
    """Let every layer take the place of the one of diffusers that it is derived from."""
    LAYERS.update({layer.__mro__[1]: layer for layer in layers})


def use_fused_layers(vae: nn.Module) -> None:
    """Replace diffusers' layers in a VAE by ours."""
    for module in vae.modules():
        module.__class__ = LAYERS.get(type(module), type(module))
