"""What options that trade quality for speed cost, and what they save, against the exact run.

    python -m benchmarks.quality
    python -m benchmarks.quality --task text_to_video --model PATH --device cuda --height 544 --width 960 \\
        --num_frames 97 --steps 50 --lora FOUR_STEP_LORA.safetensors

Per option: forwards whose blocks ran, of all; time up to the final latents over that of the exact run (on a
CPU processor time, for the machine may be shared); PSNR of the 8-bit video in dB; relative distance of the
final latents |x - exact| / |exact|. Medians over the seeds. What cannot be tried is named below the table.
MagCache is calibrated with another seed first.

Without a model, the tiny ones, whose weights are random. As in benchmarks.teacache their time embedding is
made smooth (only its slow waves are kept), or hardly a step would resemble the one before.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import videogen
from benchmarks.teacache import SHORTEST_WAVE, TINY_SIZE, smooth
from videogen.engine.load import load_loras
from videogen.errors import VideoGenError, first_line
from videogen.planning.option_rules import PACKAGES
from videogen.runtime import apply, float8
from videogen.runtime.step_cache import DiffusersCache
from videogen.runtime.teacache import TeaCache
from videogen.tasks.option_types import lora
from videogen.tasks.step_caches import read_cache
from videogen.tasks.teacache_tables import choose_table

PICTURE = Path(__file__).parent.parent / "ref_imgs/robot.png"
CASES = (
    ("text_to_video", "tiny", "T2V-1.3B"),
    ("text_to_video", "tiny:wan22-a14b", None),
    ("hunyuan_image_to_video", "tiny", None),
)
CACHES = (
    *("first_block:0.05", "first_block:0.1", "first_block:0.2", "magcache:0.06", "magcache:0.12"),
    *("magcache:0.24", "taylorseer:3", "taylorseer:5", "taylorseer_lite:3", "taylorseer_lite:5"),
)
TEACACHE = (0.1, 0.2, 0.3)
LCM = {"sample_solver": "lcm", "num_inference_steps": 4, "guidance_scale": 1.0, "shift": 5.0}
TIME_LAYERS = ("condition_embedder.time_embedder.linear_1", "time_text_embed.timestep_embedder.linear_1")
OTHER_SEED = 1000  # for calibration


class NotHere(Exception):  # noqa: N818 - a verdict
    """Why an option cannot be tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """One video: latents float64, frames uint8, seconds up to the latents, forwards computed and all."""

    latents: torch.Tensor
    frames: np.ndarray
    seconds: float
    computed: int
    forwards: int


@dataclass
class Bench:
    """A pipeline with what it is asked for; ``words`` choose TeaCache's coefficients."""

    pipeline: Any
    arguments: dict[str, Any]
    words: str | None
    loras: Sequence[Any] = ()
    ratios: Any = None
    forwards: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        for transformer in self.pipeline.transformers:
            transformer.register_forward_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.forwards += 1

    def make(self, seed: int, **changes: Any) -> Made:
        """One video, from its first part."""
        complete = self.pipeline.complete(self.arguments | changes)
        self.forwards = 0
        self.pipeline.reset_cache(complete["num_inference_steps"])  # not every pipeline does it itself
        started = self.clock()
        part = next(self.pipeline.parts(**complete, generator=torch.Generator().manual_seed(seed)))
        latents = part.latents.double().cpu()
        seconds = self.clock() - started
        frames = np.concatenate(
            [self.pipeline.to_uint8(chunk).cpu().numpy() for chunk in part.frames], axis=2
        )
        cache = self.pipeline.step_cache
        return Made(
            latents=latents,
            frames=frames,
            seconds=seconds,
            computed=self.forwards if cache is None else cache.computed,
            forwards=self.forwards,
        )

    def clock(self) -> float:
        return time.process_time() if self.pipeline.device.type == "cpu" else time.perf_counter()

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.pipeline.device.type == "cpu" else torch.bfloat16


Way = Callable[[Bench], Any]
"""A context in which a bench makes videos in another way; it may give what changes in their arguments."""


@contextmanager
def teacache(bench: Bench, threshold: float) -> Iterator[None]:
    if not bench.pipeline.spec.uses("teacache"):
        raise NotHere(f"not for {bench.pipeline.spec.family}")
    try:
        config = bench.pipeline.transformer.config
        width = config.num_attention_heads * config.attention_head_dim
        table = choose_table(bench.words, bench.pipeline.checkpoint.name, width, image=False)
    except VideoGenError as error:
        raise NotHere(first_line(error)) from None
    transformer = bench.pipeline.transformer
    cache = TeaCache(transformer, table, threshold=threshold, use_ret_steps=False, fixed=False)
    with _on(bench, cache):
        yield


@contextmanager
def diffusers_cache(bench: Bench, text: str) -> Iterator[None]:
    name, threshold = read_cache(text)
    if name == "magcache" and bench.ratios is None:
        measuring = DiffusersCache(bench.pipeline.transformers, name, None, dtype=bench.dtype)
        with _on(bench, measuring):
            bench.make(OTHER_SEED)
        bench.ratios = measuring.ratios
    cache = DiffusersCache(
        bench.pipeline.transformers, name, threshold, dtype=bench.dtype, ratios=bench.ratios
    )
    with _on(bench, cache):
        yield


@contextmanager
def _on(bench: Bench, cache: Any) -> Iterator[None]:
    bench.pipeline.step_cache = cache
    try:
        yield
    finally:
        cache.disable()
        bench.pipeline.step_cache = None


@contextmanager
def sage(bench: Bench) -> Iterator[None]:
    if find_spec(PACKAGES["sage"].module) is None:
        raise NotHere(f"{PACKAGES['sage'].module} is not installed")
    _use(bench, "sage")
    try:
        yield
    finally:
        _use(bench, "auto")


