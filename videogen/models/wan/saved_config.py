"""The config.json of a saved transformer, which diffusers' classes read too where they can hold the model."""

import json

from videogen.files import to_json


def for_diffusers(text: str) -> str:
    """Return the config of a WanDiT, as JSON, without what it has no use for.

    It is under the name of diffusers' class, if that has all that is used.
    """
    config = json.loads(text)
    unused = [name for name in ("audio_dim", "inject_sample_info") if not config[name]]
    groups = tuple("audio_" if name == "audio_dim" else name for name in unused)
    kept = {name: value for name, value in config.items() if not name.startswith(groups)}
    named = {"_class_name": "WanTransformer3DModel"} if len(unused) > 1 else {}
    return to_json({**kept, **named})
