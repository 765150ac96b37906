"""TAEHV's decoder against numbers of the published code, and files that are none."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.faults.samples import torch_file
from videogen.checkpoints.tiny_autoencoder import DecoderSizes, check_tiny_autoencoder
from videogen.errors import CheckpointError, InputError
from videogen.models.tiny_decoder import TinyDecoder, load_tiny_decoder

# Of the published code (github.com/madebyollin/taehv, decode_video) with the weights and latents of
# ``weights_and_latents``: pixel (10, 20) of frames 0, 4 and 8, then mean and deviation of all.
PUBLISHED = {
    "taew2_1": (
        *(0.327342, 0.63529, 0.632506, 0.338275, 0.61817, 0.640501, 0.323069, 0.635895, 0.646831),
        *(0.534126, 0.133284),
    ),
    "taew2_2": (
        *(0.525267, 0.43456, 0.492268, 0.535463, 0.463822, 0.483412, 0.51514, 0.435467, 0.498994),
        *(0.496469, 0.038659),
    ),
}
SIZES = {
    "taew2_1": DecoderSizes(channels=16, patch=1, growth=(1, 2, 2)),
    "taew2_2": DecoderSizes(channels=48, patch=2, growth=(1, 2, 2)),
}


def weights_and_latents(name):
    """Draw the weights of a decoder, in the order of their names, and then latents."""
    draw, weights = torch.Generator().manual_seed(5), {}
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in TinyDecoder(SIZES[name]).state_dict().items()}
    for key in sorted(shapes):
        scale = torch.Size(shapes[key][1:]).numel() ** -0.5 if len(shapes[key]) > 1 else 0.1
        weights[key] = torch.randn(shapes[key], generator=draw) * scale
    weights["decoder.22.weight"] *= 0.05
    weights["decoder.22.bias"] += 0.5
    return weights, torch.randn((1, SIZES[name].channels, 3, 4, 6), generator=draw) * 2


@pytest.mark.parametrize(("name", "suffix"), [("taew2_1", ".pth"), ("taew2_2", ".safetensors")])
def test_it_equals_the_published_decoder(tmp_path, name, suffix):
    weights, latents = weights_and_latents(name)
    file, encoder = tmp_path / f"{name}{suffix}", {"encoder.0.weight": torch.zeros(64, 3, 3, 3)}
    write = torch.save if suffix == ".pth" else save_file
    write({**weights, **encoder}, file)
    check_tiny_autoencoder(file, str(file), SIZES[name].channels)
    frames = torch.stack(list(load_tiny_decoder(file, torch.device("cpu")).frames(latents)))
    side = 8 * SIZES[name].patch
    assert frames.shape == (9, 3, 4 * side, 6 * side)
    found = [*frames[[0, 4, 8], :, 10, 20].flatten().tolist(), float(frames.mean()), float(frames.std())]
    assert np.abs(np.subtract(found, PUBLISHED[name])).max() < 1e-5


def test_it_is_for_its_own_latents(tmp_path):
    shapes = {key: tuple(tensor.shape) for key, tensor in TinyDecoder(SIZES["taew2_1"]).state_dict().items()}
    kept = {key: shape for key, shape in shapes.items() if max(shape) < 256}  # sizes that the writer knows
    other = torch_file(tmp_path / "other.pth", kept)
    with pytest.raises(CheckpointError, match="no decoder of TAEHV's published layout"):
        check_tiny_autoencoder(other, "other.pth", 16)
    save_file(TinyDecoder(SIZES["taew2_1"]).state_dict(), tmp_path / "taew2_1.safetensors")
    with pytest.raises(CheckpointError, match=r"of 16 channels, and the model's have 48; docs/progress"):
        check_tiny_autoencoder(tmp_path / "taew2_1.safetensors", "taew2_1.safetensors", 48)
    with pytest.raises(InputError, match=r"no such file; nearest .*taew2_1\.safetensors"):
        check_tiny_autoencoder(tmp_path / "taew21.safetensors", "taew21.safetensors", 16)
