"""Wan's models at laptop size; the numbers are in ``configs/tiny``."""

from videogen.models.tiny import TinyParts, byte_tokenizer
from videogen.models.wan.components import COMPONENTS, UNMASKED
from videogen.tasks.config import Config, read


def parts(sizes: Config) -> TinyParts:
    """Return the parts of a tiny model."""
    tokenizer = byte_tokenizer()
    vocabulary = {"vocab_size": len(tokenizer), "feed_forward_proj": "gated-gelu"}
    arguments = {
        "transformer": sizes["transformer"],
        "vae": {**(read("residual_vae") if sizes["vae"].get("is_residual") else {}), **sizes["vae"]},
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
