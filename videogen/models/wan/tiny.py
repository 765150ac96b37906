"""Wan's models at laptop size; the numbers are in ``configs/tiny``."""

from videogen.models.tiny import TinyParts, byte_tokenizer
from videogen.models.wan.components import COMPONENTS, UNMASKED
from videogen.models.wan.vae import RESIDUAL_LATENTS_MEAN, RESIDUAL_LATENTS_STD
from videogen.tasks.config import Config


def parts(sizes: Config) -> TinyParts:
    """Return the parts of a tiny model."""
    tokenizer = byte_tokenizer()
    vae = dict(sizes["vae"])
    if vae.get("z_dim") == len(RESIDUAL_LATENTS_MEAN):  # its statistics are no defaults of the class
        vae |= {"latents_mean": RESIDUAL_LATENTS_MEAN, "latents_std": RESIDUAL_LATENTS_STD}
    vocabulary = {"vocab_size": len(tokenizer), "feed_forward_proj": "gated-gelu"}
    arguments = {
        "transformer": sizes["transformer"],
        "vae": vae,
        "text_encoder": {**vocabulary, **sizes["text_encoder"]},
    }
    if sizes.get("experts") == 2:
        arguments["transformer_2"] = sizes["transformer"]
    if "image_encoder" in sizes:
        arguments["image_encoder"] = sizes["image_encoder"]
    if "audio_encoder" in sizes:
        arguments["audio_encoder"] = {**sizes["audio_encoder"], **UNMASKED}
    modules = {name: COMPONENTS[name].make(values) for name, values in arguments.items()}
    return TinyParts(modules, {"tokenizer": tokenizer}, "WanPipeline")
