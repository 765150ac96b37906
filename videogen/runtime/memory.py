"""Memory options applied to a built pipeline: offloading, float8 weights, tiled decoding."""

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from videogen.models.interface import Pipeline
from videogen.planning.memory_estimate import Memory
from videogen.results.formatting import format_bytes
from videogen.runtime.block_streaming import layer_stacks, stream
from videogen.runtime.component_offload import ComponentOffload, Copier, Upload
from videogen.runtime.device import free_memory
from videogen.runtime.precision import is_plain_linear

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")


def place(pipeline: Pipeline, device: torch.device, *, offload: bool, low_vram: bool) -> None:
    """Place a pipeline on its device; encoders are uploaded only while they run.

    Args:
        pipeline: pipeline to place.
        device: device that it runs on.
        offload: offload transformers as well, so that only one component and the VAE are on the device.
        low_vram: float8 transformer weights, with blocks streamed to the device.
    """
    if low_vram:
        for transformer in pipeline.transformers:
            quantize(transformer, device)
        if device.type == "cpu":
            logger.warning(
                "--low_vram: weights are float8; streaming them to a GPU does not apply on the CPU"
            )
        else:
            stream_blocks(pipeline, device)
    elif device.type == "cpu":
        if offload:
            logger.warning("--offload: has no effect on the CPU, where everything is in RAM anyway")
    else:
        all_but_vae = pipeline.model_cpu_offload_seq.split("->")[:-1]
        transient = all_but_vae if offload else pipeline.encoder_names()
        pipeline.component_offload = ComponentOffload(pipeline, device, transient)


def quantize(transformer: nn.Module, device: torch.device) -> None:
    """Quantize every Linear to float8 (e4m3) with one scale per output row; activations keep their dtype."""
    from torchao.quantization import Float8WeightOnlyConfig, quantize_  # noqa: PLC0415 - slow, and noisy

    convert = partial(quantize_, config=Float8WeightOnlyConfig(), filter_fn=is_plain_linear)
    convert_blocks(transformer, device, convert)


def convert_blocks(
    transformer: nn.Module, device: torch.device, convert: Callable[[nn.Module], object], *, rest: bool = True
) -> None:
    """Convert blocks one at a time on the device, and then what is no block (``rest``); all ends in RAM."""
    copier = Copier(device)
    for block in blocks(transformer):
        upload = Upload(block, copier)
        upload.wait()
        convert(block)
        upload.evict()  # weights that were not converted return to RAM
        block.to(CPU)
    if rest:
        convert(transformer)


def blocks(transformer: nn.Module) -> list[nn.Module]:
    """Return the blocks that a transformer is a stack of, in order."""
    stacks = (child for child in transformer.children() if isinstance(child, nn.ModuleList))
    return [block for stack in stacks for block in stack]


def stream_blocks(pipeline: Pipeline, device: torch.device) -> None:
    """Stream blocks and encoder layers: weights stay in RAM and are uploaded for their own forward."""
    copier = Copier(device)
    for transformer in pipeline.transformers:
        for child in transformer.children():
            if not isinstance(child, nn.ModuleList):
                child.to(device)
        for tensor in (*transformer.parameters(recurse=False), *transformer.buffers(recurse=False)):
            tensor.data = tensor.data.to(device)
        stream(transformer, [blocks(transformer)], copier)
    for name in pipeline.encoder_names():
        if name not in pipeline.cpu_encoders:
            encoder = pipeline.components[name]
            stream(encoder, list(layer_stacks(encoder)), copier)
    pipeline.vae.to(device)


def choose_tiling(
    pipeline: Pipeline, mode: str, memory: Memory, device: torch.device, *, low_vram: bool
) -> bool:
    """Return whether to tile the decode; 'auto' tiles if the untiled decode would not fit."""
    fits = memory.decode <= free_memory(device)
    tiled = mode == "on" or (mode == "auto" and (pipeline.always_tiled or low_vram or not fits))
    if tiled and mode == "auto" and not pipeline.always_tiled:
        why = "--low_vram" if low_vram else f"the untiled decode needs about {format_bytes(memory.decode)}"
        logger.warning(
            "--vae_tiling: on (%s); tiles are blended, so pixels differ slightly from the untiled decode", why
        )
    return tiled
