"""Seconds for --help, --dry_run and the tiny job from the first word to the finished MP4, each as a process.

python benchmarks/startup.py
"""

import argparse
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


def seconds(words: tuple[str, ...], repeats: int) -> list[float]:
    taken = []
    for _ in range(repeats + 1):  # the first warms the disk cache and builds the tiny model
        started = time.perf_counter()
        subprocess.run([sys.executable, ROOT / "generate_video.py", *words], check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    return taken[1:]


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
        print(f"{'command':<30} {'median s':>9} {'min':>7} {'max':>7}   of {args.repeats}")
        for name, words in rows.items():
            taken = seconds(words, args.repeats)
            print(f"{name:<30} {statistics.median(taken):9.2f} {min(taken):7.2f} {max(taken):7.2f}")


if __name__ == "__main__":
    main()
