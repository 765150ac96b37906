"""Where a model's files are: local folder, Hugging Face cache and hub, or the built-in tiny models.

Nothing here imports torch: a missing folder or component is reported within a moment of the start. The
layouts are tables from component to place; what is inside the files is ``weights.py``'s business.
"""

import getpass
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from videogen.checkpoints.tensor_headers import check as check_header
from videogen.checkpoints.tensor_headers import tensor_shapes
from videogen.errors import CheckpointError, InputError, nearest
from videogen.tasks import config
from videogen.tasks.table import TASKS, VARIANTS, TaskSpec

# Component -> place, per layout. A place ending in "/" is a folder with its own config or tokenizer files
# ("./" is the model folder itself); anything else is one weight file. Specs skyreels_v3 section 11,
# skyreels_v2 section 1, talking_avatar section 2, wan22 section 1.
_WAN21 = {
    "vae": "Wan2.1_VAE.pth",
    "text_encoder": "models_t5_umt5-xxl-enc-bf16.pth",
    "tokenizer": "google/umt5-xxl/",
}
_CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
_HUNYUAN = "hunyuan-video-i2v-720p/"
LAYOUTS: dict[str, dict[str, str]] = {
    "diffusers": {
        "transformer": "transformer/",
        "shot_transformer": "transformer/",
        "transformer_2": "transformer_2/",
        "vae": "vae/",
        "text_encoder": "text_encoder/",
        "tokenizer": "tokenizer/",
        "image_encoder": "image_encoder/",
        "audio_encoder": "audio_encoder/",
        "hunyuan_transformer": "transformer/",
        "hunyuan_vae": "vae/",
        "llava": "text_encoder/",
        "clip_text": "text_encoder_2/",
        "tokenizer_2": "tokenizer_2/",
        "image_processor": "image_processor/",
    },
    "HunyuanVideo-I2V": {
        "hunyuan_transformer": f"{_HUNYUAN}transformers/",
        "hunyuan_vae": f"{_HUNYUAN}vae/",
        "llava": "text_encoder_i2v/",
        "tokenizer": "text_encoder_i2v/",
        "image_processor": "text_encoder_i2v/",
        "clip_text": "text_encoder_2/",
        "tokenizer_2": "text_encoder_2/",
    },
    "SkyReels-V3 extension": {
        "transformer": "transformer/",
        "shot_transformer": "shot_transformer/",
        **_WAN21,
    },
    "Wan2.2 A14B": {"transformer": "high_noise_model/", "transformer_2": "low_noise_model/", **_WAN21},
    "SkyReels-V3 avatar": {
        "transformer": "./",
        "image_encoder": _CLIP,
        "audio_encoder": "chinese-wav2vec2-base/",
        **_WAN21,
    },
    "Wan2.2 5B": {"transformer": "./", **_WAN21, "vae": "Wan2.2_VAE.pth"},
    "SkyReels-V2": {"transformer": "./", "image_encoder": _CLIP, **_WAN21},
}
# What tells a layout: the first row of which one path exists decides.
MARKERS: dict[str, tuple[str, ...]] = {
    "HunyuanVideo-I2V": ("hunyuan-video-i2v-720p", "text_encoder_i2v"),
    "diffusers": ("model_index.json", "vae", "text_encoder"),
    "SkyReels-V3 extension": ("shot_transformer", "transformer"),
    "Wan2.2 A14B": ("high_noise_model", "low_noise_model"),
    "SkyReels-V3 avatar": ("chinese-wav2vec2-base",),
    "Wan2.2 5B": ("Wan2.2_VAE.pth",),
    "SkyReels-V2": ("Wan2.1_VAE.pth", "config.json"),
}
# The tensor that makes tokens of latents, and whose it is; then how the names of an embedding of the guidance
# scale begin.
PATCHES = {
    "patch_embedding.weight": "Wan",
    "img_in.proj.weight": "HunyuanVideo",
    "x_embedder.proj.weight": "HunyuanVideo",
}
LAYER = re.compile(r"(transformer_|single_transformer_|double_|single_)?blocks\.\d+\.")
FEED_FORWARDS = ("blocks.0.ffn.0.weight", "blocks.0.ffn.net.0.proj.weight")
GUIDANCE = ("guidance_in.", "time_text_embed.guidance_embedder.")
HEAD_DIM = 128  # of every published transformer
HEAD_NORMS = (
    "img_attn_q_norm.weight",
    "transformer_blocks.0.attn.norm_q.weight",
)  # as long as a head is wide
TRAITS = {
    "kind": "a {} transformer",
    "in_channels": "{} input channels",
    "image": "image features",
    "audio": "audio layers",
    "fps": "frame rate embedding",
    "experts": "{} experts",
}
# Read where a component's folder has no safetensors; the first kind that is there.
PICKLES = ("pytorch_model.bin", "pytorch_model.pt", "*_model_states.pt", "*_model_states_fp8.pt")
FLOAT8 = "_fp8.pt"  # how the names of float8 weights end
SCALES = "*_map.pt"  # of such weights
# Of the files in a component's folder.
KINDS = ("*.json", "*.safetensors", "*.model", "*.txt", *PICKLES, SCALES)
# Components without weights -> the files of which one must be there.
WEIGHTLESS = {
    "tokenizer": ("tokenizer.json", "spiece.model", "tokenizer.model"),
    "tokenizer_2": ("tokenizer.json", "vocab.json"),
    "image_processor": ("preprocessor_config.json",),
}
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")
LIGHT = (".json", ".model", ".txt")  # suffixes of what they are made of
WITHOUT_CONFIG = ("transformers",)  # folders whose weights say it all
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_EDGE = 1 << 16  # bytes read at either end of a file for its fingerprint


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model as found (``folder`` set) or as it will be fetched (``folder`` None)."""

    name: str
    layout: str
    family: str
    components: Mapping[str, str]
    folder: Path | None = None
    revision: str | None = None
    tiny: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    def place(self, component: str) -> Path:
        """Folder or file of what the pipeline calls ``component`` (the model must be here)."""
        assert self.folder is not None
        return self.folder / LAYOUTS[self.layout][self.components[component]]

    def component_config(self, component: str) -> dict:
        """A component's config.json; empty where there is none, or the model is not here yet."""
        file = self.place(component) / "config.json" if self.folder is not None else None
        return read_json(file) if file is not None and file.is_file() else {}


