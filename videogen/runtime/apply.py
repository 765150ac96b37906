"""Speed options applied to a built transformer: attention kernel, step caches, regional compilation."""

import logging
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import torch
from diffusers.models import attention_dispatch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from videogen.checkpoints.model_features import HEAD_DIM
from videogen.errors import InputError, first_line
from videogen.files import cache_root
from videogen.models.attention import TORCH_KERNELS, attend
from videogen.models.interface import Network, Pipeline
from videogen.runtime.memory import blocks
from videogen.runtime.parallel import works_in_ring
from videogen.runtime.step_cache import DiffusersCache
from videogen.runtime.teacache import TeaCache
from videogen.tasks.kernels import ATTENTION_KERNELS, BACKENDS
from videogen.tasks.options import Options
from videogen.tasks.step_caches import Ratios, read_cache, write_ratios
from videogen.tasks.teacache_tables import Table

logger = logging.getLogger(__name__)

HOPPER = (9, 0)
CUDNN_WRONG = 91500  # the last version with the error; see _is_outdated
# Lengths of the test input of a kernel; none is a multiple of 128.
PROBE_TOKENS, PROBE_HEADS = 161, 3
PROBE_KEYS = (161, 77)
COMPILED = "TORCHINDUCTOR_CACHE_DIR"  # torch's variable for the folder of compiled code


def set_attention_backend(
    transformer: Network, name: str, device: torch.device, dtype: torch.dtype, *, ring: bool = False
) -> str:
    """Use the named kernel, or for 'auto' the best that runs; the choice is returned.

    Only this model's layers are changed; diffusers' own setter also changes a global. ``ring``: the kernel
    must support ring attention.

    Raises:
        InputError: the named kernel does not run here.
    """
    head_dim = transformer.config.attention_head_dim
    chosen = check_attention_backend(name, device, dtype, head_dim, ring=ring)
    for module in transformer.modules():
        processor = getattr(module, "processor", None)
        if processor is not None and hasattr(processor, "_attention_backend"):
            processor._attention_backend = attention_dispatch.AttentionBackendName(chosen)
    return chosen


def check_attention_backend(
    name: str, device: torch.device, dtype: torch.dtype, head_dim: int = HEAD_DIM, *, ring: bool = False
) -> str:
    """Return diffusers' name of the kernel to use, after running each candidate once.

    Raises:
        InputError: the named kernel does not run here.
    """
    for candidate in _candidates(name, device, dtype):
        problem = _problem(candidate, head_dim, device, dtype)
        if ring and problem is None and not works_in_ring(candidate, device):
            problem = "it cannot work in a ring of ranks"
        if problem is None:
            return candidate
        if name != "auto":
            what = f"does not run here, on {device} in {str(dtype).removeprefix('torch.')} ({problem})"
            raise InputError("--attention_backend", name, what, "leave it out")
        level = logging.INFO if candidate in TORCH_KERNELS else logging.DEBUG  # others may not be installed
        _say(level, f"--attention_backend auto: not {candidate} ({problem})")
    if ring and device.type != "cpu":
        what = f"no kernel that works in a ring runs on {device} in {str(dtype).removeprefix('torch.')}"
        raise InputError("--ring_degree", None, what, "use --ulysses_degree alone, or --dtype bfloat16")
    return "native"


def _candidates(name: str, device: torch.device, dtype: torch.dtype) -> Iterator[str]:
    """Yield the kernels to try, best first; lossy ones (sage) only if asked for by name."""
    if name != "auto":
        if name == "cudnn":
            _is_outdated(name, device)
        yield BACKENDS[name]
        return
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        if torch.cuda.get_device_capability(device) >= HOPPER:
            yield "_flash_3"
            if not _is_outdated(name, device):
                yield "_native_cudnn"
        yield from ("flash", "_native_flash")
    yield "native"


def _is_outdated(name: str, device: torch.device) -> bool:
    """Return True, and log it, if this cuDNN is too old for attention.

    The message is a warning if cuDNN was asked for by name.

    torch prefers cuDNN on Hopper only from 9.15.1 on, which fixed an error with lengths that are no multiple
    of 128 (pytorch issue 169849), as nearly all of ours.
    """
    found = torch.backends.cudnn.version() if device.type == "cuda" else None
    if found is None or found > CUDNN_WRONG:
        return False
    version = f"{found // 10000}.{found // 100 % 100}.{found % 100}"
    level, used = (logging.INFO, ", and is not used") if name == "auto" else (logging.WARNING, "")
    what = f"cuDNN {version} has errors with lengths that are no multiple of 128 (9.15.1 has none)"
    _say(level, f"--attention_backend {name}: {what}{used}")
    return True


