"""Live tensor bytes at the worst moment of a forward and of a decode:
the constants of videogen/planning/memory_estimate.py.

    python -m benchmarks.live_memory

Counted by watching every tensor that torch makes, so the figures hold for any device whose kernels need no
scratch space. Transformer: bytes per token and unit of width. VAE: bytes per output pixel at Wan2.1's width.
"""

import weakref
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from videogen.models.hunyuan.transformer import make_vae
from videogen.models.wan.transformer import WanDiT
from videogen.models.wan.vae import decode_stream

HEADS, HEAD_DIM, FFN = 8, 64, 1382  # the 14B's proportions
GRID = (14, 40, 44)
TILES = {"sample_size": 64, "sample_tsize": 32}


class Watch(TorchDispatchMode):
    """Sums the bytes of all living tensors and keeps the highest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.known:
                    self.known.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
        return result

    def gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def forward(kind: type, dtype: torch.dtype, per_frame: bool) -> float:
    """Peak bytes per token and unit of width."""
    width = HEADS * HEAD_DIM
    sizes = {"num_attention_heads": HEADS, "attention_head_dim": HEAD_DIM, "ffn_dim": FFN, "text_dim": 64}
    model = kind(**sizes, num_layers=2).eval().to(dtype)
    for name, parameter in model.named_parameters():
        if any(part in name.split(".") for part in kind._keep_in_fp32_modules):
            parameter.data = parameter.data.float()
    frames, height, columns = GRID
    tokens = frames * height * columns // 4
    level = torch.rand(1, frames) * 1000 if per_frame else torch.tensor([500.0])
    if per_frame and kind is WanTransformer3DModel:
        level = level.repeat_interleave(tokens // frames, dim=1)
    latents, text = torch.randn(1, 16, *GRID, dtype=dtype), torch.randn(1, 512, 64, dtype=dtype)
    with torch.no_grad(), Watch() as watch:
        model(latents, level, text)
    return watch.peak / (tokens * width)


def decode() -> float:
    """Peak bytes per output pixel of the streamed decode."""
    vae = AutoencoderKLWan().eval()
    side = 8
    with torch.no_grad(), Watch() as watch:
        for _ in decode_stream(vae, torch.randn(1, 16, 4, side, side)):
            pass
    return watch.peak / (side * 8) ** 2


def decode_at_once() -> float:
    """Peak bytes per pixel, frame and unit of width of a tile of HunyuanVideo's decoder."""
    width, side, frames = 16, 64, 33
    vae = make_vae({"block_out_channels": (16, 32, 64, 64), "norm_num_groups": 4, **TILES}).eval()
    latents = torch.randn(1, 16, (frames - 1) // 4 + 1, side // 8, side // 8)
    with torch.no_grad(), Watch() as watch:
        vae.decoder(vae.post_quant_conv(latents))
    return watch.peak / (side * side * frames * width)


def main() -> None:
    print(f"{'transformer, bytes per token and width':<42} {'ours':>7} {'diffusers':>10}")
    for dtype in (torch.bfloat16, torch.float32):
        for per_frame in (False, True):
            name = f"{str(dtype).removeprefix('torch.')}, one level per {'frame' if per_frame else 'video'}"
            ours, theirs = (forward(kind, dtype, per_frame) for kind in (WanDiT, WanTransformer3DModel))
            print(f"{name:<42} {ours:7.1f} {theirs:10.1f}")
    print(f"{'streamed decode, bytes per output pixel':<42} {decode():7.0f}")
    print(f"{'tile at once, bytes per pixel, frame, width':<42} {decode_at_once():6.1f}")


if __name__ == "__main__":
    main()
