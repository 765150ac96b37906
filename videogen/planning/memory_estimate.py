"""How much memory a video takes on the device, by arithmetic.

Every figure is that of the tensors alive at once at the peak of a phase, found by simulation at full size
(tests/simulated) and held to it there: never below the simulated peak, and at most 5 % above. What simulation
cannot see comes on top: the CUDA context (0.5-0.8 GB), workspaces of libraries, fragmentation.

Units: bytes; b bytes of the compute dtype, D width of the transformer, r width of the feed-forward over D.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from videogen.distributed import Degrees
from videogen.tasks.geometry import Shape
from videogen.tasks.kernels import DTYPES
from videogen.tasks.memory_model import FamilyMemory, NetworkMemory, QuantizedWeights, VaeMemory
from videogen.tasks.options import Runtime
from videogen.tasks.task_spec import TRANSFORMERS

FLOAT32 = 4
HEAD_WIDTH = 128
TILE = 256  # pixels, each side
# Of latents [C, F, h, w], float32: the noise, every branch's prediction, what the solver keeps.
LATENT_COPIES = 8
# Per output pixel: the frames of a latent frame in float32 on their way to 8 bits, four times over.
PICTURE_BYTES = 192
MARGIN = 1.015  # for small things that are not counted
LIBRARIES = 1_200_000_000  # in RAM, with what is loaded of them when a video is made
ALIKE = 0.2  # share by which a file may differ from its weights in memory and still hold the same dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes on the device, by what takes them and by memory mode; those of the first three are weights."""

    vae: int
    transformers: tuple[int, ...]
    encoders: tuple[int, ...]
    activations: int
    decode: int
    tiled_decode: int
    contexts: int = 0  # keys and values of texts and images
    encode: int = 0  # what the VAE takes to encode the input
    text: int = 0  # what an encoder takes besides its weights
    resident: int = 0  # of a transformer whose blocks are streamed
    streamed: int = 0  # its activations, and two blocks
    largest_layer: int = 0  # of an encoder whose layers are streamed
    encoder_copies: int = 0  # weights whose files have another dtype, so that they are copied into RAM
    transformer_copies: int = 0
    float8: int = 0  # the transformers in one byte a weight
    quantized: int = 0  # or as --quantize keeps them; 0 without it

    def peak(self, *, offload: bool = False, low_vram: bool = False, tiled: bool = False) -> int:
        """Return the highest sum over the phases of a run: encoding, denoising, decoding."""
        return int(MARGIN * self._peak(offload=offload, low_vram=low_vram, tiled=tiled))

    def _peak(self, *, offload: bool, low_vram: bool, tiled: bool) -> int:
        decode = self.tiled_decode if tiled or low_vram else self.decode
        encoder, denoising = max(self.encoders) + self.text, self.activations + self.contexts
        if low_vram:
            encoder = min(encoder, self.largest_layer + self.text)
            return self.vae + self.resident + max(encoder, self.encode, self.streamed, decode)
        if offload:
            return self.vae + max(encoder, self.encode, max(self.transformers) + denoising, decode)
        return self.vae + sum(self.transformers) + max(encoder, self.encode, denoising, decode)

    def ram(self, *, on_cpu: bool, offload: bool = False, low_vram: bool = False) -> int:
        """Return the bytes of RAM that cannot be given back.

        Weights that are used in the dtype of their file stay in it: RAM makes them faster, but need not hold
        them. Only on the CPU, where every step reads them, they count.
        """
        held = self.float8 if low_vram else self.quantized
        if on_cpu:
            transformers = max(self.transformer_copies, held) or sum(self.transformers)
            work = max(self.text, self.encode, self.activations + self.contexts, self.decode)
            return LIBRARIES + int(MARGIN * (self.vae + transformers + sum(self.encoders) + work))
        through_ram = max(self.transformer_copies, held) if offload or held else 0
        return LIBRARIES + int(MARGIN * (self.encoder_copies + through_ram))


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """What is made, and how.

    Args:
        runtime: dtypes (the VAE's weights are float32 always), and whether a decode that works in tiles is
            to do without.
        degrees: how ranks share it; the bytes are those of each.
        vae_width: base width of the VAE, per output pixel.
        residuals: token-sized tensors that a step cache keeps.
    """

    shape: Shape
    runtime: Runtime
    degrees: Degrees
    vae_width: float
    residuals: int

    @property
    def dtype_bytes(self) -> int:
        return DTYPES[self.runtime.dtype].bytes

    @property
    def tokens_per_rank(self) -> int:
        return -(-self.shape.tokens // self.degrees.sequence)


def estimate(
    video: Video,
    parameters: Mapping[str, int],
    stored: Mapping[str, int],
    quantized: Mapping[str, QuantizedWeights],
    network: NetworkMemory,
    family: FamilyMemory,
) -> Memory:
    """Return the memory of one generation.

    Args:
        video: what is made, and how.
        parameters: weights of every component.
        stored: bytes of their files, as far as they are known.
        quantized: what of a transformer's stays in the format of its file.
        network: figures of the transformer.
        family: figures of the family.
    """
    size = video.dtype_bytes
    weights = {
        name: count * (FLOAT32 if name in family.float32 else size) for name, count in parameters.items()
    }
    compressed = {name: weights[name] + kept.bytes - kept.count * size for name, kept in quantized.items()}
    loaded = weights if video.runtime.quantize else weights | compressed
    copies = {
        name: made for name, made in loaded.items() if abs(stored.get(name, made) - made) > ALIKE * made
    }
    weights |= compressed
    experts = [name for name in TRANSFORMERS if name in parameters]
    encoders = [name for name in family.encoders if name in parameters]
    shape, (decode, tiled) = video.shape, _decode(video, family.vae)
    encoded = {0: 0.0, 1: family.vae.picture}.get(shape.encoded_frames, family.vae.video)
    block = parameters["transformer"] // max(1, network.layers)
    kept = _token_bytes(video) + video.residuals * video.tokens_per_rank * network.width * size
    scratch = max((weight.scratch for weight in quantized.values()), default=0)
    return Memory(
        vae=weights["vae"],
        transformers=tuple(weights[name] + (FLOAT32 - size) * network.float32 for name in experts),
        encoders=tuple(weights[name] for name in encoders),
        activations=kept + max(_forwards(video, network, quantized.values())),
        contexts=len(experts) * _contexts(video, network, sum(family.encoders[name] for name in encoders)),
        encode=int(shape.height * shape.width * video.vae_width * encoded),
        text=network.text_work,
        resident=network.resident * len(experts) + 60_000_000,
        streamed=_activations(video, network, network.streamed) + scratch + kept + 2 * block,
        largest_layer=network.largest_layer,
        decode=decode,
        tiled_decode=tiled,
        encoder_copies=sum(copies.get(name, 0) for name in encoders),
        transformer_copies=sum(copies.get(name, 0) for name in experts),
        float8=sum(parameters[name] for name in experts),
        quantized=sum(weights[name] for name in experts) if video.runtime.quantize else 0,
    )


def _forwards(video: Video, network: NetworkMemory, quantized: Iterable[QuantizedWeights]) -> Iterator[int]:
    """Yield the bytes of a forward at a product, and while a weight is dequantized, before the product."""
    yield _activations(video, network, network.tensors)
    for stored in quantized:
        yield _activations(video, network, network.tensors) + stored.largest * video.dtype_bytes
        yield _activations(video, network, network.tensors - 1) + stored.scratch
        if stored.copies:
            yield _activations(video, network, network.streamed)


def _activations(video: Video, network: NetworkMemory, tensors: float) -> int:
    """Return the bytes of a forward; of several ranks each holds all tokens before and after the blocks."""
    whole = 2 * video.shape.tokens if video.degrees.sequence > 1 else 0
    tensors += network.known_first * video.shape.known_first
    return int((tensors * video.tokens_per_rank + whole) * network.width * video.dtype_bytes)


def _token_bytes(video: Video) -> int:
    """Return the bytes of latents and positions while denoising."""
    shape = video.shape
    _, channels, *_ = shape.latent_shape
    latents = shape.tokens * 4 * channels * FLOAT32 * (LATENT_COPIES + 2 * shape.forwards_per_step)
    return latents + shape.tokens * HEAD_WIDTH * FLOAT32


def _contexts(video: Video, network: NetworkMemory, tokens: int) -> int:
    """Return the bytes of the keys and values of texts and images in one transformer."""
    texts = min(2, video.shape.forwards_per_step)
    return 2 * texts * tokens * network.layers * network.width * video.dtype_bytes


def _decode(video: Video, vae: VaeMemory) -> tuple[int, int]:
    """Return what a decode takes, and one in tiles."""
    shape, pixels = video.shape, video.shape.height * video.shape.width
    share = DTYPES[video.runtime.vae_dtype].bytes / FLOAT32
    tile = min(pixels, TILE * TILE) * video.vae_width
    at_once = shape.grid.frames_at_once
    if at_once is None:
        tiled = int(tile * vae.decode * share) + pixels * PICTURE_BYTES
        whole = int(pixels * video.vae_width * vae.decode * share) // video.degrees.size
        return whole + pixels * PICTURE_BYTES, tiled
    frames = min(at_once, 4 * (shape.latent_shape[2] - 1) + 1)
    tiled = int(tile * (vae.decode + vae.decode_frame * frames * share)) + pixels * PICTURE_BYTES
    if video.runtime.vae_tiling != "off":
        return tiled, tiled
    made = 4 * (shape.latent_shape[2] - 1) + 1
    at_once_bytes = pixels * video.vae_width * vae.decode_frame * made * share + tile * vae.decode
    return int(at_once_bytes) + pixels * PICTURE_BYTES, tiled
