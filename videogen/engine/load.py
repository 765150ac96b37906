"""From a model's name to a pipeline, ready to call."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from videogen.checkpoints import lora_source, resolve
from videogen.checkpoints.json_files import read_json
from videogen.checkpoints.layouts import Checkpoint, component_sizes
from videogen.checkpoints.model_features import features_of
from videogen.checkpoints.resolve import (
    inspect,
    licence_note,
    patterns,
    repository_names,
    row_of,
    tiny_folder,
)
from videogen.checkpoints.stored_tensors import component_shapes
from videogen.checkpoints.weight_files import weight_files
from videogen.engine.third_party import quiet_imports
from videogen.errors import CheckpointError, InputError, first_line
from videogen.models.components import ComponentPlan, plan_component
from videogen.models.loader_options import dtype_of
from videogen.pipelines.base import VideoPipeline
from videogen.planning.plan import Outline, Plan
from videogen.planning.request_checks import check_lora
from videogen.planning.resources import ram_warning
from videogen.results.formatting import format_bytes
from videogen.results.progress import Reporter
from videogen.runtime import apply, float8, memory, parallel, weight_formats
from videogen.runtime import device as devices
from videogen.runtime.cross_attention_cache import cache_cross_attention
from videogen.runtime.device import choose_device
from videogen.runtime.kernels import enable_fused_kernels
from videogen.runtime.precision import set_precision
from videogen.runtime.vae import prepare_vae
from videogen.tasks import kernels
from videogen.tasks.config import Config
from videogen.tasks.option_types import Lora
from videogen.tasks.options import Options
from videogen.tasks.table import find, variant
from videogen.tasks.task_spec import TaskSpec

logger = logging.getLogger(__name__)

REPORT_EVERY = 1.0  # seconds; tensors are read faster than anybody wants to know
# Of a LoRA's expert: whether it goes into the second transformer; unnamed, into each.
EXPERTS = {None: (False, True), "high": (False,), "low": (True,)}
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in kernels.DTYPES}
# What a checkpoint's tiny_arch.json calls our components.
ARCH_NAMES = {"transformer": "dit", "image_encoder": "clip"}


def load(
    task: str,
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    device: str | torch.device = "auto",
    components: Mapping[str, Any] | None = None,
) -> VideoPipeline:
    """Return a task's pipeline, ready to call.

    It sets, for the whole process, how float32 is multiplied on a GPU: in TF32 beside half precision, else
    exactly.

    Args:
        task: name of a task ('reference_to_video').
        model: folder, hub id, 'miniature' or 'tiny'; None is the published default.
        revision: branch, tag or commit of the hub repository.
        dtype: of the large weights, also as a word; norms, time embedding and VAE are float32 always.
        device: 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.
        components: name -> component in place of the model's own, whose weights are then not read.

    Raises:
        InputError, CheckpointError: an unknown task or device, a model that is missing or does not fit.
    """
    spec, place = find(task), choose_device(str(device))
    dtype = dtype_of(dtype)
    checkpoint = fetch(resolve.locate(str(model or spec.default_model()), revision, spec), spec)
    set_precision(place, dtype)
    enable_fused_kernels(place, dtype)
    pipeline = load_pipeline(
        variant(spec.name, checkpoint.family), checkpoint, dtype, place, components=components or {}
    )
    if place.type != "cpu":  # there all is on it already, and diffusers would warn of CLIP's float16
        pipeline.to(place)
    if pipeline.vae is not None:
        prepare_vae(pipeline.vae, place, torch.float32)
    return pipeline


def load_pipeline(
    spec: TaskSpec,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device | None = None,
    reporter: Reporter | None = None,
    *,
    components: Mapping[str, Any] = MappingProxyType({}),
) -> VideoPipeline:
    """Build a task's pipeline from a checkpoint that is on this machine.

    Args:
        device: where transformers and VAE are put as they are read, without a copy in RAM; encoders, which
            work briefly, stay on the CPU. None is the CPU.
        components: in place of those of the checkpoint.

    Raises:
        CheckpointError: unreadable files, or tensors that do not fit.
    """
    assert checkpoint.folder is not None
    arch_file = checkpoint.folder / "tiny_arch.json"
    arch = read_json(arch_file) if arch_file.is_file() else {}
    module, _, class_name = spec.pipeline.partition(":")
    with quiet_imports():
        pipeline_class: type[VideoPipeline] = getattr(import_module(module), class_name)
    encoders = pipeline_class.encoder_names()
    # All that can be wrong with the files is found out before the first weight is read.
    component_plans = {
        name: plan_component(component, checkpoint.place(name), _arch(checkpoint, name, arch))
        for name, component in spec.components.items()
        if name not in components
    }
    reporter, loaded = reporter or Reporter(), dict(components)
    for name, component_plan in component_plans.items():
        place = None if name in encoders else device
        with _reading(reporter, name, checkpoint, component_plan) as on_read:
            loaded[name] = component_plan.load_weights(dtype, place, on_read)
    pipeline = pipeline_class(**loaded)
    pipeline.loaded_from(checkpoint, spec)
    return pipeline


@contextmanager
def _reading(
    reporter: Reporter, name: str, checkpoint: Checkpoint, component_plan: ComponentPlan
) -> Iterator[Callable[[int], None]]:
    """Report the bytes of a component's files; yields what takes numbers of elements that were read."""
    elements = component_plan.num_elements
    size = sum(file.stat().st_size for file in weight_files(checkpoint.place(name))) if elements else 0
    with reporter.stage("load", name, total=size, unit="byte", every=REPORT_EVERY) as advance:
        yield lambda read: advance(read * size / elements)


