"""Names and shapes of every tensor of the published checkpoints, and what else is known of them."""

import gzip
import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "golden" / "manifests.json.gz"
MANIFESTS: dict[str, dict[str, Any]] = json.loads(gzip.decompress(FILE.read_bytes()))
# What the manifests do not hold of a config.json, as published.
CONFIGS: dict[str, dict[str, Any]] = {
    "llava": {
        "image_token_index": 128257,
        "pad_token_id": 128258,
        "text_config": {
            **{"model_type": "llama", "vocab_size": 128320, "intermediate_size": 14336},
            **{"num_key_value_heads": 8, "rope_theta": 500000.0, "max_position_embeddings": 8192},
        },
        "vision_config": {
            **{"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096},
            **{"num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14},
        },
        "vision_feature_layer": -2,
    },
    "clip_text": {
        "text_config": {
            **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
            **{"num_attention_heads": 12, "vocab_size": 49408, "projection_dim": 768},
        }
    },
}
