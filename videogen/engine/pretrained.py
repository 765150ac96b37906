"""``from_pretrained`` of the pipeline classes: diffusers' arguments, for every kind of model folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from videogen.checkpoints import hub
from videogen.checkpoints.json_files import read_json
from videogen.checkpoints.resolve import inspect
from videogen.engine.load import load
from videogen.errors import CallError, CheckpointError, VideoGenError, nearest
from videogen.pipelines.base import VideoPipeline
from videogen.pipelines.components import OWN_INDEX
from videogen.pipelines.signature import rows_of
from videogen.runtime.vae import prepare_vae
from videogen.tasks.table import ROWS

DEFAULT_DTYPE = torch.float32  # diffusers' own; videogen.load has bfloat16
HUB = ("token", "cache_dir", "local_files_only")
SAVED_ONLY = ("variant", "use_safetensors", "low_cpu_mem_usage", "max_memory", "disable_mmap")
"""Options for folders that ``save_pretrained`` wrote."""
PipelineT = TypeVar("PipelineT", bound=VideoPipeline)
Dtypes = torch.dtype | Mapping[str, torch.dtype]


def open_pretrained(
    pipeline_class: type[PipelineT],
    source: str,
    *,
    torch_dtype: Dtypes | None = None,
    device: str = "cpu",
    device_map: str | None = None,
    revision: str | None = None,
    **options: Any,
) -> PipelineT:
    """Return a pipeline of a class; see ``VideoPipeline.from_pretrained``."""
    dtype = torch_dtype or options.pop("dtype", None) or DEFAULT_DTYPE
    components, _ = pipeline_class._get_signature_keys(pipeline_class)
    given = {name: options.pop(name) for name in components if name in options}
    access = {name: options.pop(name) for name in HUB if name in options}
    _check_names(options, [*SAVED_ONLY, *HUB, *components, "torch_dtype", "device", "device_map", "revision"])
    if _saved_as(Path(source), pipeline_class):
        pipeline = _open_saved(pipeline_class, source, dtype, device_map=device_map, **options, **given)
        return pipeline if device_map else pipeline.to(device)
    if options:
        name, value = next(iter(options.items()))
        raise CallError(f"{name}=", value, f"{source} was not saved by save_pretrained", "leave it out")
    place = device_map or device
    with hub.access(**access):
        return _load(pipeline_class, source, dtype, device=place, revision=revision, components=given)


def _check_names(options: Mapping[str, object], known: list[str]) -> None:
    for name in options:
        if name not in SAVED_ONLY:
            close = nearest(name, known)
            raise CallError(
                f"{name}=", None, "is no argument of from_pretrained", f"nearest {close or 'none'}"
            )


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


def _open_saved(pipeline_class: type[PipelineT], folder: str, dtype: Dtypes, **options: Any) -> PipelineT:
    pipeline = pipeline_class.open_saved(folder, dtype=dtype, **options)
    prepare_vae(pipeline.vae, pipeline.vae.device, pipeline.vae.dtype)
    for row in rows_of(pipeline_class):
        try:
            pipeline.loaded_from(inspect(Path(folder), row, name=Path(folder).resolve().name), row)
        except VideoGenError:
            continue
        break
    return pipeline


def _load(
    pipeline_class: type[PipelineT],
    source: str,
    dtype: Dtypes,
    *,
    components: Mapping[str, Any],
    **options: Any,
) -> PipelineT:
    """Load a published model for the first task of a class that it fits."""
    several = dtype if isinstance(dtype, Mapping) else {"default": dtype}
    errors: list[VideoGenError] = []
    for name in dict.fromkeys(row.name for row in rows_of(pipeline_class)):
        try:
            pipeline = load(
                name, source, dtype=several.get("default", DEFAULT_DTYPE), components=components, **options
            )
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
        for component in several.keys() - {"default"}:
            getattr(pipeline, component).to(several[component])
        return pipeline
    raise errors[0]
