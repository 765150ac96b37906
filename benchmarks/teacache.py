"""TeaCache's error and savings, with calls counted as published and per branch and step (--teacache_fixed).

    python -m benchmarks.teacache
    python -m benchmarks.teacache --task_type text_to_video --model_id PATH --device cuda --height 544 \\
        --width 960 --num_frames 97

Per counting: forwards computed, relative error of the final latents |x - exact| / |exact|, and seconds of
denoising over those without a cache. The last column compares the two at equal cost: the error that fixed
counting has at the number of forwards that published counting computed (linear between the thresholds of a
finer sweep) over the published error; below 1 fixed counting is better, '-' where it never computes as many.
Rows with the same numbers of forwards as the one above are left out.

Without a model, the tiny ones. A random time embedding jumps by 40 to 140 % from step to step, where the
polynomials, made for less, make no sense: all forwards are computed, or none that need not be. So
their time embedding is made smooth, as a trained one is: it is given only the slow waves of the time.
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from PIL import Image

import videogen
from videogen.runtime.teacache import TeaCache
from videogen.tasks.teacache_tables import Table, choose_table

CASES = (
    ("diffusion_forcing", "T2V-1.3B"),
    ("text_to_video", "T2V-1.3B"),
    ("text_to_video", "T2V-14B"),
)
TINY_SIZE = {"height": 96, "width": 160, "num_frames": 33}
SHORTEST_WAVE = 3000  # of the time embedding of the tiny models, in levels 0..1000
SHOWN = (0.1, 0.2, 0.3, 0.5)
BETWEEN = (0.02, 0.05, 0.08, 0.15, 0.25, 0.4, 0.7, 1.0, 1.5, 2.5)
COUNTINGS = {"published": False, "fixed": True}


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What a row is about."""

    table: Table
    use_ret_steps: bool
    steps: int
    seeds: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Forwards computed of all; mean error, and median seconds over those of the exact run, of the seeds."""

    computed: int
    forwards: int
    error: float
    seconds: float


def smooth(layer: torch.nn.Linear, shortest: float) -> None:
    """Cut waves of the time below ``shortest`` off a time embedding; its input is cosines, then sines."""
    weight = layer.weight
    half = weight.shape[1] // 2
    waves = 2 * math.pi * 10000 ** (torch.arange(half, device=weight.device) / half)
    weight.data *= (waves >= shortest).repeat(2).to(weight)


class Bench:
    """A pipeline, and the exact latents it was found to make."""

    def __init__(self, pipeline: Any, arguments: dict[str, Any]) -> None:
        self.pipeline, self.arguments = pipeline, arguments
        self.exact: dict[tuple[int, int], tuple[torch.Tensor, float]] = {}
        self.generate(2, 0)  # warm

    def generate(self, steps: int, seed: int) -> tuple[torch.Tensor, float]:
        """(latents of the first part, seconds of denoising)."""
        arguments = self.pipeline.complete({**self.arguments, "num_inference_steps": steps})
        self.pipeline.seconds.clear()
        part = next(self.pipeline.parts(**arguments, generator=torch.Generator().manual_seed(seed)))
        return part.latents.double().cpu(), self.pipeline.seconds["denoise"]

    def measure(self, setting: Setting, threshold: float, *, fixed: bool, timed: bool) -> Outcome:
        """One threshold, over all seeds; ``timed``: the exact run is made anew."""
        errors, ratios = [], []
        for seed in setting.seeds:
            key = (setting.steps, seed)
            if timed or key not in self.exact:  # beside what it is compared with: the machine is shared
                self.exact[key] = self.generate(*key)
            exact, exact_seconds = self.exact[key]
            cache = TeaCache(
                self.pipeline.transformer,
                setting.table,
                threshold=threshold,
                use_ret_steps=setting.use_ret_steps,
                fixed=fixed,
            )
            self.pipeline.step_cache = cache
            latents, seconds = self.generate(*key)
            computed, forwards = cache.computed, len(cache.log)
            cache.disable()
            self.pipeline.step_cache = None
            errors.append(float((latents - exact).norm() / exact.norm()))
            ratios.append(seconds / exact_seconds)
        return Outcome(
            computed=computed,  # the same for all seeds: decided by the time alone
            forwards=forwards,
            error=statistics.mean(errors),
            seconds=statistics.median(ratios),
        )


def error_at(outcomes: Sequence[Outcome], computed: int) -> float | None:
    """Error of a counting where it computes so many forwards; None outside what was measured."""
    by_count: dict[int, list[float]] = {}
    for outcome in outcomes:
        by_count.setdefault(outcome.computed, []).append(outcome.error)
    counts = sorted(by_count)
    if not counts[0] <= computed <= counts[-1]:
        return None
    return float(np.interp(computed, counts, [statistics.mean(by_count[count]) for count in counts]))


def rows(bench: Bench, setting: Setting, shown: Sequence[float], label: str) -> list[float]:
    """Print the rows of a setting; the ratios of their last column."""
    sweep: dict[str, dict[float, Outcome]] = {name: {} for name in COUNTINGS}
    for threshold, (name, fixed) in product(sorted({*shown, *BETWEEN}), COUNTINGS.items()):
        timed = threshold in shown and not fixed
        sweep[name][threshold] = bench.measure(setting, threshold, fixed=fixed, timed=timed)
    ratios, before = [], None
    for threshold in shown:
        both = [sweep[name][threshold] for name in COUNTINGS]
        counts = [outcome.computed for outcome in both]
        if counts == before:
            continue
        before = counts
        published = both[0]
        other = error_at(list(sweep["fixed"].values()), published.computed)
        ratio = "-"
        if other is not None and published.error > 0 and published.computed < published.forwards:
            ratios.append(other / published.error)
            ratio = f"{ratios[-1]:.2f}"
        figures = "".join(
            f"{outcome.computed:6d}/{outcome.forwards:<3d} {outcome.computed / outcome.forwards:4.0%}"
            f" {outcome.error:6.3f} {outcome.seconds:5.2f}"
            for outcome in both
        )
        ret = "yes" if setting.use_ret_steps else "no"
        print(f"{label:<27} {ret:<3} {setting.steps:5d} {threshold:6g}{figures} {ratio:>7}", flush=True)
    return ratios


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task_type", help="with --model_id: its task")
    parser.add_argument("--model_id", help="default: the tiny models")
    parser.add_argument("--teacache_model", help="default: by the model's name")
    parser.add_argument("--input_image", help="for a model that takes one")
    parser.add_argument("--prompt", default="a robot waves")
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--num_frames", type=int)
    parser.add_argument("--steps", type=int, nargs="+", default=(30, 31), help="one even, one odd")
    parser.add_argument("--thresholds", type=float, nargs="+", default=SHOWN)
    parser.add_argument("--seeds", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if (given.task_type is None) != (given.model_id is None):
        parser.error("--task_type and --model_id go together")
    return given


def prepare(given: argparse.Namespace, task: str, words: str | None) -> tuple[Bench, Table]:
    """A loaded model and its coefficients."""
    tiny = given.model_id is None
    dtype = torch.float32 if given.device == "cpu" else torch.bfloat16
    pipeline = videogen.load(task, given.model_id or "tiny", dtype=dtype, device=given.device)
    pipeline.set_progress_bar_config(disable=True)
    if tiny:
        torch.set_num_threads(1)
        smooth(pipeline.transformer.condition_embedder.time_embedder.linear_1, SHORTEST_WAVE)
    config = pipeline.transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    table = choose_table(words, pipeline.checkpoint.name, width, given.input_image is not None)
    asked = {name: getattr(given, name) for name in ("height", "width", "num_frames", "prompt")}
    if given.input_image is not None:
        asked["input_image"] = Image.open(given.input_image)
    asked = {name: value for name, value in asked.items() if value is not None}
    return Bench(pipeline, (TINY_SIZE if tiny else {}) | asked), table


def main() -> None:
    given = arguments()
    cases = CASES if given.model_id is None else ((given.task_type, given.teacache_model),)
    heads = f"{'computed':>10} {'':>4} {'error':>6} {'time':>5}"
    print(f"{'':<45}{'published':<29}{'fixed':<26}{'fixed/published'}")
    print(f"{'task, coefficients':<27} {'ret':<3} {'steps':>5} {'thresh':>6}{heads}{heads}  at equal cost")
    ratios: dict[str, list[float]] = {}
    for task, words in cases:
        bench, table = prepare(given, task, words)
        for use_ret_steps, steps in product((False, True), given.steps):
            setting = Setting(table=table, use_ret_steps=use_ret_steps, steps=steps, seeds=given.seeds)
            label = f"{task}, {table.name}"
            kind = f"ret {'yes' if use_ret_steps else 'no'}, {'odd' if steps % 2 else 'even'} steps"
            ratios.setdefault(kind, []).extend(rows(bench, setting, given.thresholds, label))
    for name, values in ratios.items():
        if values:
            middle, better = statistics.median(values), sum(value < 1 for value in values)
            print(f"{name}: fixed/published {middle:.2f} (median), below 1 in {better} of {len(values)}")


if __name__ == "__main__":
    main()
