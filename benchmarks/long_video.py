"""Time and memory of one long video, made in segments: diffusion_forcing at 97, 377 and 1457 frames.

    python -m benchmarks.long_video

Every length is a process of its own: the command line on the tiny model. A segment after the first makes its
overlap anew and throws it away, so two rates are shown: seconds per frame of the result, and per frame made
(denoised and decoded), overlaps included. The first rises with the second segment and must then stay, the
other must be the same throughout. Seconds are the sidecar's total less load; medians, the lengths
interleaved, one thread.

Memory comes from runs of their own with two steps (it does not depend on them), measured from the end of the
first segment's denoising: bytes of living tensors at the worst moment, which are exact, and the peak of the
resident set, which the C library is told to keep to what is in use (MALLOC_MMAP_THRESHOLD_). Growth is over
the shortest video, then less the latents: those of all segments are held until the end for --save_latents.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from videogen.forcing import segment_lengths
from videogen.geometry import LATENT_CHANNELS, SPACE_STRIDE, latent_frames

ROOT = Path(__file__).parent.parent
RUNS = {97: 5, 377: 3, 1457: 1}  # timed runs of every length, more of the short ones
BASE, OVERLAP = 97, 17
WIDTH, HEIGHT = 64, 48
MEMORY_STEPS = 2
FEW_THREADS = {"OMP_NUM_THREADS": "1"}  # small tensors: more threads only disturb


def segments(frames: int) -> list[int]:
    """Latent frames of every segment, overlaps included."""
    whole, base, overlap = (latent_frames(count) for count in (frames, BASE, OVERLAP))
    return segment_lengths(whole, base, overlap, continued=False)


def frames_made(frames: int) -> int:
    """Video frames that are denoised and decoded, overlaps included."""
    return sum(4 * latent - 3 for latent in segments(frames))


def latents_bytes(frames: int) -> int:
    """Of all segments, float32."""
    pixels = (HEIGHT // SPACE_STRIDE) * (WIDTH // SPACE_STRIDE)
    return sum(segments(frames)) * LATENT_CHANNELS * pixels * 4


def command(frames: int, steps: int, target: Path) -> list[str]:
    options = {
        "--task_type": "diffusion_forcing",
        "--model_id": "tiny",
        "--device": "cpu",
        "--prompt": "a robot waves",
        "--seed": 1,
        "--width": WIDTH,
        "--height": HEIGHT,
        "--num_frames": frames,
        "--base_num_frames": BASE,
        "--overlap_history": OVERLAP,
        "--num_inference_steps": steps,
        "--output": target,
    }
    return [str(word) for pair in options.items() for word in pair] + ["--overwrite"]


def seconds(frames: int, steps: int, folder: Path) -> dict[str, float]:
    """The sidecar's seconds of one run of the command line."""
    target = folder / f"{frames}.mp4"
    words = [sys.executable, str(ROOT / "generate_video.py"), *command(frames, steps, target)]
    subprocess.run(words, env=os.environ | FEW_THREADS, check=True, capture_output=True)
    return json.loads(target.with_suffix(".json").read_text())["seconds"]


