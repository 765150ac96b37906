"""The checks of ``first_hour.py``: each yields rows, as it finds them."""

import gc
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from torch import Tensor, nn

from benchmarks.dit_forward import flops
from benchmarks.first_hour import ROOT, Row
from tests.simulated.gpus import GPUS
from tests.simulated.jobs import Counted, EnoughError, planned, quiet
from tests.simulated.models import OWN, WAN21_VAE, plan_of, replace_files
from tests.simulated.patches import Patches
from videogen.cli.environment import environment as describe_environment
from videogen.engine import session
from videogen.errors import InputError, first_line
from videogen.models.kernels import operators
from videogen.models.wan import vae as vae_io
from videogen.models.wan.transformer import FLOAT32_PARTS, WanDiT
from videogen.runtime import apply, float8, kernels
from videogen.runtime.cross_attention_cache import CrossAttentionCache
from videogen.runtime.precision import set_precision
from videogen.runtime.vae import prepare_vae
from videogen.tasks.options import OPTIONS

DEVICE = torch.device("cuda:0")
DTYPE = torch.bfloat16
HEAD = 128
QUERIES = 32  # rows of an attention that are compared, at either end and in the middle
EXACT, LOSSY = 0.02, 0.15  # largest difference that is allowed, of the largest value
AS_IN_A_RUN = ("decode", "forward", "float8_products", "compiled")  # with its precision and kernels
NEAR_PEAK = 0.55  # of the card's rate in bfloat16: what a forward should reach
MEMORY_ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("reference_to_video", {}),
    ("image_to_video", {"model_id": "Wan-AI/Wan2.2-TI2V-5B", "offload": True}),
    ("diffusion_forcing", {"low_vram": True, "guidance_scale": 1}),
)
OVERHEAD = 1.10  # reserved memory over simulated live bytes: fragmentation and workspaces


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How large everything is.

    Args:
        lengths: of attention; odd, and no multiple of anything that kernels like.
        longest: length at which it is timed.
        grids: latent frames, rows and columns of the videos whose forward is timed.
        network: arguments of the transformer.
        latents: frames, rows and columns that are decoded.
    """

    lengths: tuple[int, ...]
    longest: int
    heads: int
    grids: Mapping[str, tuple[int, int, int]]
    network: Mapping[str, int]
    latents: tuple[int, int, int]
    tiny: bool = False


FULL = Size(
    lengths=(127, 333, 1025, 20_011, 63_241),
    longest=111_601,
    heads=40,
    grids={"540P, 97 frames": (25, 68, 120), "720P, 121 frames": (31, 90, 160)},
    network={"num_layers": 40, "num_attention_heads": 40, "attention_head_dim": HEAD, "ffn_dim": 13824},
    latents=(3, 90, 160),
)
TINY = Size(
    lengths=(33, 65),
    longest=129,
    heads=2,
    grids={"tiny": (2, 8, 8)},
    network={"num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 64, "ffn_dim": 256},
    latents=(2, 2, 2),
    tiny=True,
)


def environment(_size: Size) -> Iterator[Row]:
    """What there is."""
    for line in describe_environment().lines():
        name, _, value = line.partition(": ")
        yield Row(name, value or "yes")
    yield Row("cuDNN", str(torch.backends.cudnn.version()))


def attention(size: Size) -> Iterator[Row]:
    """Every kernel against float32 arithmetic, at odd lengths; then its speed."""
    for name in apply.BACKENDS:
        try:
            backend = AttentionBackendName(apply.check_attention_backend(name, DEVICE, DTYPE))
        except InputError as error:
            yield Row(name, f"not here: {first_line(error)[:120]}")
            continue
        allowed = LOSSY if name == "sage" else EXACT
        for length in size.lengths:
            heads = size.heads if length < 10_000 else 4
            query, key, value = (_random(1, length, heads, HEAD) for _ in range(3))
            found = dispatch_attention_fn(query, key, value, backend=backend)
            error = _attention_error(query, key, value, found)
            yield Row(f"{name}, {length} tokens", f"{error:.1e}", f"<= {allowed}", good=error <= allowed)
    auto = AttentionBackendName(apply.check_attention_backend("auto", DEVICE, DTYPE))
    states = [_random(1, size.longest, size.heads, HEAD) for _ in range(3)]
    seconds = _timed(lambda: dispatch_attention_fn(*states, backend=auto), 2)
    rate = 4 * size.longest**2 * size.heads * HEAD / seconds
    yield Row(f"auto is {auto.value}, {size.longest} tokens", f"{seconds:.3f} s, {rate / 1e12:.0f} TFLOP/s")


def fused_kernels(size: Size) -> Iterator[Row]:
    """Which hand-written kernels agree with their plain form here."""
    del size
    kernels.enable_fused_kernels(DEVICE, DTYPE)
    for name in operators.OPS:
        on = name in operators.ENABLED
        why = "" if on else str(kernels._problem(name, DEVICE, (DTYPE,)))
        yield Row(name, "used" if on else f"not used: {why[:120]}", "used", good=on)


def decode(size: Size) -> Iterator[Row]:
    """The decoders with weights in the order that is used on a GPU, against the usual one; time, memory."""
    manifests = {"Wan2.1": WAN21_VAE, "Wan2.2": OWN["Wan2.2-TI2V-5B"]["vae"]}
    for name, manifest in manifests.items():
        vae = plan_of(random_weight, "vae", manifest).load_weights(torch.float32, DEVICE)
        frames, rows, columns = size.latents
        if name == "Wan2.2":
            rows, columns = rows // 2, columns // 2
        small = torch.randn(1, vae.config.z_dim, 2, max(1, rows // 6), max(1, columns // 6), device=DEVICE)
        plain = vae_io.decode(vae, small)
        prepare_vae(vae, DEVICE, torch.float32)
        error = (vae_io.decode(vae, small) - plain).abs().max().item()
        yield Row(f"{name}, float32, order of weights", f"{error:.1e}", "<= 0.02 (TF32)", good=error <= 0.02)
        latents = torch.randn(1, vae.config.z_dim, frames, rows, columns, device=DEVICE)
        for dtype in (torch.float32,) if size.tiny and name == "Wan2.2" else (torch.float32, DTYPE):
            prepare_vae(vae, DEVICE, dtype)
            if dtype == DTYPE:
                difference = (vae_io.decode(vae, small) - plain).abs().mean().item()
                yield Row(f"{name}, bfloat16, mean", f"{difference:.1e}", "<= 0.05", good=difference <= 0.05)
            torch.cuda.reset_peak_memory_stats(DEVICE)
            stream = vae_io.decode_stream(vae, latents)
            next(stream)
            seconds = _timed(lambda stream=stream: next(stream), 1, warm=0)
            peak = torch.cuda.max_memory_reserved(DEVICE) / 1e9
            kind = str(dtype).removeprefix("torch.")
            yield Row(f"{name}, {kind}, a latent frame at 720P", f"{seconds:.3f} s, {peak:.1f} GB reserved")


def forward(size: Size) -> Iterator[Row]:
    """One block and the whole transformer: seconds, rate, memory."""
    model = random_transformer(size, 1)
    grid = size.grids[list(size.grids)[-1]]
    yield _rate("one block", model, size, grid)
    model = random_transformer(size, size.network["num_layers"])
    weights = sum(parameter.nbytes for parameter in model.parameters())
    for name, grid in size.grids.items():
        torch.cuda.reset_peak_memory_stats(DEVICE)
        yield _rate(name, model, size, grid)
        taken = torch.cuda.max_memory_allocated(DEVICE) - weights
        width = size.network["num_attention_heads"] * size.network["attention_head_dim"]
        bytes_each = taken / (_tokens(grid) * width)
        good = None if size.tiny else bytes_each <= 25
        yield Row(
            f"{name}, activations", f"{bytes_each:.1f} B per token and unit of width", "<= 25", good=good
        )


def _rate(name: str, model: WanDiT, size: Size, grid: tuple[int, int, int]) -> Row:
    latents, text = inputs(grid)
    level = torch.full((1,), 500.0, device=DEVICE)
    seconds = _timed(lambda: model(latents, level, text), 2 if _tokens(grid) < 80_000 else 1)
    rate = flops(dict(model.config), _tokens(grid)) / seconds
    peak = GPUS["H100"].half  # an H200 has the same
    good = None if size.tiny else rate / peak >= NEAR_PEAK
    wanted = f">= {NEAR_PEAK:.0%} of {peak / 1e12:.0f}"
    return Row(name, f"{seconds:.3f} s, {rate / 1e12:.0f} TFLOP/s ({rate / peak:.0%})", wanted, good=good)


def memory(size: Size) -> Iterator[Row]:
    """Whole jobs with random weights: what torch reserved, against what the simulation says."""
    simulated = [] if size.tiny else [_simulate(task, options) for task, options in MEMORY_ROWS]
    for index, (task, options) in enumerate(MEMORY_ROWS):
        tiny = {**TINY_JOB, "model_id": "tiny:wan22-5b" if "5B" in str(options) else "tiny"}
        with planned(task, num_inference_steps=2, **{**options, **(tiny if size.tiny else {})}) as plan:
            estimate = plan.memory_bytes[plan.memory_mode]
            started = time.perf_counter()
            make_video(plan, published=not size.tiny)
            seconds = time.perf_counter() - started
        allocated, reserved = (
            ask(DEVICE) / 1e9 for ask in (torch.cuda.max_memory_allocated, torch.cuda.max_memory_reserved)
        )
        label = f"{task}, {plan.memory_mode}"
        yield Row(
            label,
            f"{allocated:.2f} GB live, {reserved:.2f} GB reserved, {seconds:.0f} s",
            f"--dry_run says {estimate / 1e9:.2f}",
            good=None,
        )
        if simulated:
            out, _ = simulated[index].communicate(timeout=SIMULATION)
            found = re.search(r"^PEAK (\d+)$", out, re.MULTILINE)
            peak = int(found[1]) / 1e9 if found else math.nan
            good = reserved <= peak * OVERHEAD and abs(allocated / peak - 1) <= 0.03
            wanted = f"live within 3 %, reserved <= {OVERHEAD:.0%} of it"
            yield Row(
                f"{label}, against the simulation",
                f"{allocated / peak:.1%}, {reserved / peak:.1%}",
                wanted,
                good=good,
            )


SIMULATION = 300  # seconds that a simulated job may take
TINY_JOB = {"height": 64, "width": 64, "num_frames": 5}


def _simulate(task: str, options: Mapping[str, Any]) -> subprocess.Popen:
    """Begin to simulate a job on the CPU, meanwhile."""
    code = (
        "import json, sys\n"
        "from tests.simulated.sim import simulate\n"
        "from tests.simulated.jobs import simulate_job\n"
        "task, options = json.loads(sys.argv[1])\n"
        "with simulate('H200') as sim:\n"
        "    sim.ledger.counting = False\n"
        "    print('PEAK', simulate_job(sim, task, frames=9, num_inference_steps=2, **options).peak)\n"
    )
    words = [sys.executable, "-W", "ignore", "-c", code, json.dumps([task, options])]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def make_video(plan: Any, *, published: bool) -> None:
    """Make a plan's video, nine frames of it; of a published model with random weights."""
    counted = Counted(9)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(DEVICE)
    work = session.Session()
    with Patches() as patches, quiet():
        if published:
            replace_files(patches, random_weight)
        counted.take_the_place_of_files(patches)
        try:
            with suppress(EnoughError):
                session.generate(plan, work)
        finally:
            work.close()