def _use(bench: Bench, backend: str) -> None:
    for transformer in bench.pipeline.transformers:
        apply.set_attention_backend(transformer, backend, bench.pipeline.device, bench.dtype)


@contextmanager
def lcm(bench: Bench) -> Iterator[dict[str, Any]]:
    """With the LoRA given, if one is; it is taken off again."""
    if "sample_solver" not in bench.pipeline.spec.arguments:
        raise NotHere("the task has a solver of its own")
    load_loras(bench.pipeline, bench.loras)
    try:
        yield LCM
    finally:
        if bench.loras:
            bench.pipeline.unload_lora_weights()


@contextmanager
def float8_products(bench: Bench) -> Iterator[None]:
    """Comes last: there is no way back."""
    float8.check(bench.pipeline.device)
    for transformer in bench.pipeline.transformers:
        float8.quantize(transformer, bench.pipeline.device)
    yield


OPTIONS: dict[str, Way] = {
    **{f"teacache {value:g}": lambda b, v=value: teacache(b, v) for value in TEACACHE},
    **{text.replace(":", " "): lambda b, t=text: diffusers_cache(b, t) for text in CACHES},
    "sage": sage,
    "lcm, 4 steps": lcm,
    "float8_matmul": float8_products,
}


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Of 8-bit frames, in dB; infinite where they are the same."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def row(bench: Bench, way: Way, seeds: Sequence[int]) -> str:
    """The figures of one option.

    Raises:
        NotHere, VideoGenError: it cannot be tried.
    """
    exact = [bench.make(seed) for seed in seeds]  # beside what it is compared with
    with way(bench) as changes:
        made = [bench.make(seed, **(changes or {})) for seed in seeds]
    pairs = list(zip(made, exact, strict=True))
    ratio = statistics.median(new.seconds / old.seconds for new, old in pairs)
    quality = statistics.median(psnr(new.frames, old.frames) for new, old in pairs)
    distance = statistics.median(
        float((new.latents - old.latents).norm() / old.latents.norm()) for new, old in pairs
    )
    computed = statistics.median(new.computed for new in made)
    return f"{computed:6g}/{made[0].forwards:<4d} {ratio:6.2f} {quality:7.1f} {distance:9.4f}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", help="default: text_to_video, or all tiny cases")
    parser.add_argument("--model", default="tiny", help="a folder, a hub id or tiny")
    parser.add_argument("--teacache_model", help="default: by the model's name")
    parser.add_argument("--prompt", default="a robot waves")
    parser.add_argument("--input_image", help="for a model that takes one")
    parser.add_argument("--ref_imgs", nargs="+", help="for reference_to_video")
    parser.add_argument("--input_video", help="for a model that continues one")
    for name in ("height", "width", "num_frames"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--steps", type=int, help="default: those of the task; tiny: 30")
    parser.add_argument("--seeds", type=int, nargs="+", default=(1, 2, 3))
    parser.add_argument("--lora", action="append", default=[], help="distilled weights, for lcm alone")
    parser.add_argument("--only", nargs="+", default=(), help="options that begin with one of these words")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def prepare(given: argparse.Namespace, task: str, model: str, words: str | None) -> Bench:
    """A loaded model with what it is asked for."""
    tiny = model.partition(":")[0] == "tiny"
    dtype = torch.float32 if given.device == "cpu" else torch.bfloat16
    pipeline = videogen.load(task, model, dtype=dtype, device=given.device)
    pipeline.set_progress_bar_config(disable=True)
    for transformer in pipeline.transformers if tiny else ():
        layers = dict(transformer.named_modules())
        smooth(next(layers[name] for name in TIME_LAYERS if name in layers), SHORTEST_WAVE)
    asked: dict[str, Any] = dict(TINY_SIZE) if tiny else {}
    asked |= {"num_inference_steps": 30} if tiny else {}
    asked |= {
        name: getattr(given, name) for name in ("height", "width", "num_frames") if getattr(given, name)
    }
    asked |= {"num_inference_steps": given.steps} if given.steps else {}
    files = {
        "input_image": lambda: Image.open(given.input_image or PICTURE).convert("RGB"),
        "ref_imgs": lambda: [Image.open(name).convert("RGB") for name in given.ref_imgs or [PICTURE]],
        "input_video": lambda: given.input_video,
    }
    needed = [name for name, files_ in pipeline.spec.inputs.items() if files_.fewest or getattr(given, name)]
    asked |= {name: files[name]() for name in needed}
    return Bench(pipeline, asked | {"prompt": given.prompt}, words, [lora(text) for text in given.lora])


def main() -> None:
    given = arguments()
    torch.set_num_threads(1 if given.device == "cpu" else torch.get_num_threads())
    cases: Sequence[tuple[str, str, str | None]] = CASES
    if given.task:
        cases = [case for case in CASES if case[0] == given.task and given.model == case[1]]
    if given.model != "tiny" or not cases:
        cases = [(given.task or "text_to_video", given.model, given.teacache_model)]
    for task, model, words in cases:
        bench = prepare(given, task, model, words)
        bench.make(given.seeds[0], num_inference_steps=2)  # warm
        print(f"{task}, {bench.pipeline.checkpoint.name}, {given.device}")
        print(f"{'option':<20} {'computed':>11} {'time':>6} {'PSNR':>7} {'distance':>9}")
        missing = {}
        for name, way in OPTIONS.items():
            if given.only and not name.startswith(tuple(given.only)):
                continue
            try:
                print(f"{name:<20} {row(bench, way, given.seeds)}", flush=True)
            except (NotHere, VideoGenError) as error:
                missing[name] = first_line(error)
        for name, why in missing.items():
            print(f"not tried: {name} ({why})")


if __name__ == "__main__":
    main()
