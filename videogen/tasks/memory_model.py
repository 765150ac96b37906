"""What decides how much memory the models of a family take."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from videogen.tasks.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeMemory:
    """What a VAE takes while it works, in float32, per pixel and unit of its base width.

    Args:
        decode: one latent frame after the other.
        decode_frame: of a VAE that decodes many frames at once, per frame; ``decode`` is what does not
            depend on their number.
        picture: encoding a single picture.
        video: encoding any number of frames.
    """

    decode: float
    decode_frame: float = 0.0
    picture: float
    video: float


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSize:
    """Size of a transformer: its width, its layers, and the width of its feed-forwards (0: not known)."""

    width: int = 0
    layers: int = 0
    ffn: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkMemory:
    """What of a transformer decides how much memory its forward takes.

    Args:
        tensors: token-sized tensors of its width that are alive at once in a forward; ``streamed`` where its
            weights are float8, whose products have their bias added in a copy.
        known_first: that many more where the first latent frame has a noise level of its own.
        float32: weights that stay in float32 beside half precision.
        resident: bytes of a transformer that stay on the device where its blocks are streamed.
        text_work: what the text encoder takes besides its weights.
        largest_layer: of its text encoder, which alone is on the device where its layers are streamed.
    """

    width: int
    tensors: float
    streamed: float
    layers: int
    known_first: float
    float32: int
    resident: int
    text_work: int
    largest_layer: int


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedWeights:
    """Weights of a transformer that stay in the format of their file: how many, and what they take.

    Args:
        largest: how many the largest layer has.
        scratch: bytes that it takes to dequantize that layer.
        copies: products are scaled, or have their bias added, in a copy.
    """

    count: int = 0
    bytes: int = 0
    largest: int = 0
    scratch: int = 0
    copies: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyMemory:
    """What the estimate asks about the models of a family.

    Args:
        vae: figures of its VAE.
        encoders: components that run before the transformers -> tokens of their result whose keys and values
            are kept while denoising.
        float32: components whose weights are float32 whatever the precision.
        vae_width: config.json of the VAE -> base width of its decoder, per output pixel.
        network: size of the transformer -> what it takes.
        cached_outputs: config.json of the transformer -> outputs of layers that TaylorSeer extrapolates.
    """

    vae: VaeMemory
    encoders: Mapping[str, int]
    float32: Collection[str]
    vae_width: Callable[[Config], float]
    network: Callable[[NetworkSize], NetworkMemory]
    cached_outputs: Callable[[Config], int]
