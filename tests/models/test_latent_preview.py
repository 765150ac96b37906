"""Linear maps from latents to colours: which one is used, and how a fitted one does."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from benchmarks.fit_preview import correlation, fit, videos
from videogen.errors import CheckpointError
from videogen.models.latent_preview import LinearDecoder, linear_decoder, small
from videogen.tasks import config

WAN21 = {"z_dim": 16, "latents_mean": (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745)}
WAN22 = {"z_dim": 48, "latents_mean": config.read("residual_vae")["latents_mean"]}
HUNYUAN = {"latent_channels": 16, "scaling_factor": 0.476986}


@pytest.mark.parametrize(
    ("vae", "name"), [(WAN21, "Wan2.1"), (WAN22, "Wan2.2 5B"), (HUNYUAN, "HunyuanVideo")]
)
def test_statistics_tell_the_table(vae, name):
    decoder = linear_decoder(vae, None)
    assert decoder.factors.tolist() == torch.tensor(config.read("previews")[name]["factors"]).tolist()
    assert linear_decoder({**vae, "latents_mean": [0.0] * 4, "scaling_factor": 1.0}, None) is None


def test_a_table_in_the_model_folder_goes_first(tmp_path):
    file = tmp_path / "preview.json"
    file.write_text(json.dumps({"factors": [[1, 0, 0]] + [[0, 0, 0]] * 15, "bias": [0, 0, 0]}))
    latents = torch.zeros(1, 16, 2, 3, 5)
    latents[:, 0, 1] = 2.0
    first, second = linear_decoder(WAN21, tmp_path).frames(latents)
    assert first.shape == (3, 3, 5)
    assert first.unique().tolist() == [0.5]
    assert second[:, 0, 0].tolist() == [1.0, 0.5, 0.5]  # held at white
    for content, what in (
        ({"factors": [[1, 2, 3]], "bias": [0, 0, 0]}, r"factors \[1, 3\].*expected \[16, 3\]"),
        ({"factors": [[1, 2], [3]], "bias": [0]}, "must hold 'factors' and 'bias'"),
        ({}, "must hold"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=what):
            linear_decoder(WAN21, tmp_path)


def test_frames_become_small_pictures():
    frames = small(iter([torch.full((3, 60, 104), 0.6), torch.full((3, 60, 104), float("nan"))]))
    assert (frames.shape, frames.dtype) == ((2, 148, 256, 3), torch.uint8)
    assert frames.flatten(1).unique(dim=1)[:, 0].tolist() == [153, 0]
    assert small(iter([torch.zeros(3, 720, 1280)])).shape == (1, 144, 256, 3)


class FoldedVae:
    """A VAE with structure: blocks of pixels and what is in them, mixed, bent and normalized."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(3)
        self.mixing = torch.linalg.qr(torch.randn(12, 12, generator=draw))[0]
        self.config = {"latents_mean": [0.1] * 12, "latents_std": [0.5] * 12}

    def encode(self, frames):
        first = frames[:, :, :1].repeat_interleave(4, dim=2)
        halves = functional.avg_pool3d(torch.cat([first, frames[:, :, 1:]], dim=2), (4, 4, 4))
        folded = functional.pixel_unshuffle(halves[0].transpose(0, 1), 2)
        latents = torch.einsum("ij,fjhw->ifhw", self.mixing, folded)[None]
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: torch.tanh(latents)))

    def decode(self, latents):
        bent = torch.atanh(latents.clamp(-0.999, 0.999))[0]
        halves = functional.pixel_shuffle(torch.einsum("ji,jfhw->fihw", self.mixing, bent), 2)
        frames = functional.interpolate(halves, scale_factor=4).transpose(0, 1)[None]
        return SimpleNamespace(sample=frames.repeat_interleave(4, dim=2)[:, :, 3:])


def test_a_fitted_table_shows_what_the_vae_decodes():
    vae = FoldedVae()
    decoder = fit(vae, videos(0, 12, 5, 64))
    others = videos(1, 6, 5, 64)
    assert correlation(vae, decoder, others) > 0.8
    shuffled = LinearDecoder(decoder.factors.roll(1, 0), decoder.bias)
    assert correlation(vae, shuffled, others) < 0.8


@pytest.mark.parametrize("key", ["factors", "bias"])
def test_odd_tables_are_refused(tmp_path, key):
    odd = (None, True, -1, 1.5, float("inf"), "many", "", [], [[2]], {}, [1] * 10**4)
    odd += ([[[1]] * 3] * 16, [["a"] * 3] * 16, [[10**400] * 3] * 16, [[None] * 3] * 16)
    for value in odd:
        table = {"factors": [[0.0] * 3] * 16, "bias": [0.0] * 3, key: value}
        (tmp_path / "preview.json").write_text(json.dumps(table))
        with pytest.raises(CheckpointError) as refused:
            linear_decoder(WAN21, tmp_path)
        assert len(str(refused.value)) < 1000
