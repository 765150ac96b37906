"""From a model's name to a pipeline, ready to call."""

from importlib import import_module
from typing import TYPE_CHECKING

import torch

from videogen.checkpoints import resolve
from videogen.checkpoints.resolve import Checkpoint, read_json
from videogen.models.components import draft_component
from videogen.runtime.component_offload import ENCODER
from videogen.runtime.device import choose_device
from videogen.runtime.kernels import enable_fused_kernels
from videogen.runtime.vae import prepare_vae
from videogen.tasks.options import OPTIONS
from videogen.tasks.table import TaskSpec, find, variant

if TYPE_CHECKING:
    from videogen.pipelines.base import VideoPipeline

# What a checkpoint's tiny_arch.json calls our components.
ARCH_NAMES = {"transformer": "dit", "image_encoder": "clip"}


def load(
    task: str,
    model: str | None = None,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    device: str = "auto",
) -> "VideoPipeline":
    """A task's pipeline, ready to call.

    Args:
        task: name of a task ('reference_to_video').
        model: folder, hub id or 'tiny'; None is the published default.
        revision: branch, tag or commit of the hub repository.
        dtype: of the large weights, also as a word; norms, time embedding and VAE are float32 always.
        device: 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.

    Raises:
        InputError, CheckpointError: an unknown task or device, a model that is missing or does not fit.
    """
    spec, place = find(task), choose_device(device)
    dtype = getattr(torch, OPTIONS["dtype"].value(dtype)) if isinstance(dtype, str) else dtype
    checkpoint = resolve.fetch(resolve.locate(str(model or spec.default_model), revision, spec), spec)
    enable_fused_kernels(place, dtype)
    pipeline = load_pipeline(variant(spec.name, checkpoint.family), checkpoint, dtype, place).to(place)
    prepare_vae(pipeline.vae, place, torch.float32)
    return pipeline


def load_pipeline(
    spec: TaskSpec, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device | None = None
) -> "VideoPipeline":
    """A task's pipeline with the components of a checkpoint that is on this machine.

    Args:
        device: where transformers and VAE are put as they are read, without a copy in RAM; encoders, which
            work briefly, stay on the CPU. None is the CPU.

    Raises:
        CheckpointError: unreadable files, or tensors that do not fit.
    """
    assert checkpoint.folder is not None
    arch_file = checkpoint.folder / "tiny_arch.json"
    arch = read_json(arch_file) if arch_file.is_file() else {}
    # All that can be wrong with the files is found out before the first weight is read.
    drafts = {
        name: draft_component(component, checkpoint.place(name), arch.get(ARCH_NAMES.get(name, name)))
        for name, component in spec.components.items()
    }
    components = {
        name: draft.fill(dtype, None if ENCODER in name else device) for name, draft in drafts.items()
    }
    module, _, class_name = spec.pipeline.partition(":")
    pipeline = getattr(import_module(module), class_name)(**components)
    pipeline.checkpoint, pipeline.spec = checkpoint, spec
    return pipeline
