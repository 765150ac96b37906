"""Float8 matrix multiplication in a built transformer, on GPUs that support it.

Weights have one scale per output row, activations one per token, computed for every product. Layers that
users found sensitive are not converted: norms, embeddings, modulation, the head, and the first and last
block.
"""

from collections.abc import Iterator

import torch
from torch import nn

from videogen.errors import InputError
from videogen.runtime.memory import blocks
from videogen.runtime.precision import is_plain_linear
from videogen.tasks import capabilities

FLAG = "--float8_matmul"
UNIT = 16  # sizes of a float8 product must be multiples of it


def check(device: torch.device) -> None:
    """Refuse devices that do not multiply in float8.

    Raises:
        InputError: this one does not.
    """
    what = f"needs a GPU of compute capability {'.'.join(map(str, capabilities.FLOAT8))} or more"
    if device.type != "cuda":
        raise InputError(FLAG, None, f"{what}, not {device.type}", "leave it out")
    if (found := torch.cuda.get_device_capability(device)) < capabilities.FLOAT8:
        name = torch.cuda.get_device_name(device)
        raise InputError(FLAG, None, f"{what}; {name} has {'.'.join(map(str, found))}", "leave it out")


def convertible_layers(transformer: nn.Module) -> Iterator[tuple[nn.Module, list[str]]]:
    """Yield each block with the names of its layers that multiply in float8.

    The base layer of a LoRA is included, its two low-rank layers are not.
    """
    for block in blocks(transformer)[1:-1]:
        layers = {name: layer for name, layer in block.named_modules() if is_plain_linear(layer, name)}
        # Modulation layers belong to a norm.
        yield block, [name for name, layer in layers.items() if "norm" not in name and _fits(layer)]


def _fits(layer: nn.Linear) -> bool:
    return layer.in_features % UNIT == 0 and layer.out_features % UNIT == 0


def quantize(transformer: nn.Module, device: torch.device) -> None:
    """Convert the chosen layers to float8, one block at a time on the device.

    Raises:
        InputError: there are none.
    """
    from torchao import quantization  # noqa: PLC0415 - slow, and noisy

    found = [(block, set(names)) for block, names in convertible_layers(transformer) if names]
    if not found:
        what = "no layer of this model can multiply in float8 (its weights are float8 already, or few)"
        raise InputError(FLAG, None, what, "leave it out")
    for block, names in found:
        home = next(block.parameters()).device
        config = quantization.Float8DynamicActivationFloat8WeightConfig(granularity=quantization.PerRow())
        quantization.quantize_(block.to(device), config, lambda _, name, names=names: name in names)
        block.to(home)
