"""Names of results with values of options in them: ``{prompt}``, ``{shift}``, ``{any_option}``.

``{seed}`` and ``{index}`` stay, for ``results/output_paths.py``: they are known when the video has its place.
"""

import re
from pathlib import Path

from videogen.errors import InputError, nearest
from videogen.tasks import option_types as types
from videogen.tasks.geometry import Shape
from videogen.tasks.options import FLAG_NAMES, OPTIONS, Options

PATTERNS = [option.name for option in OPTIONS.values() if option.has_fields]
LATER = ("seed", "index")
MARK = re.compile(r"\{([^{}]*)\}")
MAX_VALUE_BYTES = 60  # bytes of one value; names may have 200
WORDS = {"None": "none", "()": "none", "True": "on", "False": "off"}
FILES = (types.path, types.file_path, types.folder, types.paths)


def fill(options: Options, shape: Shape, model: str) -> Options:
    """Return options with the values in their output names.

    Args:
        shape: of the video; ``{width}`` is its width, however it was asked for.
        model: name of the model found.

    Raises:
        InputError: braces with something else than the name of an option in them, or one without its other.
    """
    known = {
        "height": shape.height,
        "width": shape.width,
        "size": (shape.width, shape.height),
        "num_frames": shape.num_frames,
        "fps": shape.fps,
        "duration": round(shape.num_frames / shape.fps, 3),
        "model_id": model,
        "prompt": options.prompt or next(iter(options.roll_prompts or ()), None),
    }

    def filled(flag: str, pattern: str) -> str:
        def value(mark: re.Match[str]) -> str:
            name = FLAG_NAMES.get(mark[1].replace("-", "_"), mark[1])
            if name in LATER:
                return f"{{{name}}}"
            if name not in OPTIONS or name in PATTERNS or OPTIONS[name].about_run:
                near = nearest(mark[1], [*FLAG_NAMES, *LATER])
                allowed = "{seed}, {index}, {prompt}, or the name of any other option"
                fix = f"nearest {{{near}}}" if near else f"use {allowed}"
                raise InputError(flag, pattern, f"{mark[0]} is not the name of an option", fix)
            return written(name, known[name] if name in known else getattr(options, name))

        rest = re.sub(r"\{\{|\}\}", "", MARK.sub("", pattern))
        if (opened := rest.count("{") - rest.count("}")) != 0:
            lone, other = "{}" if opened > 0 else "}{"
            raise InputError(flag, pattern, f"has a {lone} without a {other}", "write for example {seed}")
        return MARK.sub(value, pattern)

    changes = {
        name: filled(OPTIONS[name].flag, pattern)
        for name in PATTERNS
        if (pattern := getattr(options, name)) and {"{", "}"} & {*pattern}
    }
    return options.replace(**changes) if changes else options


def written(name: str, value: object) -> str:
    """Return the value of an option as it may stand in the name of a file."""
    if isinstance(value, types.Lora):
        return _slug(value.path.stem)
    if isinstance(value, tuple | list) and value:
        return ("x" if name == "size" else "-").join(written(name, part) for part in value)
    text = f"{value:g}" if isinstance(value, float) else WORDS.get(str(value), str(value))
    if OPTIONS[name].is_prompt:
        return _slug(text.lower())
    if OPTIONS[name].parse in FILES:  # without the suffix of a file, but with the version of a model
        text = re.sub(r"\.[A-Za-z]\w{1,4}$", "", Path(text).name)
    return _slug(text, keep="+.")


def _slug(text: str, keep: str = "") -> str:
    """Return a text with nothing but letters, digits and dashes in it, cut to what a name has room for."""
    slug = re.sub(rf"[^\w{re.escape(keep)}-]+", "-", text).strip("-.")
    cut = slug.encode()[:MAX_VALUE_BYTES].decode(errors="ignore").rstrip("-.")
    return cut or "none"