def locate(model_id: str, revision: str | None, task: TaskSpec) -> Checkpoint:
    """Find a model without network: by path, in the Hugging Face cache, or as a tiny model.

    Raises:
        CheckpointError: a path without folder, an incomplete folder, a word that is neither path nor hub id.
    """
    if model_id.partition(":")[0] == "tiny":
        return _locate_tiny(model_id, task)
    path = Path(model_id).expanduser()
    if model_id.startswith(("/", ".", "~")) or path.is_dir():
        return inspect(path, task, name=path.resolve().name)
    if not HUB_ID.fullmatch(model_id):
        near = "nearest 'tiny'" if nearest(model_id.lower(), ["tiny"]) else f"default {task.default_model}"
        what = "neither a folder nor a hub id; give a path, owner/name or 'tiny'"
        raise CheckpointError(f"--model_id {model_id}: {what} ({near})")
    for row in VARIANTS[task.name]:
        if why := row.config.get("incomplete", {}).get(model_id):
            raise CheckpointError(f"--model_id {model_id}: {why}")
    from videogen.checkpoints import hub  # noqa: PLC0415 - 0.2 s, only for hub ids

    for name in spellings(model_id, task):
        if snapshot := hub.cached(name, revision or _row(name, task).revision, patterns(task)):
            try:
                found = inspect(snapshot, task, name=name)
            except CheckpointError:
                continue  # an interrupted or partial download: fetch completes it
            if _row(name, task).model(name) is None or found.family == _row(name, task).family:
                return replace(found, revision=snapshot.name)
    row = _row(model_id, task)
    known = any(model_id in model.names for model in row.models)
    return Checkpoint(
        name=model_id,
        layout=row.layouts[0],
        family=row.family,
        components=row.components,
        revision=revision,
        sizes=published(model_id, row)["bytes"] if known else {},
    )


def _row(model_id: str, task: TaskSpec) -> TaskSpec:
    """The task's row that knows a hub id (of several, by the longest name), else its first."""
    rows = VARIANTS[task.name]
    known = [(len(model.names[0]), row) for row in rows if (model := row.model(model_id)) is not None]
    return max(known, key=lambda named: named[0], default=(0, rows[0]))[1]


