"""The config.json of a saved transformer, which diffusers' classes read too where they can hold the model."""

import json

from videogen.files import to_json


def for_diffusers(text: str) -> str:
    """Return a config as diffusers' class says it; as it is for a model that hears, which none can hold.

    ``text``: the config of a WanDiT as JSON.
    """
    config = json.loads(text)
    if config["audio_dim"] is not None:
        return text
    told_fps = config["inject_sample_info"]
    others = "audio_" if told_fps else ("audio_", "inject_sample_info")
    kept = {name: value for name, value in config.items() if not name.startswith(others)}
    kind = "SkyReelsV2Transformer3DModel" if told_fps else "WanTransformer3DModel"
    return to_json({**kept, "_class_name": kind})
