"""videogen: video generation with the Wan-family models and HunyuanVideo-I2V.

>>> video = videogen.generate("text_to_video", "a red ball bounces", model="miniature")
>>> pipeline = videogen.load("reference_to_video", model="tiny")
>>> frames = pipeline("a robot waves", ref_imgs=[image], num_frames=17).frames
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Queue", "Result", "__version__", "generate", "load", "plan", "stream"]

if TYPE_CHECKING:
    from videogen.engine.api import generate, plan, stream
    from videogen.engine.queue import Queue
    from videogen.engine.typed import load
    from videogen.results.result import Result

# Where each name of the API is; a module is imported with the first use of its name.
_HOMES = {
    "Queue": "videogen.engine.queue",
    "Result": "videogen.results.result",
    "generate": "videogen.engine.api",
    "load": "videogen.engine.load",
    "open_pretrained": "videogen.engine.pretrained",  # for the pipelines' from_pretrained
    "plan": "videogen.engine.api",
    "stream": "videogen.engine.api",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'videogen' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    from videogen.engine.third_party import quiet_imports  # noqa: PLC0415

    with quiet_imports():
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
