"""Processor seconds of decoding and encoding with the tiny VAEs, diffusers' layers and ours. CPU, one table.

    python -m benchmarks.vae_layers --threads 1
    python -m benchmarks.vae_layers --width 96

160x96, 25 frames (HunyuanVideo: 17 frames, its tiles, and one image to encode). Runs are interleaved, and the
shortest of each counts. Processor time, so that other work on the machine does not count; with two threads it
is that of both. ``--width``: Wan2.1's VAE of that base width, to see where it stops to pay (8 is tiny's).
"""

import argparse
import time
from collections.abc import Callable

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

import videogen
from videogen.models.hunyuan import transformer
from videogen.models.vae_layers import use_fused_layers
from videogen.models.wan import vae as vae_io

HEIGHT, WIDTH, FRAMES = 96, 160, 25
HUNYUAN_FRAMES = 17
MODELS = {
    "Wan2.1": ("reference_to_video", "tiny"),
    "Wan2.2 5B": ("text_to_video", "tiny:wan22-5b"),
    "HunyuanVideo": ("hunyuan_image_to_video", "tiny"),
}
Work = Callable[[], Tensor]


def works(vae: nn.Module) -> dict[str, Work]:
    """Return what is measured of a VAE."""
    draw = torch.Generator().manual_seed(0)
    scale = vae.spatial_compression_ratio
    if not isinstance(vae, AutoencoderKLWan):
        shape = (1, vae.config.latent_channels, (HUNYUAN_FRAMES + 3) // 4, HEIGHT // scale, WIDTH // scale)
        latents = torch.randn(shape, generator=draw)
        image = torch.rand(1, 3, 1, HEIGHT, WIDTH, generator=draw) * 2 - 1
        return {
            "decode": lambda: torch.cat([*transformer.decode_stream(vae, latents, vae_io.onload)], dim=2),
            "encode": lambda: transformer.encode_image(vae, image, vae_io.onload),
        }
    shape = (1, vae.config.z_dim, (FRAMES + 3) // 4, HEIGHT // scale, WIDTH // scale)
    latents = torch.randn(shape, generator=draw)
    video = torch.rand(1, 3, FRAMES, HEIGHT, WIDTH, generator=draw) * 2 - 1
    return {"decode": lambda: vae_io.decode(vae, latents), "encode": lambda: vae_io.encode(vae, video)}


def pair(name: str, width: int | None) -> list[nn.Module]:
    """Return the VAE with diffusers' layers, and with ours."""
    if width is not None:
        torch.manual_seed(0)
        models = [AutoencoderKLWan(base_dim=width).eval() for _ in range(2)]
        models[1].load_state_dict(models[0].state_dict())
        use_fused_layers(models[1])
        return models
    ours = videogen.load(*MODELS[name], dtype="float32", device="cpu").vae
    values = {key: value for key, value in ours.config.items() if not key.startswith("_")}
    is_wan = isinstance(ours, AutoencoderKLWan)
    plain = (AutoencoderKLWan(**values) if is_wan else transformer.make_vae(values)).eval()
    plain.load_state_dict(ours.state_dict())
    return [plain, ours]


def seconds(work: Work) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--width", type=int)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.threads} threads")
    print("| VAE | | diffusers | ours | ratio | largest difference |\n|---|---|---|---|---|---|")
    for name in MODELS if args.width is None else (f"Wan2.1, width {args.width}",):
        both = [works(vae) for vae in pair(name, args.width)]
        for kind in both[0]:
            plain, ours = (jobs[kind] for jobs in both)
            difference = float((plain() - ours()).abs().max())  # and the warm-up
            taken = [(seconds(plain), seconds(ours)) for _ in range(args.repeats)]
            one, other = (min(times) for times in zip(*taken, strict=True))
            print(f"| {name} | {kind} | {one:.2f} | {other:.2f} | {one / other:.1f} | {difference:.0e} |")


if __name__ == "__main__":
    main()
