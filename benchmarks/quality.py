"""What options that trade quality for speed or memory save, and what they cost, against the exact video.

    python -m benchmarks.quality --teacache_model T2V-1.3B --plot quality.png
    python -m benchmarks.quality --model PATH --device cuda --prompts FILE --set height=544 --set width=960

Per option, medians over the videos: time of the steps over that of the exact video, PSNR of the 8-bit video
in dB, and forwards that a cache computed, of all. With the miniature also the agreement: the part of videos
in which formulas find the colour and the motion that the prompt names. The row "another seed" says what
PSNR two videos of one prompt have that share nothing else. What cannot be tried is named below the table.

float8 and GGUF files are written from the model's own weights. MagCache is calibrated first.
"""

import argparse
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import videogen
from benchmarks.quantized import FORMATS, files_of
from miniature import measure, world
from videogen.errors import VideoGenError, first_line
from videogen.review.quality import psnr

Options = Mapping[str, Any]
"""Options of generate_video.py by name."""

MINIATURE = "miniature"
WORLD_SEED = 77
ANOTHER = "another seed"
OTHER_SEED = 1000  # added to a seed
CACHES = (
    *("first_block:0.05", "first_block:0.1", "first_block:0.2", "magcache:0.06", "magcache:0.12"),
    *("magcache:0.24", "taylorseer:3", "taylorseer:5", "taylorseer_lite:3", "taylorseer_lite:5"),
)
FILES = [name for name, way in FORMATS.items() if way.write is not None]
OPTIONS: Mapping[str, Options] = {
    ANOTHER: {},
    **{f"{steps} steps": {"num_inference_steps": steps} for steps in (15, 10, 6, 4)},
    "lcm, 4 steps": {
        "sample_solver": "lcm", "num_inference_steps": 4, "guidance_scale": 1.0, "shift": 5.0
    },
    **{f"teacache {value:g}": {"teacache": True, "teacache_thresh": value} for value in (0.1, 0.2, 0.3)},
    **{cache.replace(":", " "): {"cache": cache} for cache in CACHES},
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16 VAE": {"vae_dtype": "bfloat16"},
    **{f"quantize {kind}": {"quantize": kind} for kind in ("int8", "int4", "float8")},
    **{name: {"transformer": name} for name in FILES},
    "float8_matmul": {"float8_matmul": True},
    "sage": {"attention_backend": "sage"},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """One video: frames uint8 [F, H, W, 3], seconds of its steps, forwards computed and all."""

    frames: np.ndarray
    seconds: float
    computed: int
    forwards: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Figures of an option; ``agreement`` is None where no formula knows what a video shows."""

    time: float
    psnr: float
    computed: float
    forwards: int
    agreement: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A model and the videos that it makes.

    Args:
        scenes: what the prompts describe, of the miniature's world; empty for other prompts.
        fixed: options of every video.
        folder: for the videos, one at a time, and for quantized files.
        teacache_model: whose coefficients TeaCache takes; None for the model's own.
    """

    task: str
    model: str
    prompts: Sequence[str]
    scenes: Sequence[world.Scene]
    fixed: Options
    folder: Path
    teacache_model: str | None

    def make(self, options: Options, first_seed: int = 0) -> list[Made]:
        """Make the video of every prompt, with the model loaded once."""
        queue = videogen.Queue()
        try:
            return [
                self._make_one(queue, prompt, {**self.fixed, **options, "seed": first_seed + number})
                for number, prompt in enumerate(self.prompts)
            ]
        finally:
            queue.close()

    def _make_one(self, queue: videogen.Queue, prompt: str, options: Options) -> Made:
        output = str(self.folder / "video.npy")
        result = videogen.generate(
            self.task, prompt, model=self.model, queue=queue, overwrite=True, output=output, **options
        )
        record = result.metadata
        counts = record.get("cache") or record.get("teacache") or {}
        computed = counts.get("computed", 0)
        return Made(
            frames=np.array(result.frames),
            seconds=sum(record["step_seconds"]),
            computed=computed,
            forwards=computed + counts.get("skipped", 0),
        )

    def compare(self, made: Sequence[Made], exact: Sequence[Made]) -> Row:
        """Return the figures of videos beside the exact ones."""
        pairs = list(zip(made, exact, strict=True))
        return Row(
            time=statistics.median(new.seconds / old.seconds for new, old in pairs),
            psnr=statistics.median(psnr(new.frames, old.frames) for new, old in pairs),
            computed=statistics.median(new.computed for new in made),
            forwards=made[0].forwards,
            agreement=self._agreement(made),
        )

    def _agreement(self, made: Sequence[Made]) -> float | None:
        if not self.scenes:
            return None
        seen = [measure.see(video.frames.astype(np.float32) / 255) for video in made]
        pairs = zip(seen, self.scenes, strict=True)
        return statistics.fmean((a.colour, a.motion) == (b.colour, b.motion) for a, b in pairs)

    def write_transformer(self, name: str) -> list[str]:
        """Write the model's transformers in a format; return what --transformer takes."""
        pipeline = videogen.load(self.task, self.model, device="cpu", dtype=torch.bfloat16)
        write = FORMATS[name].write
        assert write is not None
        words = files_of(
            write, [module.state_dict() for module in pipeline.transformers], self.folder / "own"
        )
        return [word for word in words if word != "--transformer"]


def rows(bench: Bench, only: Sequence[str]) -> Iterator[tuple[str, Row | str]]:
    """Yield (option, its figures, or why it cannot be tried); the exact videos come first."""
    exact = bench.make({})
    yield "exact", bench.compare(exact, exact)
    calibrated = False
    for name in chosen(only):
        options = dict(OPTIONS[name])
        try:
            if name.startswith("magcache") and not calibrated:
                replace(bench, prompts=bench.prompts[:1]).make({"cache": "magcache:calibrate"}, OTHER_SEED)
                calibrated = True
            if "teacache" in options and bench.teacache_model:
                options["teacache_model"] = bench.teacache_model
            if name in FILES:
                options["transformer"] = bench.write_transformer(name)
            seed = OTHER_SEED if name == ANOTHER else 0
            yield name, bench.compare(bench.make(options, seed), exact)
        except VideoGenError as error:
            yield name, first_line(error)


def chosen(only: Sequence[str]) -> list[str]:
    """Return the options that begin with one of these words; all without words."""
    return [name for name in OPTIONS if not only or name.startswith(tuple(only))]


def line(name: str, row: Row) -> str:
    """Return a line of the table."""
    computed = f"{row.computed:g}/{row.forwards}" if row.forwards else ""
    agreement = "" if row.agreement is None else f"{row.agreement:.0%}"
    quality = "same" if math.isinf(row.psnr) else f"{row.psnr:.1f}"
    return f"| {name} | {row.time:.2f} | {quality} | {agreement} | {computed} |"


def plot(found: Mapping[str, Row], file: Path) -> None:
    """Draw PSNR, where it is finite, and agreement, where it is known, over time."""
    kinds: list[tuple[str, Callable[[Row], float | None]]] = [
        ("PSNR, dB", lambda row: row.psnr if math.isfinite(row.psnr) else None)
    ]
    if any(row.agreement is not None for row in found.values()):
        kinds.append(("videos that show their prompt", lambda row: row.agreement))
    figure = Figure(figsize=(6 * len(kinds), 5), layout="constrained")
    for axes, (label, value) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        for name, row in found.items():
            if (height := value(row)) is not None:
                axes.plot(row.time, height, "o")
                name = "" if height == value(found["exact"]) else name  # noqa: PLW2901 - too many are alike
                axes.annotate(name, (row.time, height), (4, 3), textcoords="offset points", fontsize=7)
        axes.set(xlabel="time of the steps, exact = 1", ylabel=label)
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", default="text_to_video")
    parser.add_argument("--model", default=MINIATURE, help="a folder, a hub id or a tiny model")
    parser.add_argument("--prompts", type=Path, help="file with a prompt per line; default: of the world")
    parser.add_argument("--count", type=int, default=20, help="prompts of the world")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE, an option of every video")
    parser.add_argument("--teacache_model", help="whose coefficients TeaCache takes; default: by the name")
    parser.add_argument("--only", nargs="+", default=(), help="options that begin with one of these words")
    parser.add_argument("--plot", type=Path, help="PNG")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    rng = np.random.default_rng(WORLD_SEED)
    scenes = [] if given.prompts else [world.draw_scene(rng) for _ in range(given.count)]
    prompts = given.prompts.read_text().splitlines() if given.prompts else map(world.describe, scenes)
    fixed = dict(text.split("=", 1) for text in given.set)
    dtype = "float32" if given.device == "cpu" else "bfloat16"
    found = {}
    missing = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            task=given.task,
            model=given.model,
            prompts=list(prompts),
            scenes=scenes,
            fixed={"device": given.device, "dtype": dtype, **fixed},
            folder=Path(folder),
            teacache_model=given.teacache_model,
        )
        print("| option | time | PSNR, dB | agreement | computed |\n|---|---|---|---|---|")
        for name, row in rows(bench, given.only):
            if isinstance(row, Row):
                found[name] = row
                print(line(name, row), flush=True)
            else:
                missing[name] = row
    for name, why in missing.items():
        print(f"not tried: {name} ({why})")
    if given.plot:
        plot(found, given.plot)


if __name__ == "__main__":
    main()