def _arch(checkpoint: Checkpoint, name: str, arch: Config) -> Config | None:
    """Return what tensor shapes do not tell of a component.

    A file in its place has the folder's config, unless its width is another.
    """
    own = arch.get(ARCH_NAMES.get(name, name))
    if name not in checkpoint.replaced:
        return own
    config = checkpoint.component_config(name)
    width = features_of(component_shapes(checkpoint.replaced[name])).size.width
    heads, head_dim = (config.get(size, 0) for size in ("num_attention_heads", "attention_head_dim"))
    if width and config.get("dim", heads * head_dim) not in (0, width):
        return own
    return {**config, **(own if isinstance(own, dict) else {})}


def fetch(
    checkpoint: Checkpoint, task: TaskSpec, timeout: float | None = None, reporter: Reporter | None = None
) -> Checkpoint:
    """Bring a model to this machine, by download or, for a tiny one, by making it.

    Raises:
        CheckpointError: no network, no such repository or revision, no space.
    """
    if checkpoint.folder is not None:
        return checkpoint
    if checkpoint.tiny is not None:
        from videogen.models import tiny  # noqa: PLC0415 - needs torch

        folder = tiny.build(checkpoint.tiny, tiny_folder(checkpoint.tiny))
        found = replace(checkpoint, folder=folder)
        return replace(found, sizes=component_sizes(found))
    from videogen.checkpoints import hub  # noqa: PLC0415

    if not hub.is_offline():
        logger.info("downloading %s: %s", checkpoint.name, licence_note(checkpoint.name, task))
    names = list(repository_names(checkpoint.name, task))
    revision = checkpoint.revision or row_of(checkpoint.name, task).revision()
    replaced = checkpoint.replaced
    size = sum(size for name, size in checkpoint.sizes.items() if name not in replaced)
    with (reporter or Reporter()).stage("download", checkpoint.name, total=size, unit="byte") as advance:
        snapshot, name = hub.download(names, revision, patterns(task, replaced), size, timeout, advance)
    return replace(inspect(snapshot, task, name=name, replaced=replaced), revision=snapshot.name)


