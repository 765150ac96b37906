"""videogen: video generation with the Wan-family models and HunyuanVideo-I2V.

>>> pipeline = videogen.load("reference_to_video", model="tiny")
>>> frames = pipeline("a robot waves", ref_imgs=[image], num_frames=17).frames
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(task: str, model: str | None = None, **options: Any) -> Any:
    """Return a task's pipeline, ready to call; see ``videogen.engine.load.load``."""
    from videogen.engine.load import load as load_now  # noqa: PLC0415 - torch, diffusers, transformers

    return load_now(task, model, **options)


def _from_pretrained(pipeline_class: type, source: str, **options: Any) -> Any:
    """Open a pipeline as its class is asked to; see ``videogen.engine.pretrained``."""
    from videogen.engine.pretrained import from_pretrained  # noqa: PLC0415 - torch, diffusers, transformers

    return from_pretrained(pipeline_class, source, **options)
