"""The VAE over a whole clip at once gives what the library gives chunk by chunk."""

import pytest
import torch
from diffusers import AutoencoderKLWan

from miniature.train_vae import initialize
from miniature.whole_clip import decode, encode


@pytest.fixture(autouse=True)
def _eager():
    """Compile nothing: that takes seconds, and only a training gains by it."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    made = AutoencoderKLWan(base_dim=8)
    for parameter in made.parameters():
        std = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        torch.nn.init.normal_(parameter, std=std)
    return made.eval()


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 5, 13])
def test_both_ways_agree(vae, frames):
    video = torch.rand(2, frames, 32, 48, 3) * 2 - 1
    posterior = vae.encode(video.movedim(-1, 1)).latent_dist
    mean, log_variance = encode(vae, video)
    torch.testing.assert_close(mean, posterior.mean.movedim(1, -1), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(log_variance, posterior.logvar.movedim(1, -1), atol=2e-5, rtol=1e-4)
    made = vae.decode(posterior.mean).sample.movedim(1, -1)
    torch.testing.assert_close(decode(vae, mean).clamp(-1, 1), made, atol=2e-5, rtol=1e-4)


def test_gradients_reach_every_weight(vae):
    video = torch.rand(1, 9, 32, 48, 3)
    mean, log_variance = encode(vae, video)
    (decode(vae, mean).square().mean() + log_variance.square().mean()).backward()
    lacking = [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    vae.zero_grad()
    assert lacking == []


@torch.no_grad()
def test_a_training_begins_with_frames_that_are_alone():
    torch.manual_seed(1)
    vae = AutoencoderKLWan(base_dim=8)
    initialize(vae)
    video = torch.rand(1, 9, 32, 48, 3) * 2 - 1
    mean, _ = encode(vae, video)
    alone = torch.cat([encode(vae, video[:, frame : frame + 1])[0] for frame in (0, 4, 8)], dim=1)
    torch.testing.assert_close(mean, alone, atol=1e-5, rtol=1e-4)
    still = [decode(vae, mean[:, frame : frame + 1]) for frame in range(3)]
    repeated = torch.cat([still[0], *[still[1]] * 4, *[still[2]] * 4], dim=1)
    torch.testing.assert_close(decode(vae, mean), repeated, atol=1e-5, rtol=1e-4)
