"""Peak memory of decoding and writing a short and a long video of equal size: in pieces, and all at once.

    python -m benchmarks.decode_memory

Each run is a process of its own; memory is the peak of its resident set above what it held before decoding.
The C library is told to return freed blocks at once (MALLOC_MMAP_THRESHOLD_), so that what is resident is in
use; without it small tensors leave gaps that come and go. Random weights. Wan2.1's VAE is streamed frame by
frame; HunyuanVideo's works in tiles of 16 frames and 64 x 64 pixels here (64 and 256 x 256 as published).
What is done at once is done by diffusers' layers, the rest by ours.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

HEIGHT, WIDTH, BASE_DIM = 128, 208, 32
HUNYUAN = {
    "block_out_channels": (16, 32, 64, 64),
    "norm_num_groups": 4,
    "sample_size": 64,
    "sample_tsize": 16,
}
# Frames of the short and the long video.
MODES = {
    "Wan streamed": (33, 321),
    "Wan at once": (33, 321),
    "Hunyuan in tiles": (33, 129),
    "Hunyuan at once in time": (33, 129),
}


def peak_resident() -> int:
    """Peak resident set of this process since the last reset, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def decoder(mode: str) -> "Callable[[torch.Tensor], Iterator[torch.Tensor]]":
    """A mode's way from latents to frames."""
    from diffusers import AutoencoderKLWan  # noqa: PLC0415 - only in the measured process

    from videogen.models.hunyuan import transformer  # noqa: PLC0415
    from videogen.models.vae_layers import use_fused_layers  # noqa: PLC0415
    from videogen.models.wan.vae import decode_stream, denormalize, onload  # noqa: PLC0415

    if mode.startswith("Wan"):
        wan = AutoencoderKLWan(base_dim=BASE_DIM).eval()
        if mode == "Wan streamed":
            use_fused_layers(wan)
            return lambda latents: decode_stream(wan, latents)
        return lambda latents: iter([wan.decode(denormalize(wan, latents)).sample])
    vae = transformer.make_vae(HUNYUAN).eval()
    if mode == "Hunyuan in tiles":
        use_fused_layers(vae)
        return lambda latents: transformer.decode_stream(vae, latents, onload)
    return lambda latents: iter([vae.decode(latents / vae.config.scaling_factor).sample])


def run_one(frames: int, mode: str) -> dict[str, int]:
    """Decode and write one video; the figures of this process."""
    import torch  # noqa: PLC0415 - only in the measured process

    from videogen.media.video_writer import open_writer  # noqa: PLC0415
    from videogen.pipelines.base import VideoPipeline  # noqa: PLC0415

    torch.manual_seed(0)
    chunks = decoder(mode)

    def write(latents: torch.Tensor, target: Path, frames: int) -> None:
        with open_writer(target, "mp4", size=(WIDTH, HEIGHT), fps=24, num_frames=frames) as video:
            for chunk in chunks(latents):
                video.write(VideoPipeline.to_uint8(chunk)[0].permute(1, 2, 3, 0).numpy())
            video.finish()

    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        write(torch.randn(1, 16, 2, HEIGHT // 8, WIDTH // 8), Path(folder) / "warm.mp4", 5)
        before = peak_resident()
        Path("/proc/self/clear_refs").write_text("5")  # start a new peak
        held = peak_resident()
        latents = torch.randn(1, 16, (frames - 1) // 4 + 1, HEIGHT // 8, WIDTH // 8)
        write(latents, Path(folder) / "video.mp4", frames)
        peak = peak_resident()
    return {"peak": peak - held, "latents": latents.nbytes, "warm": before - held}


def measured(frames: int, mode: str) -> dict[str, int]:
    """``run_one`` in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.decode_memory", "--frames", str(frames), "--mode", mode]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, help="run one measurement in this process")
    parser.add_argument("--mode", choices=MODES, default="Wan streamed")
    args = parser.parse_args()
    if args.frames:
        print(json.dumps(run_one(args.frames, args.mode)))
        return
    print(f"{WIDTH}x{HEIGHT}, VAE base width {BASE_DIM}, float32, peak above the idle process")
    print(f"{'decode':<24} {'frames':>6} {'peak MB':>9} {'latents MB':>11} {'growth beyond latents':>22}")
    for mode, lengths in MODES.items():
        short, long = (measured(frames, mode) for frames in lengths)
        growth = (long["peak"] - (long["latents"] - short["latents"])) / short["peak"] - 1
        for frames, figure, shown in ((lengths[0], short, ""), (lengths[1], long, f"{growth:22.1%}")):
            peak, latents = figure["peak"] / 1e6, figure["latents"] / 1e6
            print(f"{mode:<24} {frames:6d} {peak:9.1f} {latents:11.2f} {shown}")


if __name__ == "__main__":
    main()
