"""Time and memory of one long video, made in parts: segments of diffusion_forcing, clips of talking_avatar.

    python -m benchmarks.long_video diffusion_forcing
    python -m benchmarks.long_video talking_avatar

Every length is a process of its own: the command line on the tiny model. A part after the first makes its
overlap anew and throws it away, so two rates are shown: seconds per frame of the result, and per frame made
(denoised and decoded), overlaps included. The first rises with the second part and must then stay, the
other must be the same throughout. Seconds are the sidecar's total less load; medians, the lengths
interleaved, one thread.

Memory comes from runs of their own with two steps (it does not depend on them), measured from the end of the
first part's denoising: bytes of living tensors at the worst moment, which are exact, and the peak of the
resident set, which the C library is told to keep to what is in use (MALLOC_MMAP_THRESHOLD_). Growth is over
the shortest video, then less what is kept until the end: the latents of all segments, or the features of the
whole sound and the frames that clips work towards.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from videogen.tasks.avatar_clips import plan_clips
from videogen.tasks.forcing_schedule import segment_lengths
from videogen.tasks.geometry import LATENT_CHANNELS, SPACE_STRIDE, latent_frames
from videogen.tasks.table import TASKS

ROOT = Path(__file__).parent.parent
MEMORY_STEPS = 2
FEW_THREADS = {"OMP_NUM_THREADS": "1"}  # small tensors: more threads only disturb


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One task's long video.

    Args:
        runs: timed runs of every length in frames, more of the short ones.
        base: frames of one part.
        overlap: of them, those made anew or cut off.
        options: flags for a length, given a folder.
        parts: latent frames of every part of a length, overlaps included.
        kept: bytes kept until the end.
        pipeline: module and class.
    """

    runs: Mapping[int, int]
    size: tuple[int, int]
    base: int
    overlap: int
    options: Callable[[int, Path], dict[str, Any]]
    parts: Callable[[int], list[int]]
    kept: Callable[[int], int]
    pipeline: tuple[str, str]

    def made(self, frames: int) -> int:
        """Video frames that are denoised and decoded, overlaps included."""
        return sum(4 * latent - 3 for latent in self.parts(frames))


SEGMENT, HISTORY = 97, 17
FORCING_SIZE = 64, 48
CLIP, MOTION, DROP = 81, 5, 12
AVATAR_SIZE = 32, 32
FEATURES = 2 * 16 * 4  # bytes of a frame's features with the tiny encoder: layers, channels, float32
FPS, RATE = 25, 16000


def segments(frames: int) -> list[int]:
    whole, base, overlap = (latent_frames(count) for count in (frames, SEGMENT, HISTORY))
    return segment_lengths(whole, base, overlap, continued=False)