def fetch(checkpoint: Checkpoint, task: TaskSpec, timeout: float | None = None) -> Checkpoint:
    """Bring a model to this machine, by download or, for a tiny one, by making it.

    Raises:
        CheckpointError: no network, no such repository or revision, no space.
    """
    if checkpoint.folder is not None:
        return checkpoint
    if checkpoint.tiny is not None:
        from videogen.models import tiny  # noqa: PLC0415 - needs torch

        folder = tiny.build(checkpoint.tiny, tiny_folder(checkpoint.tiny))
        return replace(
            checkpoint, folder=folder, sizes=_sizes(folder, checkpoint.layout, checkpoint.components)
        )
    from videogen.checkpoints import hub  # noqa: PLC0415

    names = list(spellings(checkpoint.name, task))
    revision = checkpoint.revision or _row(checkpoint.name, task).revision
    snapshot, name = hub.download(names, revision, patterns(task), sum(checkpoint.sizes.values()), timeout)
    return replace(inspect(snapshot, task, name=name), revision=snapshot.name)


def spellings(model_id: str, task: TaskSpec) -> list[str]:
    """The id asked for, then the other names of the same repository."""
    models = [model for row in VARIANTS[task.name] for model in row.models]
    same = [name for model in models if model_id in model.names for name in model.names]
    return list(dict.fromkeys([model_id, *same]))


def patterns(task: TaskSpec) -> list[str]:
    """Only the files the task needs, of every layout it can read."""
    wanted = ["model_index.json", "tiny_arch.json"]
    every = [(layout, row) for row in VARIANTS[task.name] for layout in row.layouts]
    for layout, row in every:
        for place in _places(layout, row.components):
            inside = "" if place == "./" else place
            wanted += [inside + kind for kind in KINDS] if place.endswith("/") else [place]
    return list(dict.fromkeys(wanted))


def inspect(folder: Path, task: TaskSpec, *, name: str) -> Checkpoint:
    """Check that a folder holds every component of a task, by the files present and their headers.

    Raises:
        CheckpointError: what is missing or broken, and what is expected.
        InputError: a model for another task.
    """
    if not folder.is_dir():
        what = "is a file, not a model folder" if folder.exists() else "no such folder"
        raise CheckpointError(f"--model_id {folder}: {what}{_nearby(folder)}")
    layout = detect(folder)
    rows = VARIANTS[task.name]
    needed = [dict.fromkeys(_places(name, row.components)) for row in rows for name in row.layouts]
    expected = "; ".join(dict.fromkeys(" ".join(places) for places in needed))
    if layout is None:
        state = "is empty" if not any(folder.iterdir()) else "is not a model folder"
        what = f"{state}; {task.name} needs {expected}{_above(folder, task)}"
        raise CheckpointError(f"--model_id {folder}: {what}")
    fitting = [row for row in rows if layout in row.layouts]
    if not fitting:
        others = [other.name for other in TASKS.values() if layout in _layouts(other)]
        use = f"it is for {', '.join(others)}; " if others else ""
        known = " or ".join(dict.fromkeys(_layouts(task)))
        raise CheckpointError(
            f"--model_id {folder}: is a {layout} folder; {use}{task.name} needs a {known} folder"
        )
    # Before what is missing: another task's model lacks other files.
    row = _fitting(fitting, folder, layout, name)
    found = Checkpoint(name=name, layout=layout, family=row.family, components=row.components, folder=folder)
    missing = [
        problem
        for component in row.components.values()
        if (problem := _missing(folder, LAYOUTS[layout][component], component)) is not None
    ]
    if missing:
        what = f"incomplete {layout} folder; missing {', '.join(dict.fromkeys(missing))}"
        raise CheckpointError(f"--model_id {folder}: {what}{_above(folder, task)}")
    for file in files(found):
        if file.suffix in WEIGHTS:
            check_header(file)
    return replace(found, sizes=_sizes(folder, layout, row.components))


def _layouts(task: TaskSpec) -> list[str]:
    return [layout for row in VARIANTS[task.name] for layout in row.layouts]


def traits(checkpoint: Checkpoint) -> dict[str, Any]:
    """What tells Wan transformers of one layout apart, from the headers of the weight files.

    Raises:
        CheckpointError: a broken or truncated file.
    """
    shapes = tensor_shapes(weight_files(checkpoint.place("transformer")))
    found = next((name for name in PATCHES if name in shapes), None)
    patches = shapes.get(found or "", (0, 0))
    return {
        "kind": PATCHES.get(found or ""),
        "in_channels": patches[1],
        "image": any(key.startswith(("img_emb.", "condition_embedder.image_embedder.")) for key in shapes),
        "audio": any(key.startswith("audio_proj.") for key in shapes),
        "fps": "fps_embedding.weight" in shapes,
        "experts": 1 + _has_second_expert(checkpoint),
        "guidance": any(key.startswith(GUIDANCE) for key in shapes),
        "width": patches[0],
        "layers": len({layer[0] for key in shapes if (layer := LAYER.match(key))}),
        "ffn": next((shapes[name][0] for name in FEED_FORWARDS if name in shapes), 0),
    }