def memory(frames: int, folder: Path) -> dict[str, list[int]]:
    """``run_one`` in a process of its own."""
    environment = os.environ | FEW_THREADS | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    words = [sys.executable, "-m", "benchmarks.long_video", "--one", str(frames), "--folder", str(folder)]
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_one(frames: int, folder: Path) -> dict[str, list[int]]:
    """Make one video with every tensor watched; the highest figures of this process, loading left out.

    Whenever a segment has been denoised a new measurement begins: the first, with the imports, the weights
    and the text encoder, is dropped, so there is one from the decoding of each segment to that of the next.
    """
    from benchmarks.decode_memory import peak_resident  # noqa: PLC0415 - only in the measured process
    from benchmarks.live_memory import Watch  # noqa: PLC0415
    from videogen.cli import main as videogen_main  # noqa: PLC0415
    from videogen.pipelines.diffusion_forcing import DiffusionForcingPipeline  # noqa: PLC0415

    watch, live, resident, parts = Watch(), [], [], DiffusionForcingPipeline.parts

    def mark() -> None:
        live.append(watch.peak)
        resident.append(peak_resident())
        watch.peak = watch.now
        Path("/proc/self/clear_refs").write_text("5")  # start a new peak

    def marked(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for part in parts(*args, **kwargs):
            mark()
            yield part

    DiffusionForcingPipeline.parts = marked  # type: ignore[method-assign]
    with watch:
        code = videogen_main(command(frames, MEMORY_STEPS, folder / f"{frames}.mp4"))
    mark()
    assert code == 0 and len(live) == 1 + len(segments(frames))
    return {"live": live[1:], "resident": resident[1:]}


def time_table(steps: int, folder: Path) -> None:
    taken: dict[int, list[dict[str, float]]] = {frames: [] for frames in RUNS}
    for turn in range(max(RUNS.values())):
        for frames in (frames for frames, runs in RUNS.items() if turn < runs):
            taken[frames].append(seconds(frames, steps, folder))
    print(f"{'frames':>6} {'segments':>8} {'made':>5} {'seconds':>8} {'ms/frame':>9} {'ratio':>6}", end="")
    print(f"{'ms/made':>9} {'ratio':>6} {'spread':>11}   of it {'denoise':>7} {'decode':>7} {'encode':>7}")
    first: list[float] = []
    for frames, runs in taken.items():
        made = frames_made(frames)
        works = sorted(run["total"] - run["load"] for run in runs)
        work = statistics.median(works)
        rates = [1000 * work / frames, 1000 * work / made]
        first = first or rates
        raw, per_made = (f"{rate:9.2f} {rate / one:6.3f}" for rate, one in zip(rates, first, strict=True))
        spread = f"{1000 * works[0] / made:.2f}-{1000 * works[-1] / made:.2f}"
        stages = [
            1000 * statistics.median(run.get(stage, 0.0) for run in runs) / made
            for stage in ("denoise", "decode", "vae encode")
        ]
        parts = " ".join(f"{stage:7.2f}" for stage in stages)
        count = len(segments(frames))
        print(f"{frames:6d} {count:8d} {made:5d} {work:8.2f} {raw}{per_made} {spread:>11}         {parts}")


def memory_table(folder: Path) -> None:
    figures = {frames: memory(frames, folder) for frames in RUNS}
    shortest = min(RUNS)
    print(f"{'frames':>6} {'latents MB':>11}", end="")
    for name in ("live", "resident"):
        print(f" {name + ' peak MB':>17} {'growth':>7} {'less latents':>13}", end="")
    print(f"   live bytes a segment (its latents: {latents_bytes(BASE)})")
    for frames, figure in figures.items():
        kept = latents_bytes(frames)
        print(f"{frames:6d} {kept / 1e6:11.3f}", end="")
        for name in ("live", "resident"):
            growth = max(figure[name]) - max(figures[shortest][name])
            beyond = growth - (kept - latents_bytes(shortest))
            print(f" {max(figure[name]) / 1e6:17.3f} {growth / 1e6:7.3f} {beyond / 1e6:13.3f}", end="")
        steps = [after - before for before, after in pairwise(figure["live"][1:-2])]
        print(f"   {min(steps)} to {max(steps)}" if steps else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="denoising steps of the timed runs")
    parser.add_argument("--one", type=int, metavar="FRAMES", help="run one measurement in this process")
    parser.add_argument("--folder", type=Path, help="where that one's video goes")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_one(args.one, args.folder)))
        return
    print(f"{WIDTH}x{HEIGHT}, segments of {BASE} frames, overlap {OVERLAP}, {args.steps} steps, tiny model")
    with tempfile.TemporaryDirectory() as folder:
        time_table(args.steps, Path(folder))
        print()
        memory_table(Path(folder))


if __name__ == "__main__":
    main()
