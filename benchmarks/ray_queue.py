"""A list on Ray with one and two workers, beside the queue of one process: videos per hour, and overhead.

    python -m benchmarks.ray_queue

Each is the command line with the same list of the tiny model, one thread per worker, on a Ray cluster of this
machine with as many CPUs as workers. The start is what passes before the first video begins: libraries, Ray,
workers. Videos per hour are those after it, from the begin of the first to the end of the last. Overhead is
what passes between two videos of a worker beyond the times that their records have, the mean over all.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORDS = ("--task_type", "text_to_video", "--model_id", "tiny", "--device", "cpu", "--num_frames", "9")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Seconds of one run: its start, all of its videos, and each video as its record has it."""

    workers: int
    start: float
    videos: float
    each: Sequence[float]

    def row(self, name: str) -> str:
        """Return the row of the table."""
        count = len(self.each)
        overhead = (self.videos * self.workers - sum(self.each)) / count
        rate = 3600 * count / self.videos
        seconds = sum(self.each) / count
        return f"| {name} | {self.start:.1f} | {rate:.0f} | {seconds:.2f} | {1000 * overhead:.0f} |"


def run(file: Path, folder: Path, workers: int, ray: Sequence[str]) -> Run:
    """Run the command line over a list."""
    command = [sys.executable, "generate_video.py", *WORDS, "--jobs", str(file), "--output_dir", str(folder)]
    done = subprocess.run(
        [*command, "--progress", "json", *ray], cwd=ROOT, check=True, capture_output=True, text=True
    )
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    saved = [event for event in events if event["event"] == "saved"]
    begun = next(event for event in events if event["event"] == "video")
    return Run(
        workers=workers,
        start=moment(begun) - moment(events[0]),
        videos=moment(saved[-1]) - moment(begun),
        each=[event["seconds"]["total"] for event in saved],
    )


def moment(event: Mapping[str, str]) -> float:
    """Return when an event happened, in seconds."""
    return datetime.fromisoformat(event["time"]).timestamp()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    import ray  # noqa: PLC0415 - reads the environment

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "jobs.jsonl"
        lines = [{"prompt": f"swan {n}", "seed": n} for n in range(given.videos)]
        steps = {"num_inference_steps": given.steps}
        file.write_text("".join(f"{json.dumps(line | steps)}\n" for line in lines))
        print("| | start, s | videos per hour | seconds of a video | overhead per video, ms |")
        print("|---|---|---|---|---|")
        run(file, folder / "warm", 1, ())  # the tiny model is made
        print(run(file, folder / "serial", 1, ()).row("one process"), flush=True)
        for workers in (1, 2):
            store = 100_000_000
            ray.init(address="local", num_cpus=workers, object_store_memory=store, include_dashboard=False)
            address = ray.get_runtime_context().gcs_address
            made = run(file, folder / str(workers), workers, ("--ray", address))
            print(made.row(f"Ray, {workers} worker{'s' if workers > 1 else ''}"), flush=True)
            ray.shutdown()


if __name__ == "__main__":
    main()