def heads(checkpoint: Checkpoint, task: TaskSpec) -> int:
    """Attention heads of the transformer; 0 while they are not known.

    Raises:
        CheckpointError: a broken or truncated file.
    """
    if checkpoint.folder is None:
        known = task.model(checkpoint.name) is not None and not checkpoint.tiny
        return published(checkpoint.name, task)["width"] // HEAD_DIM if known else 0
    config = checkpoint.component_config("transformer")
    if found := config.get("num_heads", config.get("num_attention_heads")):
        return int(found)
    shapes = tensor_shapes(weight_files(checkpoint.place("transformer")))
    head = next((shape[0] for name, shape in shapes.items() if name.endswith(HEAD_NORMS)), HEAD_DIM)
    return traits(checkpoint)["width"] // head


def _has_second_expert(checkpoint: Checkpoint) -> bool:
    assert checkpoint.folder is not None
    place = LAYOUTS[checkpoint.layout].get("transformer_2")
    if checkpoint.layout != "diffusers":
        return place is not None  # where it is missing, that is said later
    index = checkpoint.folder / "model_index.json"
    named = read_json(index).get("transformer_2") if index.is_file() else None
    return bool(named and named[0])


def _fitting(rows: Sequence[TaskSpec], folder: Path, layout: str, name: str) -> TaskSpec:
    """The row whose network the transformer is.

    Raises:
        InputError: there is none: a model for another task.
    """
    drafts = {
        row.family: Checkpoint(
            name=name, layout=layout, family=row.family, components=row.components, folder=folder
        )
        for row in rows
    }
    found = traits(drafts[rows[0].family])
    if not found["in_channels"]:
        return rows[0]  # not a transformer at all: what is missing is said later
    differing = {
        row.family: [trait for trait, wanted in row.network.items() if found[trait] != wanted] for row in rows
    }
    for row in rows:
        if not differing[row.family]:
            return row
    row = min(rows, key=lambda row: len(differing[row.family]))
    trait = differing[row.family][0]
    says = drafts[row.family].component_config("transformer").get("model_type")
    kind = f"model_type {says}, " if says else ""
    has = f"{'no ' if found[trait] is False else ''}{TRAITS[trait].format(found[trait])}"
    what = f"is a model for another task ({kind}{has}), not for {row.name}"
    raise InputError("--model_id", folder, what, f"use {row.default_model}")


def detect(folder: Path) -> str | None:
    """Name of the layout whose marker files are present, or None."""
    for layout, markers in MARKERS.items():
        if any((folder / marker).exists() for marker in markers):
            return layout
    return None


def files(checkpoint: Checkpoint, *names: str) -> list[Path]:
    """Every file of the checkpoint's components, or of some of them by name, in a fixed order."""
    assert checkpoint.folder is not None
    layout = LAYOUTS[checkpoint.layout]
    return [
        file
        for name, component in checkpoint.components.items()
        if not names or name in names
        for file in _files(checkpoint.folder, layout[component])
    ]


def fingerprint(checkpoint: Checkpoint, *components: str) -> str | None:
    """A digest of the names, sizes and edges of all files, or of those of some components.

    None while the model is not here.
    """
    if checkpoint.folder is None:
        return None
    digest = hashlib.sha256()
    for file in files(checkpoint, *components):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(checkpoint.folder).as_posix()}\0{size}\0".encode())
        with file.open("rb") as handle:
            digest.update(handle.read(_EDGE))
            handle.seek(max(0, size - _EDGE))
            digest.update(handle.read(_EDGE))
    return digest.hexdigest()[:16]


def parameters(checkpoint: Checkpoint, task: TaskSpec) -> dict[str, int]:
    """Weights per component, counted in the files' headers; before they are here, the published numbers."""
    if checkpoint.folder is None:
        known = published(checkpoint.name, task)["parameters"]
        return dict.fromkeys(known, 0) if checkpoint.tiny else known
    return {c: _count(checkpoint.place(c)) for c in checkpoint.components if c not in WEIGHTLESS}


def published(name: str, task: TaskSpec) -> Mapping[str, Any]:
    """What is known of a published model, or failing that of the task's default."""
    return (task.model(name) or task.models[0]).published


