"""Files of TAEHV, the tiny autoencoders that decode previews, as published (taew2_1, taew2_2, taehv)."""

from dataclasses import dataclass
from math import isqrt, prod
from pathlib import Path

from videogen.checkpoints.replacements import check_file
from videogen.checkpoints.stored_tensors import component_shapes
from videogen.checkpoints.tensor_headers import Shape
from videogen.errors import CheckpointError
from videogen.tasks.geometry import TIME_STRIDE

FLAG = "--vae_preview"
WIDTHS = (256, 128, 64, 64)  # of the decoder's convolutions, coarse to fine
FIRST, LAST = "decoder.1.weight", "decoder.22.weight"
GROWING = ("decoder.7.conv.weight", "decoder.13.conv.weight", "decoder.19.conv.weight")


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSizes:
    """What tells the published decoders apart.

    Args:
        channels: of the latents.
        patch: pixels of the picture's side that the last convolution makes at a time.
        growth: frames that each of the three stages makes of one.
    """

    channels: int
    patch: int
    growth: tuple[int, ...]


def check_tiny_autoencoder(path: Path, given: str, channels: int) -> None:
    """Refuse what is no tiny autoencoder for latents with so many channels.

    Raises:
        InputError: no such file.
        CheckpointError: another network, or one for other latents.
    """
    check_file(FLAG, path, given)
    found = decoder_sizes(path, component_shapes(path))
    if found.channels != channels:
        what = f"is for latents of {found.channels} channels, and the model's have {channels}"
        fix = "docs/progress.md says which is for which model"
        raise CheckpointError(f"{FLAG} {given}: {what}; {fix}")


def decoder_sizes(path: Path, shapes: dict[str, Shape]) -> DecoderSizes:
    """Return the sizes of the decoder with tensors of these shapes.

    Raises:
        CheckpointError: they are of another network.
    """
    try:
        (width, channels, *_), (colours, *_) = shapes[FIRST], shapes[LAST]
        growth = tuple(shapes[name][0] // shapes[name][1] for name in GROWING)
        patch = isqrt(colours // 3)
        if width != WIDTHS[0] or colours != 3 * patch**2 or prod(growth) != TIME_STRIDE:
            raise ValueError
    except (KeyError, ValueError, IndexError, ZeroDivisionError):
        what = "holds no decoder of TAEHV's published layout; use taew2_1, taew2_2 or taehv"
        raise CheckpointError(f"{FLAG} {path}: {what} (.pth or .safetensors)") from None
    return DecoderSizes(channels=channels, patch=patch, growth=growth)
