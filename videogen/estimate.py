"""How much memory a plan will take, from arithmetic alone. Rough, and meant to be on the safe side.

The per-unit figures were measured by counting live tensor bytes (benchmarks/live_memory.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from videogen.geometry import Shape
from videogen.ranks import Degrees

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
# Live bytes per token and unit of width in one transformer block: residual stream, q, k, v, rotation,
# feed-forward.
ACTIVATION_BYTES = {2: 25, 4: 40}
# Live bytes per output pixel while one latent frame is decoded in float32, per unit of the VAE's base width.
DECODE_BYTES = 204
# Of HunyuanVideo's, which decodes a tile of many frames at once: per pixel, frame and unit of width.
AT_ONCE_BYTES = 36
PUBLISHED_VAE_WIDTH = 96
HUNYUAN_VAE_WIDTH = 128
WAN22_VAE_WIDTH = 256
TILE = 256  # pixels, each side
TEXT_TOKENS, IMAGE_TOKENS = 512, 257
LAYER_WEIGHTS = 13  # of one transformer layer, in squares of its width
PICTURE_BYTES = 64  # per output pixel: four float32 RGB frames, and as much again while they are blended
STREAMED_SHARE = (
    0.1  # of the transformer in float8, a byte each: the block at work, the one arriving, the embedders
)


ONE_RANK = Degrees()


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes on the device, by what takes them and by memory mode."""

    weights: Mapping[str, int]
    streamed: int
    activations: int
    decode: int
    tiled_decode: int
    contexts: int = 0  # keys and values of texts and images

    def peak(self, *, offload: bool = False, low_vram: bool = False, tiled: bool = False) -> int:
        """Highest sum over the phases of a run: text, denoising, decoding."""
        decode = self.tiled_decode if tiled or low_vram else self.decode
        vae, denoising = self.weights["vae"], self.activations + self.contexts
        transformers = [size for name, size in self.weights.items() if name.startswith("transformer")]
        encoder = max(size for name, size in self.weights.items() if "_encoder" in name)
        if low_vram:
            return vae + max(self.streamed + self.activations, decode)
        if offload:
            return vae + max(encoder, max(transformers) + denoising, decode)
        return vae + sum(transformers) + max(encoder, denoising, decode)


def estimate(
    shape: Shape,
    parameters: Mapping[str, int],
    *,
    width: int,
    dtype: str,
    vae_width: float,
    residuals: int = 0,
    texts: int = 0,
    vae_dtype: str = "float32",
    untiled: bool = False,
    degrees: Degrees = ONE_RANK,
) -> Memory:
    """Memory of one generation.

    Args:
        parameters: per component.
        width: of the transformer.
        dtype: compute dtype; the VAE's weights are float32 always.
        vae_width: base width of the VAE.
        residuals: token-sized tensors that a step cache keeps.
        texts: of which keys and values are kept while denoising.
        vae_dtype: of the decode.
        untiled: whether a decode that works in tiles is to do without.
        degrees: how ranks share it; the bytes are those of each.
    """
    size = DTYPE_BYTES[dtype]
    per_weight = dict.fromkeys(("vae", "audio_encoder"), DTYPE_BYTES["float32"])
    pixels = shape.height * shape.width
    at_once = shape.grid.frames_at_once
    per_pixel = vae_width * (DECODE_BYTES if at_once is None else AT_ONCE_BYTES * at_once)
    per_pixel *= DTYPE_BYTES[vae_dtype] / DTYPE_BYTES["float32"]
    tiled = int(min(pixels, TILE * TILE) * per_pixel) + pixels * PICTURE_BYTES * (at_once or 4) // 4
    decode = tiled if at_once else int(pixels * per_pixel)
    if at_once and untiled:
        decode = _at_once(shape, vae_width, DTYPE_BYTES[vae_dtype])
    if not at_once:  # Wan's decoder works in bands of rows
        decode //= degrees.size
    return Memory(
        weights={name: count * per_weight.get(name, size) for name, count in parameters.items()},
        contexts=int(texts * size * sum(_keys(parameters, width))),
        streamed=int(parameters["transformer"] * STREAMED_SHARE),
        activations=shape.tokens * width * (ACTIVATION_BYTES[size] + residuals * size) // degrees.sequence,
        decode=decode,
        tiled_decode=tiled,
    )


def _keys(parameters: Mapping[str, int], width: int) -> Iterator[float]:
    """Numbers in the keys and values of one text, and of an image where there is one, per transformer."""
    tokens = TEXT_TOKENS + ("image_encoder" in parameters) * IMAGE_TOKENS
    for name, count in parameters.items():
        if name.startswith("transformer") and width:
            yield 2 * tokens * count / (LAYER_WEIGHTS * width)  # that is layers times width, or a little more


def _at_once(shape: Shape, vae_width: float, size: int) -> int:
    """All frames in one piece, with the mask of the attention in their midst."""
    _, _, frames, height, width = shape.latent_shape
    video = shape.height * shape.width * shape.num_frames
    return int(video * vae_width * AT_ONCE_BYTES * size / 4) + (frames * height * width) ** 2 * size