def _count(place: Path) -> int:
    return sum(math.prod(shape) for shape in tensor_shapes(weight_files(place)).values())


def weight_files(place: Path) -> list[Path]:
    """Weight files of a component: the file itself, or the safetensors of its folder, else its pickle."""
    if place.is_file():
        return [place]
    for kind in ("*.safetensors", *PICKLES):
        if found := sorted(place.glob(kind)):
            return found
    return []


def read_json(file: Path) -> dict:
    """A JSON object, or a CheckpointError that names the file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not readable as JSON ({error}); download it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: not a JSON object; download it again")
    return content


def cache_root() -> Path:
    """Folder for what videogen itself keeps: $VIDEOGEN_CACHE, else the user's cache folder."""
    if root := os.environ.get("VIDEOGEN_CACHE"):
        return Path(root).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    root_path = Path(base).expanduser() if base else Path.home() / ".cache"
    if os.access(root_path if root_path.exists() else root_path.parent, os.W_OK):
        return root_path / "videogen"
    return Path(tempfile.gettempdir()) / f"videogen-{getpass.getuser()}"


def tiny_folder(name: str) -> Path:
    """Where the tiny model of this config is kept; another config, another folder."""
    return cache_root() / "tiny" / f"{name}-{config.tiny_digest(name)}"


def _locate_tiny(model_id: str, task: TaskSpec) -> Checkpoint:
    """The tiny model that 'tiny' or 'tiny:NAME' means.

    Raises:
        CheckpointError: the task has no tiny model of that name.
    """
    models = {name: row for row in VARIANTS[task.name] for name in row.tiny}
    name = model_id.partition(":")[2] or next(iter(models))
    if name not in models:
        near = f"nearest tiny:{nearest(name, models) or next(iter(models))}"
        raise CheckpointError(
            f"--model_id {model_id}: {task.name} has the tiny models {', '.join(models)}; {near}"
        )
    row = models[name]
    folder = tiny_folder(row.tiny[name])
    found = Checkpoint(
        name=f"tiny:{name}",
        layout="diffusers",
        family=row.family,
        components=row.components,
        tiny=row.tiny[name],
    )
    if not (folder / "model_index.json").is_file():
        return found
    return replace(found, folder=folder, sizes=_sizes(folder, "diffusers", row.components))


def _places(layout: str, components: Mapping[str, str]) -> list[str]:
    return [LAYOUTS[layout][component] for component in components.values()]


def _files(folder: Path, place: str) -> list[Path]:
    path = folder / place
    if not place.endswith("/"):
        return [path]
    return sorted(file for kind in KINDS for file in path.glob(kind) if file.is_file())


def _sizes(folder: Path, layout: str, components: Mapping[str, str]) -> dict[str, int]:
    return {
        name: sum(
            file.stat().st_size
            for file in _files(folder, LAYOUTS[layout][component])
            if component not in WEIGHTLESS or file.suffix in LIGHT
        )
        for name, component in components.items()
    }


def _missing(folder: Path, place: str, component: str) -> str | None:
    """What a component lacks, in words; None when it is complete."""
    path = folder / place
    if not place.endswith("/"):
        return None if path.is_file() else place
    if files := WEIGHTLESS.get(component):
        return None if any((path / name).is_file() for name in files) else f"{place}{files[0]}"
    if not path.is_dir():
        return place
    if not (path / "config.json").is_file() and path.name not in WITHOUT_CONFIG:
        return f"{place}config.json"
    for index in path.glob("*.safetensors.index.json"):
        shards = set(read_json(index).get("weight_map", {}).values())
        absent = sorted(shard for shard in shards if not (path / shard).is_file())
        if absent:
            return f"{place}{absent[0]}" + (f" and {len(absent) - 1} more shards" if len(absent) > 1 else "")
    weights = weight_files(path)
    unscaled = [file for file in weights if file.name.endswith(FLOAT8) and not any(path.glob(SCALES))]
    lost = f"{unscaled[0].stem}_map.pt" if unscaled else "*.safetensors (or .pt)"
    return None if weights and not unscaled else place + lost


def _above(folder: Path, task: TaskSpec) -> str:
    """The folder above, where that is the model."""
    above = folder.resolve().parent
    return f"; nearest {above}" if detect(above) in _layouts(task) else ""


def _nearby(folder: Path) -> str:
    parent = folder.parent
    names = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
    close = nearest(folder.name, names)
    return f"; nearest {parent / close}" if close else "; give an existing folder, a hub id or 'tiny'"
