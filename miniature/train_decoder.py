"""Train the VAE's decoder on: ``python -m miniature.train_decoder --out FOLDER``; the same command goes on.

The encoder stays as it is, so latents mean what they did, and networks that are trained on them stay valid.
A quarter of the clips are portraits, whose eyes and mouths are small; what is rich in detail weighs more.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from miniature.train_vae import NOISE, Clips, Stages, distance, held_out, psnr
from miniature.training import Trainer, fast_products
from miniature.whole_clip import decode, encode
from videogen.tasks import config

STAGES: Stages = ((0.15, 8, 1), (1.0, 2, 9))
PORTRAITS = 0.25
DETAIL = 1.0  # how much more a pixel weighs where black meets white
REACH = 5  # pixels, side of the square around a pixel that counts


def loss_of(vae: AutoencoderKLWan, video: Tensor) -> Tensor:
    """Return the distance of what is decoded, weighted by the detail."""
    with fast_products():
        with torch.no_grad():
            latents = encode(vae, video)[0]
        made = decode(vae, latents + NOISE * torch.randn_like(latents))
    return distance((made.float() - video) * (1 + DETAIL * detail_of(video)))


def detail_of(video: Tensor) -> Tensor:
    """Return the largest difference of brightness around every pixel, 0..1 [B, F, H, W, 1]."""
    grey = video.mean(dim=-1).flatten(0, 1)[:, None] / 2
    highest, lowest = (functional.max_pool2d(x, REACH, 1, REACH // 2) for x in (grey, -grey))
    return (highest + lowest)[:, 0].unflatten(0, video.shape[:2])[..., None]


def main() -> None:
    """Train, or go on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--vae", type=Path, default=config.weights_folder() / "vae", help="folder that train_vae has made"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint, log and VAE")
    parser.add_argument("--steps", type=int, default=2700)
    parser.add_argument("--seed", type=int, default=1, help="of the clips; another one draws new ones")
    arguments = parser.parse_args()
    vae = AutoencoderKLWan.from_pretrained(arguments.vae, torch_dtype=torch.float32)
    averaged = AutoencoderKLWan.from_pretrained(arguments.vae, torch_dtype=torch.float32)
    modules = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    trainer = Trainer(modules, arguments.out, arguments.steps, rates=(6e-4, 2e-5))
    batches = DataLoader(
        Clips(arguments.steps, arguments.seed, STAGES, PORTRAITS),
        batch_size=None,
        sampler=list(range(trainer.step, arguments.steps)),
    )
    drawn, stills, clips = iter(batches), held_out(12, 1), held_out(4, 17)

    def write() -> None:
        for name in modules:
            averaged.get_submodule(name).load_state_dict(trainer.averages[name])
        trainer.log(stills=psnr(averaged, stills), clips=psnr(averaged, clips))
        averaged.to(torch.bfloat16).save_pretrained(arguments.out / "vae")
        averaged.float()

    trainer.train(lambda *_: loss_of(vae, next(drawn)), write, write_every=200)


if __name__ == "__main__":
    main()