def fetch_loras(options: Options) -> tuple[Lora, ...]:
    """Return the LoRAs, each with its file on this machine.

    Raises:
        CheckpointError, InputError: one cannot be downloaded, or is no LoRA.
    """
    made = []
    for lora in options.lora:
        if lora.source is not None:
            lora = lora._replace(path=lora_source.fetch(lora.source, options.download_timeout))  # noqa: PLW2901
            check_lora(lora.path, lora.name)
        made.append(lora)
    return tuple(made)


def set_up(plan: Plan, reporter: Reporter | None = None) -> VideoPipeline:
    """Load a plan's pipeline and apply its runtime options, from outside."""
    options, degrees = plan.options, plan.facts.degrees
    device, dtype = devices.choose_device(options.device), DTYPES[options.dtype]
    need = plan.facts.memory.peak(offload=options.offload, low_vram=options.low_vram, tiled=plan.tiled)
    if device.type != "cpu" and need > (free := devices.free_memory(device)):
        about = f"this takes about {format_bytes(need)}, and {device} has {format_bytes(free)} free"
        logger.warning("%s; --dry_run shows what other options take", about)
    if short := ram_warning(plan, on_cpu=device.type == "cpu"):
        logger.warning(short)
    check_device(plan)
    set_precision(device, dtype)
    enable_fused_kernels(device, dtype, DTYPES[options.vae_dtype])
    whole = not (options.offload or options.low_vram or options.quantize)
    place = device if whole else memory.CPU
    pipeline = load_pipeline(plan.task, plan.checkpoint, dtype, place, reporter)
    load_loras(pipeline, options.lora)
    if options.float8_matmul:
        for transformer in pipeline.transformers:
            float8.quantize(transformer, device)
    if options.quantize:
        for transformer in pipeline.transformers:
            weight_formats.quantize(transformer, device, options.quantize)
    memory.place(pipeline, device, offload=options.offload, low_vram=options.low_vram)
    prepare_vae(pipeline.vae, device, DTYPES[options.vae_dtype])
    if not options.low_vram:
        cache_cross_attention(pipeline)
    for transformer in pipeline.transformers:
        pipeline.attention_backend = apply.set_attention_backend(
            transformer, options.attention_backend, device, dtype, ring=degrees.ring > 1
        )
        if options.compile:
            sharded = degrees.sequence > 1
            apply.compile_blocks(transformer, device, streamed=options.low_vram, sharded=sharded)
    parallel.apply_parallelism(pipeline, degrees, device)
    return pipeline


def load_loras(pipeline: VideoPipeline, loras: Sequence[Lora]) -> None:
    """Load LoRA files and set their strengths.

    Raises:
        CheckpointError: a file that holds no LoRA for this model.
    """
    names = [f"lora_{index}" for index in range(len(loras))]
    for name, lora in zip(names, loras, strict=True):
        experts = EXPERTS[lora.expert][: len(pipeline.transformers)]
        try:
            for second in experts:
                where = {"load_into_transformer_2": True} if second else {}
                pipeline.load_lora_weights(str(lora.path), adapter_name=name, quiet=True, **where)
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(f"--lora {lora.path}: does not fit ({first_line(error)})") from None
    if names:
        pipeline.set_adapters(names, [lora.scale for lora in loras])


def check_device(plan: Outline) -> None:
    """Refuse what the devices of this machine cannot do.

    Raises:
        InputError: the first thing.
    """
    device = devices.choose_device(plan.options.device)
    if plan.options.noise_device == "cuda" and not torch.cuda.is_available():
        raise InputError("--noise_device", "cuda", "there is no CUDA device here", "use cpu")
    apply.check_attention_backend(
        plan.options.attention_backend, device, DTYPES[plan.options.dtype], ring=plan.facts.degrees.ring > 1
    )
    if plan.options.float8_matmul:
        float8.check(device)
