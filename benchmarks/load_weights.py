"""Loading a transformer's weights beside reading their file: cold (the file's pages dropped) and warm.

python -m benchmarks.load_weights
python -m benchmarks.load_weights --device cuda --layers 40
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from videogen.models.components import load_component
from videogen.models.wan.transformer import WanDiT

SIZES = {"num_attention_heads": 8, "attention_head_dim": 128, "ffn_dim": 4096, "text_dim": 512}
BLOCK = 16 << 20
PAGE = 4096 // 4  # numbers


def make(folder: Path, layers: int) -> Path:
    """A random float32 checkpoint of one file; returns the file."""
    with torch.device("meta"):
        shapes = WanDiT(**SIZES, num_layers=layers).state_dict()
    file = folder / "diffusion_pytorch_model.safetensors"
    save_file({name: torch.randn(tensor.shape) for name, tensor in shapes.items()}, file)
    (folder / "config.json").write_text('{"num_attention_heads": 8}')
    return file


def forget(file: Path) -> None:
    """Have the system drop the file's pages."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(file: Path) -> None:
    buffer = bytearray(BLOCK)
    with file.open("rb", buffering=0) as handle:
        while handle.readinto(buffer):
            pass


def touch(model: torch.nn.Module) -> None:
    """Read one number of every page, as a first use would."""
    for tensor in model.parameters():
        tensor.reshape(-1)[::PAGE].sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    device = torch.device(args.device)
    with tempfile.TemporaryDirectory() as name:
        file = make(Path(name), args.layers)

        def load(dtype: torch.dtype) -> torch.nn.Module:
            model = load_component("transformer", file.parent, dtype, device=device)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return model

        runs: dict[str, Callable[[], object]] = {
            "read the file": lambda: read(file),
            "load as float32": lambda: load(torch.float32),
            "load as float32, every page used": lambda: touch(load(torch.float32)),
            "load as bfloat16": lambda: load(torch.bfloat16),
        }
        load(torch.float32)  # imports, and the device's own start
        seconds: dict[tuple[str, str], list[float]] = {}
        for _ in range(args.repeats):
            for state in ("cold", "warm"):
                for run, work in runs.items():
                    (forget if state == "cold" else read)(file)
                    started = time.perf_counter()
                    work()
                    seconds.setdefault((run, state), []).append(time.perf_counter() - started)
        size = file.stat().st_size
    print(f"{size / 1e6:.0f} MB float32, {device}, median of {args.repeats} seconds (MB/s)")
    print("| | cold | warm |\n|---|---|---|")
    for run in runs:
        taken = [statistics.median(seconds[run, state]) for state in ("cold", "warm")]
        print(f"| {run} | {' | '.join(f'{s:.2f} ({size / 1e6 / s:.0f})' for s in taken)} |")


if __name__ == "__main__":
    main()
