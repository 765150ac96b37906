"""ComfyUI nodes: a model of videogen, and the videos that it makes.

Widgets and sockets are made from the rows of options and tasks, so that names, texts and checks are those of
the command line.
"""

import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import comfy.utils
import soundfile
import torch
import yaml
from comfy import model_management
from PIL import Image

import videogen
from videogen.errors import InputError
from videogen.results.progress import Progress, Report
from videogen.tasks.hints import option_named
from videogen.tasks.option_types import DRAWN_SEEDS
from videogen.tasks.options import OPTIONS, Options
from videogen.tasks.table import INPUTS, TASKS, find

MODEL = "VIDEOGEN_MODEL"  # type of what the nodes hand on: keywords of videogen.generate
TYPES = get_type_hints(Options)
LOADED = ("model_id", "revision", *(name for name, option in OPTIONS.items() if option.reloads))
OWN = {"output", "codec", "on_event", "queue", "task", "task_type"}  # what the nodes say themselves
SHOWN = ("prompt", "negative_prompt", "resolution", "width", "height", "num_frames")
KINDS = {"image": "IMAGE", "video": "IMAGE,VIDEO", "audio": "AUDIO"}
# Socket -> its input flag, and what that takes; a flag that takes several files has a socket for each.
SOCKETS = {
    f"{name}_{number}" if files.most > 1 else name: (name, files)
    for name, files in INPUTS.items()
    for number in range(1, files.most + 1)
}
DEFAULT = "default"
EXAMPLE = "num_inference_steps: 20"
# The one queue, which has one model loaded, for as long as ComfyUI keeps a model node's output.
queues: "weakref.WeakValueDictionary[str, videogen.Queue]" = weakref.WeakValueDictionary()


def widget(name: str) -> tuple[object, dict[str, object]]:
    """Return the widget of an option; left as it is, the option is not given."""
    option = OPTIONS[name]
    if option.parse is None:
        kind, facts = "BOOLEAN", {"default": False}
    elif choices := getattr(option.parse, "choices", None):
        kind, facts = [DEFAULT, *choices], {"default": DEFAULT}
    elif int in get_args(TYPES[name]):
        kind, facts = "INT", {"default": 0, "min": 0, "max": 1_000_000}
    else:
        kind, facts = "STRING", {"default": "", "multiline": option.encoded}
    return kind, {"tooltip": option.help, **facts}


def given(widgets: Mapping[str, object]) -> dict[str, object]:
    """Return the options whose widgets are not as they were."""
    return {name: value for name, value in widgets.items() if value not in ("", 0, DEFAULT)}


def converted(kind: str, value: Any, folder: Path) -> list[object]:
    """Return what came through a socket as ``videogen.generate`` takes it; a batch is several images."""
    if kind == "audio":
        path = folder / "sound.wav"
        soundfile.write(path, value["waveform"][0].T.cpu().numpy(), value["sample_rate"], subtype="FLOAT")
        return [path]
    images = value.get_components().images if hasattr(value, "get_components") else value
    frames = (images[..., :3].clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy()
    return [frames] if kind == "video" else [Image.fromarray(frame) for frame in frames]


def inputs_of(task: str, connected: Mapping[str, Any], folder: Path) -> dict[str, object]:
    """Return the inputs that are connected, by flag; an InputError says where they are too many."""
    found: dict[str, list] = {}
    for socket, (name, files) in SOCKETS.items():
        if connected.get(socket) is not None:
            found.setdefault(name, []).extend(converted(files.kind, connected[socket], folder))
            find(task).inputs.get(name, files).check(name, task, len(found[name]))
    return {name: values if len(values) > 1 else values[0] for name, values in found.items()}


class LoadModel:
    """Node that says which model is loaded how; the first video reads its weights."""

    CATEGORY, FUNCTION, RETURN_TYPES, RETURN_NAMES = "videogen", "load", (MODEL,), ("model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, object]:  # noqa: N802 - ComfyUI's name
        task = (list(TASKS), {"tooltip": OPTIONS["task_type"].help})
        return {"required": {"task": task, **{name: widget(name) for name in LOADED}}}

    def load(self, **widgets: object) -> tuple[dict[str, object]]:
        """Return the model."""
        queue = queues.get("") or queues.setdefault("", videogen.Queue())
        return ({"queue": queue, **given(widgets)},)


class MakeVideo:
    """Node that makes a video: its frames, their rate, and its sound if it has any."""

    CATEGORY, FUNCTION, RETURN_TYPES = "videogen", "make", ("IMAGE", "FLOAT", "AUDIO")
    RETURN_NAMES = ("images", "fps", "audio")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, object]:  # noqa: N802 - ComfyUI's name
        seed = {"default": 42, "min": 0, "max": DRAWN_SEEDS - 1, "control_after_generate": True}
        more = {"default": "", "multiline": True, "tooltip": "other options, one a line"}
        more |= {"placeholder": EXAMPLE}
        required = {"model": (MODEL,), **{name: widget(name) for name in SHOWN}, "seed": ("INT", seed)}
        required |= {"options": ("STRING", more), "keep_loaded": ("BOOLEAN", {"default": True})}
        optional = {socket: (KINDS[files.kind],) for socket, (_, files) in SOCKETS.items()}
        return {"required": required, "optional": optional}

    def make(
        self, model: dict[str, Any], seed: int, options: str, *, keep_loaded: bool, **rest: Any
    ) -> tuple:
        """Make the video, with ComfyUI's progress bar and its way to stop."""
        bar = comfy.utils.ProgressBar(1)

        def on_event(report: Report) -> None:
            model_management.throw_exception_if_processing_interrupted()
            if isinstance(event := report.event, Progress) and event.total:
                bar.update_absolute(event.done, event.total)

        if not isinstance(more := yaml.safe_load(options) or {}, dict):
            raise InputError("options", options, "must be names and values", f"for example {EXAMPLE}")
        more = {str(name): value for name, value in more.items()}
        if taken := OWN & {option_named(name) or name for name in more}:
            raise InputError("options", ", ".join(sorted(taken)), "is the node's own", "leave it out")
        model_management.unload_all_models()
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode(mode=False):
            call = {**model, "seed": seed, **given({name: rest[name] for name in SHOWN}), **more}
            call |= inputs_of(model["task"], rest, Path(folder))
            result = videogen.generate(**call, output=f"{folder}/a.mkv", codec="ffv1", on_event=on_event)
            frames, sound = torch.from_numpy(result.frames) / 255, result.audio
        if not keep_loaded:
            model["queue"].close()
        audio = sound and {"waveform": torch.from_numpy(sound[0])[None], "sample_rate": sound[1]}
        return frames, float(result.fps), audio


NODE_CLASS_MAPPINGS = {"VideogenLoadModel": LoadModel, "VideogenMakeVideo": MakeVideo}
NODE_DISPLAY_NAME_MAPPINGS = dict(
    zip(NODE_CLASS_MAPPINGS, ("videogen: load model", "videogen: make video"), strict=True)
)