def gpu_tests(size: Size) -> Iterator[Row]:
    """tests/runtime/test_gpu.py, on this card."""
    words = [sys.executable, "-m", "pytest", "-n", "0", "tests/runtime/test_gpu.py"]
    if size.tiny:
        words += ["-p", "tests.simulated.card", "-k", "pinned or noise"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr.strip()[-200:]
    yield Row("tests/runtime/test_gpu.py", summary, "all pass", good=done.returncode == 0)
    for line in done.stdout.splitlines():
        if line.startswith("FAILED"):
            yield Row("fails", line.removeprefix("FAILED ")[:160], "", good=False)


def float8_products(size: Size) -> Iterator[Row]:
    """Products in float8, against bfloat16."""
    model = random_transformer(size, 4)
    yield from _changed("float8", model, size, lambda: float8.quantize(model, DEVICE), 0.15)


def compiled(size: Size) -> Iterator[Row]:
    """Compiled blocks, against the same blocks."""
    model = random_transformer(size, 4)
    change = lambda: apply.compile_blocks(model, DEVICE, streamed=False)  # noqa: E731
    yield from _changed("compiled", model, size, change, EXACT)


def _changed(
    name: str, model: WanDiT, size: Size, change: Callable[[], object], allowed: float
) -> Iterator[Row]:
    """Seconds and outcome of four layers before and after a change."""
    grid = size.grids[next(iter(size.grids))]
    latents, text = inputs(grid)
    level = torch.full((1,), 500.0, device=DEVICE)

    def run_once() -> Tensor:
        return model(latents, level, text, return_dict=False)[0]

    wanted, before = run_once(), _timed(run_once, 3)
    change()
    started = time.perf_counter()
    found = run_once()
    torch.cuda.synchronize(DEVICE)
    first = time.perf_counter() - started
    error = ((found - wanted).abs().max() / wanted.abs().max()).item()
    yield Row(f"{name}, difference", f"{error:.1e}", f"<= {allowed}", good=error <= allowed)
    after = _timed(run_once, 3)
    yield Row(
        f"{name}, 4 layers", f"{before:.3f} s before, {after:.3f} s after, {first:.1f} s the first time"
    )


# --- helpers
# --------------------------------------------------------------------------------------------------


def prepare() -> None:
    """Set precision and kernels as a run does."""
    set_precision(DEVICE, DTYPE)
    kernels.enable_fused_kernels(DEVICE, DTYPE)


def random_weight(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return random numbers in host memory, the same few again and again: drawing billions takes minutes."""
    count = math.prod(shape)
    few = (torch.randn(min(count, 1 << 20)) * 0.02).to(dtype)
    return few.repeat(-(-count // len(few)))[:count].view(shape) if count else few.view(shape)


def random_transformer(size: Size, layers: int) -> WanDiT:
    """Return a transformer on the card, set up as a run would."""
    with torch.device("meta"):
        model = WanDiT(**{**size.network, "num_layers": layers})
    for name, parameter in model.named_parameters():
        kept = any(part in FLOAT32_PARTS for part in name.split("."))
        data = torch.empty(parameter.shape, device=DEVICE, dtype=torch.float32 if kept else DTYPE)
        module, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(module), leaf, nn.Parameter(data.normal_(std=0.02), requires_grad=False))
    apply.set_attention_backend(model, OPTIONS["attention_backend"].value("auto"), DEVICE, DTYPE)
    CrossAttentionCache(model)
    return model.eval()


def inputs(grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Return latents and text."""
    return _random(1, 16, *grid), _random(1, 512, 4096)


def _tokens(grid: tuple[int, int, int]) -> int:
    return grid[0] * grid[1] * grid[2] // 4


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=torch.float32).to(DTYPE)


def _timed(function: Callable[[], object], repeats: int, warm: int = 1) -> float:
    for _ in range(warm):
        function()
    torch.cuda.synchronize(DEVICE)
    started = time.perf_counter()
    for _ in range(repeats):
        function()
    torch.cuda.synchronize(DEVICE)
    return (time.perf_counter() - started) / repeats


def _attention_error(query: Tensor, key: Tensor, value: Tensor, found: Tensor) -> float:
    """Return the largest difference of some rows from float32 arithmetic, of the largest value."""
    length = query.shape[1]
    places = {0, max(0, length // 2 - QUERIES), max(0, length - QUERIES)}
    rows = torch.cat([torch.arange(place, min(place + QUERIES, length)) for place in sorted(places)]).to(
        DEVICE
    )
    heads = (tensor.float().transpose(1, 2) for tensor in (query.index_select(1, rows), key, value))
    q, k, v = heads
    weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)
    wanted = (weights @ v).transpose(1, 2)
    error = (found.index_select(1, rows).float() - wanted).abs().max() / wanted.abs().max()
    return error.item()
