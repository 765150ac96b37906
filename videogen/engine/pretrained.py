"""``from_pretrained`` of the pipeline classes: diffusers' arguments, for every kind of model folder."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from videogen.checkpoints import hub
from videogen.checkpoints.json_files import read_json
from videogen.checkpoints.resolve import inspect
from videogen.engine.load import load
from videogen.errors import CallError, CheckpointError, VideoGenError, brief, nearest
from videogen.models.loader_options import INSTEAD, check_options, dtype_of, one_device
from videogen.pipelines.base import VideoPipeline
from videogen.pipelines.components import OWN_INDEX
from videogen.pipelines.signature import rows_of
from videogen.runtime.device import choose_device
from videogen.runtime.vae import prepare_vae
from videogen.tasks.table import ROWS

DEFAULT_DTYPE = torch.float32  # diffusers' own; videogen.load has bfloat16
HUB = ("token", "cache_dir", "local_files_only")
SAVED_ONLY = ("variant", "use_safetensors", "quantization_config", "disable_mmap")
"""Options for folders that ``save_pretrained`` wrote."""
PipelineT = TypeVar("PipelineT", bound=VideoPipeline)
Dtype = torch.dtype | str
Dtypes = Dtype | Mapping[str, Dtype]


def open_pretrained(
    pipeline_class: type[PipelineT],
    source: str,
    *,
    torch_dtype: Dtypes | None = None,
    device: str | torch.device = "cpu",
    device_map: object = None,
    revision: str | None = None,
    **options: Any,
) -> PipelineT:
    """Return a pipeline of a class; see ``VideoPipeline.from_pretrained``."""
    if torch_dtype and options.get("dtype"):
        raise CallError("dtype=", None, "is torch_dtype= under its newer name", "give one of the two")
    dtype = options.pop("dtype", None) or torch_dtype or DEFAULT_DTYPE
    components, _ = pipeline_class._get_signature_keys(pipeline_class)
    given = {name: options.pop(name) for name in components if name in options}
    access = {name: options.pop(name) for name in HUB if name in options}
    dtypes = _dtypes(dtype, components)
    saved = _saved_as(Path(source), pipeline_class)
    balanced = saved and device_map == "balanced"
    spread = ["max_memory"] if balanced else []
    known = [*SAVED_ONLY, *spread, *HUB, *components, "torch_dtype", "device", "device_map", "revision"]
    options = check_options("from_pretrained", options, known)
    if balanced:
        return _open_saved(pipeline_class, source, dtypes, device_map=device_map, **options, **given)
    place = one_device(device_map) or str(device)
    if saved:
        target = choose_device(place, "device=")
        return _open_saved(pipeline_class, source, dtypes, **options, **given).to(target)
    for name, value in options.items():
        if value is not None:
            fix = INSTEAD.get(name, "leave it out")
            raise CallError(f"{name}=", brief(value), f"{source} was not saved by save_pretrained", fix)
    with hub.access(**access):
        return _load(pipeline_class, source, dtypes, device=place, revision=revision, components=given)


def _dtypes(given: Dtypes, components: Collection[str]) -> dict[str, torch.dtype]:
    """Return the dtype of each component that has its own, and of the others as 'default'."""
    several = given if isinstance(given, Mapping) else {"default": given}
    for name in several.keys() - {"default", *components}:
        close = nearest(name, components)
        what = f"is no component; there are {', '.join(sorted(components))}"
        raise CallError("torch_dtype=", name, what, f"nearest {close}" if close else "leave it out")
    return {"default": DEFAULT_DTYPE} | {name: dtype_of(dtype) for name, dtype in several.items()}


def _saved_as(folder: Path, pipeline_class: type) -> bool:
    """Return whether ``save_pretrained`` of one of our pipelines wrote a folder.

    Raises:
        CallError: of another class.
    """
    index = folder / "model_index.json"
    found = read_json(index) if index.is_file() else {}
    name = found.get(OWN_INDEX, found).get("_class_name")
    ours = {row.pipeline.partition(":")[2] for row in ROWS}
    if name in ours - {each.__name__ for each in pipeline_class.__mro__}:
        what = f"is a model for {name}, not for {pipeline_class.__name__}"
        raise CallError("pretrained_model_name_or_path=", folder, what, f"use {name}")
    return name in ours or name == pipeline_class.__name__


def _open_saved(
    pipeline_class: type[PipelineT], folder: str, dtypes: Mapping[str, torch.dtype], **options: Any
) -> PipelineT:
    pipeline = pipeline_class.open_saved(folder, dtype=dtypes, **options)
    if pipeline.vae is not None:
        prepare_vae(pipeline.vae, pipeline.vae.device, pipeline.vae.dtype)
    for row in rows_of(pipeline_class):
        with suppress(VideoGenError):  # a row of other models
            pipeline.loaded_from(inspect(Path(folder), row, name=Path(folder).resolve().name), row)
            break
    return pipeline


def _load(
    pipeline_class: type[PipelineT],
    source: str,
    dtypes: Mapping[str, torch.dtype],
    *,
    components: Mapping[str, Any],
    **options: Any,
) -> PipelineT:
    """Load a published model for the first task of a class that it fits."""
    errors: list[VideoGenError] = []
    for name in dict.fromkeys(row.name for row in rows_of(pipeline_class)):
        try:
            pipeline = load(name, source, dtype=dtypes["default"], components=components, **options)
        except CheckpointError as error:
            errors.append(error)
            continue
        if not isinstance(pipeline, pipeline_class):
            kind, other = pipeline_class.__name__, type(pipeline).__name__
            raise CallError(
                "pretrained_model_name_or_path=",
                source,
                f"is a model for {other}, not for {kind}",
                f"use {other}",
            )
        for component in dtypes.keys() - {"default"}:
            if getattr(pipeline, component) is not None:
                getattr(pipeline, component).to(dtypes[component])
        return pipeline
    raise errors[0]
