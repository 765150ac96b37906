"""Speed options, applied to a built transformer: the attention kernel, and regional compilation."""

import logging
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _check_attention_backend_requirements,
    _maybe_download_kernel_for_backend,
    dispatch_attention_fn,
)
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from videogen.errors import first_line
from videogen.models.checkpoints import cache_root
from videogen.models.wan import WanDiT
from videogen.runtime.coefficients import Table
from videogen.runtime.memory import blocks
from videogen.runtime.teacache import enable_teacache

if TYPE_CHECKING:
    from videogen.pipelines.base import VideoPipeline

logger = logging.getLogger(__name__)

# Our words for diffusers' kernels.
BACKENDS = {
    "native": "native",
    "cudnn": "_native_cudnn",
    "flash": "flash",
    "flash3": "_flash_3",
    "sage": "sage",
    "xformers": "xformers",
}
HOPPER = (9, 0)
PROBE_TOKENS = 128
COMPILED = "TORCHINDUCTOR_CACHE_DIR"  # torch's own name for where compiled code is kept


def set_attention_backend(transformer: WanDiT, name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Use the named kernel where it runs, else torch's own; the choice is returned.

    Only this model's layers are touched (diffusers' own setter also changes a global).
    """
    found: list[Any] = [getattr(module, "processor", None) for module in transformer.modules()]
    processors = [processor for processor in found if hasattr(processor, "_attention_backend")]
    head_dim = transformer.config.attention_head_dim
    for candidate in _candidates(name, device, dtype):
        problem = _problem(candidate, head_dim, device, dtype)
        if problem is None:
            for processor in processors:
                processor._attention_backend = AttentionBackendName(candidate)
            return candidate
        if name != "auto":
            logger.warning("--attention_backend %s: not usable here (%s); using native", name, problem)
    return "native"


def _candidates(name: str, device: torch.device, dtype: torch.dtype) -> Iterator[str]:
    """Kernels to try, best first. Lossy ones (sage) are never chosen unasked."""
    if name != "auto":
        yield BACKENDS[name]
    elif device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        if torch.cuda.get_device_capability(device) >= HOPPER:
            yield from ("_flash_3", "_native_cudnn")
        yield "flash"
    yield "native"


def _problem(backend: str, head_dim: int, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a kernel does not run here, found out by running it once; None when it does."""
    probe = torch.randn(1, PROBE_TOKENS, 1, head_dim, device=device, dtype=dtype)
    try:
        kernel = AttentionBackendName(backend)
        _check_attention_backend_requirements(kernel)
        _maybe_download_kernel_for_backend(kernel)
        dispatch_attention_fn(probe, probe, probe, backend=kernel)
    except Exception as error:
        return first_line(error)
    return None


def set_teacache(pipeline: "VideoPipeline", table: Table | None, values: Mapping[str, Any]) -> None:
    """TeaCache as a plan's values ask for it; without a table it is taken off."""
    if pipeline.step_cache is not None:
        pipeline.step_cache.disable()
        pipeline.step_cache = None
    if table is not None:
        pipeline.step_cache = enable_teacache(
            pipeline.transformer,
            table,
            threshold=values["teacache_thresh"],
            use_ret_steps=values["use_ret_steps"],
            fixed=values["teacache_fixed"],
        )


def keep_compiled() -> None:
    """Have compiled code kept in the user's cache folder, unless TORCHINDUCTOR_CACHE_DIR says where."""
    if os.environ.get(COMPILED, default_cache_dir()) == default_cache_dir():  # torch fills its own in
        os.environ[COMPILED] = str(cache_root() / "compiled")


def compile_blocks(transformer: WanDiT, device: torch.device, *, streamed: bool) -> None:
    """Compile the repeated block once (regional compilation), where that applies; the code is kept."""
    if device.type == "cpu":
        logger.warning("--compile: skipped on the CPU, where compiling takes longer than it saves")
        return
    if streamed:
        logger.warning("--compile: skipped with --low_vram, whose streamed blocks cannot be compiled whole")
        return
    keep_compiled()
    for block in blocks(transformer):
        block.compile(fullgraph=True)