def segments_bytes(frames: int) -> int:
    """Latents of all segments, float32."""
    width, height = FORCING_SIZE
    pixels = (height // SPACE_STRIDE) * (width // SPACE_STRIDE)
    return sum(segments(frames)) * LATENT_CHANNELS * pixels * 4


def forcing_options(frames: int, _: Path) -> dict[str, Any]:
    return {"--num_frames": frames, "--base_num_frames": SEGMENT, "--overlap_history": HISTORY}


def clips(frames: int) -> list[int]:
    return [latent_frames(CLIP)] * (1 + len(plan_clips(frames, CLIP, motion=MOTION, drop=DROP).clips))


def avatar_bytes(frames: int) -> int:
    """Features of the sound, and the different frames that clips work towards, float32."""
    plan = plan_clips(frames, CLIP, motion=MOTION, drop=DROP)
    targets = len({clip.keyframe for clip in plan.clips})
    return plan.rows * FEATURES + targets * 3 * AVATAR_SIZE[0] * AVATAR_SIZE[1] * 4


def avatar_options(frames: int, folder: Path) -> dict[str, Any]:
    """With a tone that rises and falls; it is made if it is not there."""
    path = folder / f"{frames}.wav"
    if not path.exists():
        time = np.arange(frames * RATE // FPS) / RATE
        tone = 0.3 * np.sin(2 * np.pi * 200 * time) * np.sin(np.pi * time)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((tone * 32767).astype("<i2").tobytes())
    clip = {"--num_frames": CLIP, "--motion_frame": MOTION, "--drop_frame": DROP}
    return {"--input_audio": path, "--input_image": ROOT / "ref_imgs/balloon.png", **clip}


CASES = {
    "diffusion_forcing": Case(
        runs={97: 5, 377: 3, 1457: 1},
        size=FORCING_SIZE,
        base=SEGMENT,
        overlap=HISTORY,
        options=forcing_options,
        parts=segments,
        kept=segments_bytes,
        pipeline=("diffusion_forcing", "DiffusionForcingPipeline"),
    ),
    "talking_avatar": Case(
        runs={250: 3, 1250: 2, 5000: 1},
        size=AVATAR_SIZE,
        base=CLIP,
        overlap=MOTION + DROP,
        options=avatar_options,
        parts=clips,
        kept=avatar_bytes,
        pipeline=("talking_avatar", "TalkingAvatarPipeline"),
    ),
}


def command(task: str, frames: int, steps: int, folder: Path) -> list[str]:
    case = CASES[task]
    options = {
        "--task_type": task,
        "--model_id": "tiny",
        "--device": "cpu",
        "--prompt": "a robot waves",
        "--seed": 1,
        "--width": case.size[0],
        "--height": case.size[1],
        "--num_inference_steps": steps,
        "--output": folder / f"{frames}.mp4",
        **case.options(frames, folder),
    }
    return [str(word) for pair in options.items() for word in pair] + ["--overwrite"]


def seconds(task: str, frames: int, steps: int, folder: Path) -> dict[str, float]:
    """The sidecar's seconds of one run of the command line."""
    words = [sys.executable, str(ROOT / "generate_video.py"), *command(task, frames, steps, folder)]
    subprocess.run(words, env=os.environ | FEW_THREADS, check=True, capture_output=True)
    return json.loads((folder / f"{frames}.json").read_text())["seconds"]


def memory(task: str, frames: int, folder: Path) -> dict[str, list[int]]:
    """``run_one`` in a process of its own."""
    environment = os.environ | FEW_THREADS | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    words = [
        sys.executable,
        "-m",
        "benchmarks.long_video",
        task,
        "--one",
        str(frames),
        "--folder",
        str(folder),
    ]
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_one(task: str, frames: int, folder: Path) -> dict[str, list[int]]:
    """Make one video with every tensor watched; the highest figures of this process, loading left out.

    Whenever a part has been denoised a new measurement begins: the first, with the imports, the weights
    and the text encoder, is dropped, so there is one from the decoding of each part to that of the next.
    """
    from benchmarks.decode_memory import peak_resident  # noqa: PLC0415 - only in the measured process
    from benchmarks.live_memory import Watch  # noqa: PLC0415
    from videogen.cli.main import main as videogen_main  # noqa: PLC0415

    module, name = CASES[task].pipeline
    pipeline = getattr(importlib.import_module(f"videogen.pipelines.{module}"), name)
    watch, live, resident, parts = Watch(), [], [], pipeline.parts

    def mark() -> None:
        live.append(watch.peak)
        resident.append(peak_resident())
        watch.peak = watch.now
        Path("/proc/self/clear_refs").write_text("5")  # start a new peak

    def marked(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for part in parts(*args, **kwargs):
            mark()
            yield part

    pipeline.parts = marked
    with watch:
        code = videogen_main(command(task, frames, MEMORY_STEPS, folder))
    mark()
    assert code == 0
    assert len(live) == 1 + len(CASES[task].parts(frames))
    return {"live": live[1:], "resident": resident[1:]}


def time_table(task: str, steps: int, folder: Path) -> None:
    case = CASES[task]
    taken: dict[int, list[dict[str, float]]] = {frames: [] for frames in case.runs}
    for turn in range(max(case.runs.values())):
        for frames in (frames for frames, runs in case.runs.items() if turn < runs):
            taken[frames].append(seconds(task, frames, steps, folder))
    print(f"{'frames':>6} {'parts':>8} {'made':>5} {'seconds':>8} {'ms/frame':>9} {'ratio':>6}", end="")
    print(f"{'ms/made':>9} {'ratio':>6} {'spread':>11}   of it {'denoise':>7} {'decode':>7} {'encode':>7}")
    first: list[float] = []
    for frames, runs in taken.items():
        made = case.made(frames)
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
        shares = " ".join(f"{stage:7.2f}" for stage in stages)
        count = len(case.parts(frames))
        print(f"{frames:6d} {count:8d} {made:5d} {work:8.2f} {raw}{per_made} {spread:>11}         {shares}")


def memory_table(task: str, folder: Path) -> None:
    case = CASES[task]
    figures = {frames: memory(task, frames, folder) for frames in case.runs}
    shortest = min(case.runs)
    print(f"{'frames':>6} {'kept MB':>11}", end="")
    for name in ("live", "resident"):
        print(f" {name + ' peak MB':>17} {'growth':>7} {'less kept':>13}", end="")
    print("   live bytes from one part to the next")
    for frames, figure in figures.items():
        kept = case.kept(frames)
        print(f"{frames:6d} {kept / 1e6:11.3f}", end="")
        for name in ("live", "resident"):
            growth = max(figure[name]) - max(figures[shortest][name])
            beyond = growth - (kept - case.kept(shortest))
            print(f" {max(figure[name]) / 1e6:17.3f} {growth / 1e6:7.3f} {beyond / 1e6:13.3f}", end="")
        steps = [after - before for before, after in pairwise(figure["live"][1:-2])]
        print(f"   {min(steps)} to {max(steps)}" if steps else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("task", choices=CASES)
    parser.add_argument("--steps", type=int, help="denoising steps of the timed runs; default the task's")
    parser.add_argument("--one", type=int, metavar="FRAMES", help="run one measurement in this process")
    parser.add_argument("--folder", type=Path, help="where that one's video goes")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_one(args.task, args.one, args.folder)))
        return
    case = CASES[args.task]
    steps = args.steps or TASKS[args.task].config()["defaults"]["num_inference_steps"]
    print(f"{args.task} {'x'.join(map(str, case.size))}, {steps} steps, tiny model; ", end="")
    print(f"parts of {case.base} frames, of which {case.overlap} are made anew or cut off")
    with tempfile.TemporaryDirectory() as folder:
        time_table(args.task, steps, Path(folder))
        print()
        memory_table(args.task, Path(folder))


if __name__ == "__main__":
    main()
