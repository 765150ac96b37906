"""Train the miniature's VAE: ``python -m miniature.train_vae --out FOLDER``; the same command goes on.

Single frames first, then clips. ``FOLDER/vae`` is what ``AutoencoderKLWan.from_pretrained`` loads, with the
averaged weights and the statistics of its own latents.
"""

import argparse
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from miniature import world
from miniature.training import Trainer, fast_products
from miniature.whole_clip import decode, encode

BASE_DIM = 12  # channels at full size; published: 96
SIZES = ((64, 96), (64, 96), (96, 64))  # (height, width): two of three are landscape
HELD_OUT = 10**9  # seeds from here on are not trained on
KL = 1e-4
BRANCH = 0.3  # scale of a residual branch at first
PORTRAITS = 0.12  # of clips
REFERENCES = 0.12  # of single frames
NOISE = 0.05  # on the latents, besides the posterior's own
Stages = tuple[tuple[float, int, int], ...]
"""(until this part of the training, clips of a batch, frames of each)."""
STAGES: Stages = ((0.3, 8, 1), (0.7, 2, 9), (1.0, 2, 17))


class Clips(Dataset[Tensor]):
    """Batch ``index`` of the training [B, F, H, W, 3] in [-1, 1]; every index has its own seed."""

    def __init__(
        self, steps: int, seed: int = 0, stages: Stages = STAGES, portraits: float = PORTRAITS
    ) -> None:
        self.steps, self.seed, self.stages, self.portraits = steps, seed, stages, portraits

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.steps

    def __getitem__(self, index: int) -> Tensor:
        """Draw a batch."""
        clips, frames = next((b, f) for part, b, f in self.stages if index < part * self.steps)
        rng = np.random.default_rng((self.seed, index))
        size = SIZES[rng.integers(len(SIZES))]
        return as_video(np.stack([draw_clip(rng, frames, *size, self.portraits) for _ in range(clips)]))


def draw_clip(
    rng: np.random.Generator, frames: int, height: int, width: int, portraits: float = PORTRAITS
) -> world.Picture:
    """Draw a clip of the world: scenes, a share of portraits, and (for single frames) references."""
    kind = rng.uniform()
    if kind < portraits:
        return world.speak(world.draw_portrait(rng), world.draw_loudness(rng, frames), height, width)
    scene = world.draw_scene(rng)
    if kind < portraits + REFERENCES and frames == 1:
        return world.draw_reference(scene, height, width)[None]
    start = int(rng.integers(0, 2 * world.SPAN - frames))
    return world.draw(scene, range(start, start + frames), height, width)


def as_video(pictures: world.Picture) -> Tensor:
    """Return pictures in [-1, 1]."""
    return torch.from_numpy(pictures) * 2 - 1


@torch.no_grad()
def initialize(vae: AutoencoderKLWan) -> None:
    """Set first weights: signals keep their scale, and every frame is treated as if it were alone.

    Convolutions see no earlier frames, halving in time takes the last of two frames, doubling repeats one:
    what is learned on single frames holds for clips from their first step on.
    """
    for name, layer in vae.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Conv3d):
            continue
        small = BRANCH if name.endswith("conv2") else 1
        nn.init.normal_(
            layer.weight, std=small * (layer.in_channels * math.prod(layer.kernel_size[-2:])) ** -0.5
        )
        assert layer.bias is not None
        layer.bias.zero_()
        if layer.kernel_size[0] == 1 or not isinstance(layer, WanCausalConv3d):
            continue
        layer.weight[:, :, :-1] = 0
        if name.endswith("time_conv"):
            one = torch.eye(layer.in_channels)[..., None, None]
            layer.weight[:, :, -1] = one.repeat(layer.out_channels // layer.in_channels, 1, 1, 1)


def loss_of(vae: AutoencoderKLWan, video: Tensor) -> Tensor:
    """Return the loss: distance of pixels, of edges, of changes in time, and a little divergence."""
    with fast_products():
        mean, log_variance = encode(vae, video)
        deviation = (0.5 * log_variance.float()).exp()
        noise = deviation * torch.randn_like(deviation) + NOISE * torch.randn_like(deviation)
        made = decode(vae, mean + noise.to(mean.dtype))
    loss = distance(made.float() - video)
    mean, log_variance = mean.float(), log_variance.float()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return loss + KL * divergence


def distance(error: Tensor) -> Tensor:
    """Return how large an error [B, F, H, W, 3] is: of pixels, of edges, of changes in time."""
    loss = error.abs().mean() + 2 * error.square().mean()
    loss = loss + 0.5 * (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean())
    return loss + 0.5 * error.diff(dim=1).abs().mean() if error.shape[1] > 1 else loss


@torch.no_grad()
def psnr(vae: AutoencoderKLWan, clips: Iterable[Tensor]) -> float:
    """Return the PSNR in dB of clips [1, F, H, W, 3] that go through the VAE, float32."""
    errors = [(decode(vae, encode(vae, clip)[0]).clamp(-1, 1) - clip).square().mean() / 4 for clip in clips]
    return float(torch.stack([-10 * error.log10() for error in errors]).mean())


@torch.no_grad()
def save(vae: AutoencoderKLWan, folder: Path) -> None:
    """Save in bfloat16, with the mean and the standard deviation of every latent channel."""
    rng = np.random.default_rng(HELD_OUT + 1)
    size = SIZES[0]
    latents = torch.cat(
        [encode(vae, as_video(draw_clip(rng, 33, *size))[None])[0].flatten(0, 3) for _ in range(40)]
    )
    vae.register_to_config(latents_mean=latents.mean(0).tolist(), latents_std=latents.std(0).tolist())
    vae.to(torch.bfloat16).save_pretrained(folder)


def held_out(count: int, frames: int) -> list[Tensor]:
    """Return clips that the training does not see, each [1, F, H, W, 3]."""
    rng = np.random.default_rng(HELD_OUT)
    return [as_video(draw_clip(rng, frames, *SIZES[i % len(SIZES)]))[None] for i in range(count)]


def main() -> None:
    """Train, or go on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the checkpoint, the log and the VAE"
    )
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    vae = AutoencoderKLWan(base_dim=BASE_DIM)
    initialize(vae)
    trainer = Trainer({"vae": vae}, arguments.out, arguments.steps, rates=(8e-4, 4e-5))
    left = list(range(trainer.step, arguments.steps))
    batches = DataLoader(
        Clips(arguments.steps, arguments.seed),
        batch_size=None,
        sampler=left,
        num_workers=1,
        prefetch_factor=4,
    )
    averaged = AutoencoderKLWan.from_config(vae.config)
    drawn, stills, clips = iter(batches), held_out(12, 1), held_out(4, 17)

    def write() -> None:
        averaged.load_state_dict(trainer.averages["vae"])
        trainer.log(stills=psnr(averaged, stills), clips=psnr(averaged, clips))
        save(averaged, arguments.out / "vae")
        averaged.float()

    trainer.train(lambda *_: loss_of(vae, next(drawn)), write, write_every=400)


if __name__ == "__main__":
    main()
