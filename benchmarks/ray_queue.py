"""A list on Ray with one and two workers, beside the queue of one process: videos per hour, and overhead.

    python -m benchmarks.ray_queue

Each is the command line with the same list of the tiny model, one thread per worker, on a Ray cluster of this
machine with as many CPUs as workers. The start is what passes before the first video begins: libraries, Ray,
workers. Videos per hour are those after it, from the begin of the first to the end of the last. Overhead is
what passes for a worker between two videos and around them, beyond the time that their records have. Medians
of rounds in which all take turns.
"""

import argparse
import json
import os
import statistics
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
    """Seconds of one run: before the first video, of all videos, of one in its record, and around each."""

    start: float
    videos: float
    each: float
    overhead: float


def run(file: Path, folder: Path, ray: Sequence[str]) -> Run:
    """Run the command line over a list."""
    command = [sys.executable, "generate_video.py", *WORDS, "--jobs", str(file), "--output_dir", str(folder)]
    done = subprocess.run(
        [*command, "--progress", "json", *ray], cwd=ROOT, check=True, capture_output=True, text=True
    )
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    begun = {event["index"]: moment(event) for event in events if event["event"] == "video"}
    saved = {event["index"]: event for event in events if event["event"] == "saved"}
    ends = sorted(map(moment, saved.values()))
    totals = {index: event["seconds"]["total"] for index, event in saved.items()}
    around = [moment(saved[index]) - begun[index] - totals[index] for index in saved]
    first, *later = sorted(begun.values())
    free, between = list(ends), list[float]()
    for begin in later:
        before = [end for end in free if end <= begin]
        if before:  # else it is the first of another worker
            between.append(begin - before[-1])
            free.remove(before[-1])
    return Run(
        start=first - moment(events[0]),
        videos=ends[-1] - first,
        each=statistics.mean(totals.values()),
        overhead=statistics.mean(around) + statistics.mean(between),
    )


def row(name: str, runs: Sequence[Run], videos: int) -> str:
    """Return the row of the table: medians."""
    rate = statistics.median(3600 * videos / run.videos for run in runs)
    start, each, overhead = (
        statistics.median(getattr(run, field) for run in runs) for field in ("start", "each", "overhead")
    )
    return f"| {name} | {start:.1f} | {rate:.0f} | {each:.2f} | {1000 * overhead:.0f} |"


def moment(event: Mapping[str, str]) -> float:
    """Return when an event happened, in seconds."""
    return datetime.fromisoformat(event["time"]).timestamp()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    import ray  # noqa: PLC0415 - reads the environment

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = folder / "jobs.jsonl"
        lines = [{"prompt": f"swan {n}", "seed": n} for n in range(given.videos)]
        steps = {"num_inference_steps": given.steps}
        file.write_text("".join(f"{json.dumps(line | steps)}\n" for line in lines))
        run(file, folder / "warm", ())  # the tiny model is made
        runs: dict[str, list[Run]] = {"one process": [], "Ray, 1 worker": [], "Ray, 2 workers": []}
        for number in range(given.rounds):
            for workers, name in enumerate(runs):
                out = folder / f"{number}_{workers}"
                if workers:
                    about = {"object_store_memory": 100_000_000, "include_dashboard": False}
                    ray.init(address="local", num_cpus=workers, **about)
                address = ("--ray", ray.get_runtime_context().gcs_address) if workers else ()
                runs[name].append(run(file, out, address))
                print(name, runs[name][-1], file=sys.stderr, flush=True)
                ray.shutdown()
    print("| | start, s | videos per hour | seconds of a video | overhead per video, ms |")
    print("|---|---|---|---|---|")
    for name, made in runs.items():
        print(row(name, made, given.videos))


if __name__ == "__main__":
    main()
