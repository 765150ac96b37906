"""One forward of the transformer: ours beside diffusers' WanTransformer3DModel, interleaved, same weights.

On the CPU it prints ratios (absolute times mean little there); with --device cuda --size 14b the real
network, with seconds, TFLOP/s and the fraction of the bfloat16 matrix rate measured on that card in that run.

    python -m benchmarks.dit_forward
    python -m benchmarks.dit_forward --device cuda --size 14b
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import WanTransformer3DModel

from videogen.models.wan.transformer import FLOAT32_PARTS, WanDiT

SIZES = {
    "small": {
        "num_attention_heads": 8,
        "attention_head_dim": 64,
        "ffn_dim": 2048,
        "num_layers": 6,
        "text_dim": 512,
    },
    "14b": {},  # the defaults of both classes
}
SMALL_GRID = (14, 20, 44)  # latent frames, height, width: 3080 tokens
VIDEOS = {
    f"{name} x{frames}": ((frames - 1) // 4 + 1, height // 8, width // 8)
    for name, height, width in (("480P", 480, 832), ("540P", 544, 960), ("720P", 720, 1280))
    for frames in (97, 121)
}
TEXT_ROWS = 512


def build(size: str, device: torch.device, dtype: torch.dtype) -> tuple[WanDiT, WanTransformer3DModel]:
    """Both networks with one set of random weights in memory."""
    with torch.device("meta"):
        ours, theirs = WanDiT(**SIZES[size]), WanTransformer3DModel(**SIZES[size])
    for name, tensor in ours.named_parameters():
        kept = any(part in FLOAT32_PARTS for part in name.split("."))
        data = torch.empty(tensor.shape, device=device, dtype=torch.float32 if kept else dtype)
        torch.nn.init.normal_(data, std=0.02)
        module, _, leaf = name.rpartition(".")
        setattr(ours.get_submodule(module), leaf, torch.nn.Parameter(data, requires_grad=False))
    theirs = WanTransformer3DModel(**SIZES[size]) if size == "small" else theirs
    theirs.load_state_dict(ours.state_dict(), assign=True)
    theirs.rope = type(theirs.rope)(ours.config.attention_head_dim, (1, 2, 2), 1024).to(device)
    if dtype != torch.float32:  # diffusers keeps this one layer in the compute dtype
        theirs.condition_embedder.time_proj = ours.condition_embedder.time_proj.__class__(
            *reversed(ours.condition_embedder.time_proj.weight.shape), device=device, dtype=dtype
        )
    return ours.eval(), theirs.eval()


def flops(config: dict, tokens: int) -> float:
    """Of one forward: linear layers, cross-attention with its text projections, self-attention."""
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    layers = config["num_layers"]
    linear = 2 * tokens * layers * (6 * dim**2 + 2 * dim * config["ffn_dim"])
    text = 4 * tokens * TEXT_ROWS * dim * layers + 4 * TEXT_ROWS * layers * dim**2
    return linear + text + 4 * tokens**2 * dim * layers


def measure(
    runs: dict[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every run, taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(repeats + 1):  # the first is a warm-up
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if round_:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product on this device."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    times = measure({"matmul": lambda: a @ b}, 20, device)["matmul"]
    return 2 * n**3 / statistics.median(times)


def inputs(
    model: WanDiT, grid: tuple[int, int, int], device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    latents = torch.randn(1, model.config.in_channels, *grid, device=device, dtype=dtype)
    return latents, torch.randn(1, TEXT_ROWS, model.config.text_dim, device=device, dtype=dtype)


def spread(times: list[float]) -> str:
    return f"{statistics.median(times):8.3f} [{min(times):.3f}-{max(times):.3f}]"


@torch.inference_mode()
def compare(size: str, grid: tuple[int, int, int], device: torch.device, repeats: int) -> None:
    """The table of ratios: a level for all frames, and a level per frame (diffusers: per token)."""
    ours, theirs = build(size, device, torch.float32)
    latents, text = inputs(ours, grid, device, torch.float32)
    frames, tokens = grid[0], grid[0] * grid[1] * grid[2] // 4
    level = torch.tensor([500], device=device)
    levels = torch.randint(0, 1000, (1, frames), device=device)
    per_token = levels.repeat_interleave(tokens // frames, dim=1)
    seconds = measure(
        {
            "scalar ours": lambda: ours(latents, level, text),
            "scalar diffusers": lambda: theirs(latents, level, text),
            "per frame ours": lambda: ours(latents, levels, text),
            "per frame diffusers": lambda: theirs(latents, per_token, text),
        },
        repeats,
        device,
    )
    print(
        f"{tokens} tokens, float32, {torch.get_num_threads()} threads, median of {repeats} [min-max] seconds"
    )
    print(f"{'noise levels':<12} {'ours':>22} {'diffusers':>22} {'ratio':>7}")
    for name in ("scalar", "per frame"):
        one, two = seconds[f"{name} ours"], seconds[f"{name} diffusers"]
        ratio = statistics.median(a / b for a, b in zip(one, two, strict=True))
        print(f"{name:<12} {spread(one):>22} {spread(two):>22} {ratio:7.3f}")


@torch.inference_mode()
def full_size(size: str, device: torch.device, repeats: int) -> None:
    """The table of seconds and rates at the published video sizes."""
    dtype = torch.bfloat16
    rate = matmul_rate(device, dtype)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    print(f"{name}, bfloat16, matrix product {rate / 1e12:.0f} TFLOP/s, median of {repeats}")
    print("video       tokens   ours s  TFLOP/s  of rate  diffusers s  ratio")
    ours, theirs = build(size, device, dtype)
    level = torch.tensor([500], device=device)
    for video, grid in VIDEOS.items():
        latents, text = inputs(ours, grid, device, dtype)
        runs = {
            "ours": lambda x=latents, c=text: ours(x, level, c),
            "theirs": lambda x=latents, c=text: theirs(x, level, c),
        }
        times = {run: statistics.median(taken) for run, taken in measure(runs, repeats, device).items()}
        tokens = grid[0] * grid[1] * grid[2] // 4
        achieved = flops(dict(ours.config), tokens) / times["ours"]
        print(
            f"{video:<10} {tokens:7d} {times['ours']:8.2f} {achieved / 1e12:8.0f} {achieved / rate:8.0%} "
            f"{times['theirs']:12.2f} {times['ours'] / times['theirs']:6.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    if args.size == "small":
        compare(args.size, SMALL_GRID, device, args.repeats)
    else:
        full_size(args.size, device, args.repeats)


if __name__ == "__main__":
    main()
