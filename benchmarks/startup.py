"""Seconds for --help, --dry_run and the tiny job from the first word to the finished MP4, each as a process.

    python benchmarks/startup.py

For the tiny job also what of it is the video itself, from loading the model on, by its sidecar; the rest is
Python and its imports. Processor seconds (user and system, all threads) leave out other work on the machine.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
JOB = (
    *("--task_type", "reference_to_video", "--model_id", "tiny", "--prompt", "a robot waves"),
    *("--ref_imgs", str(ROOT / "ref_imgs/robot.png"), "--overwrite"),
)


def measured(words: tuple[str, ...], repeats: int, sidecar: Path) -> dict[str, list[float]]:
    """Return seconds of every run: by the clock, of processors, and by the clock for the video itself."""
    taken: dict[str, list[float]] = {"wall": [], "processor": [], "video": []}
    for _ in range(repeats + 1):  # the first warms the disk cache and builds the tiny model
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, ROOT / "generate_video.py", *words], check=True, capture_output=True)
        taken["wall"].append(time.perf_counter() - started)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken["processor"].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if sidecar.is_file():
            taken["video"].append(json.loads(sidecar.read_text(encoding="utf-8"))["seconds"]["total"])
            sidecar.unlink()
    return {name: values[1:] for name, values in taken.items() if values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = ("--output", f"{folder}/out.mp4")
        rows = {
            "--help": ("--help",),
            "--dry_run": (*JOB, *output, "--dry_run"),
            "tiny job, 160x96, 25 frames": (*JOB, *output),
        }
        print(f"{'command':<30} {'seconds':<10} {'median':>7} {'min':>7} {'max':>7}   of {args.repeats}")
        for name, words in rows.items():
            for kind, taken in measured(words, args.repeats, Path(folder) / "out.json").items():
                figures = (statistics.median(taken), min(taken), max(taken))
                print(f"{name:<30} {kind:<10}", *(f"{figure:7.2f}" for figure in figures))


if __name__ == "__main__":
    main()