@cache
def _say(level: int, message: str) -> None:
    """Log a message once, although kernels are chosen several times per video."""
    logger.log(level, message)


@cache  # takes a second, and is called for every video
def _problem(backend: str, head_dim: int, device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why a kernel does not work here, found by running it; None if it works.

    The input has the memory layout of the transformers' self- and cross-attention, with odd lengths; the
    output is compared with torch's math kernel.
    """
    generator = torch.Generator().manual_seed(0)
    try:
        kernel = attention_dispatch.AttentionBackendName(backend)
        attention_dispatch._check_attention_backend_requirements(kernel)
        attention_dispatch._maybe_download_kernel_for_backend(kernel)
        for keys in PROBE_KEYS:
            shapes = [(1, tokens, PROBE_HEADS, head_dim) for tokens in (PROBE_TOKENS, keys, keys)]
            query, key, value = (
                torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes
            )
            wanted = attend(query.float(), key.float(), value.float(), "_native_math")
            off = (attend(query, key, value, kernel).float() - wanted).norm(dim=-1) / wanted.norm(dim=-1)
            error = off.max().item()  # synchronizes, so that GPU errors are raised here
            if not error <= ATTENTION_KERNELS[backend].largest_error:
                return f"its result is {error:.0%} off for {PROBE_TOKENS} queries and {keys} keys"
    except Exception as error:
        return first_line(error)
    return None


def set_step_cache(
    pipeline: Pipeline, options: Options, *, table: Table | None = None, ratios: Ratios | None = None
) -> None:
    """Replace the pipeline's step cache by the one that a plan's options ask for.

    Args:
        pipeline: pipeline to change; its earlier step cache is removed.
        options: those of the plan.
        table: TeaCache's coefficients, if it is on.
        ratios: MagCache's ratios, if it is on.
    """
    if pipeline.step_cache is not None:
        pipeline.step_cache.disable()
        pipeline.step_cache = None
    if table is not None:
        pipeline.step_cache = TeaCache(
            pipeline.transformer,
            table,
            threshold=options.teacache_thresh,
            use_ret_steps=options.use_ret_steps,
            fixed=options.teacache_fixed,
            sync_scalar=pipeline.sync_scalar,
        )
    elif options.cache is not None:
        name, threshold = read_cache(options.cache)
        narrow = torch.float32 if options.dtype == "float32" else torch.bfloat16
        pipeline.step_cache = DiffusersCache(
            pipeline.transformers, name, threshold, dtype=narrow, ratios=ratios
        )


def keep_ratios(pipeline: Pipeline, file: Path, schedule: Mapping[str, object]) -> None:
    """Write the ratios that a calibrating MagCache measured to disk, if there are any."""
    cache = pipeline.step_cache
    if isinstance(cache, DiffusersCache) and cache.ratios:
        try:
            write_ratios(file, cache.ratios, schedule)
        except OSError as error:
            logger.warning("--cache magcache: what was measured could not be kept (%s)", first_line(error))
            return
        logger.info("--cache magcache: measured, and used from now on (%s)", file)


def keep_compiled() -> None:
    """Store compiled code in the user's cache folder, unless TORCHINDUCTOR_CACHE_DIR is set."""
    if os.environ.get(COMPILED, default_cache_dir()) == default_cache_dir():  # torch sets its default itself
        os.environ[COMPILED] = str(cache_root() / "compiled")


def compile_blocks(
    transformer: Network, device: torch.device, *, streamed: bool, sharded: bool = False
) -> None:
    """Compile the repeated block once (regional compilation), where that applies; the code is kept.

    ``sharded``: tokens are sharded over ranks, so a block is compiled in pieces around the exchange.
    """
    if device.type == "cpu":
        logger.warning("--compile: skipped on the CPU, where compiling takes longer than it saves")
        return
    if streamed:
        logger.warning("--compile: skipped with --low_vram, whose streamed blocks cannot be compiled whole")
        return
    keep_compiled()
    for block in blocks(transformer):
        block.compile(fullgraph=not sharded)
