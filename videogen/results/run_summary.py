"""What a video took, and a whole run, in one line each."""

from collections.abc import Sequence

from videogen.results.formatting import format_bytes, format_measured
from videogen.results.progress import RunFinished, Saved

PLACES = {"gpu": "on the GPU", "ram": "of RAM"}  # in a record's peak_memory


def seconds_per_step(steps: Sequence[float]) -> float:
    """Return the mean of the steps after the first, which also warms up and compiles."""
    return sum(steps[1:]) / len(steps[1:]) if len(steps) > 1 else sum(steps)


def closing_line(saved: Saved) -> str:
    """Return the line that is said when a video is finished: stages, steps, and memory at its peak."""
    seconds, memory = saved.seconds, saved.peak_memory
    stages = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if name != "total")
    peaks = [f"{format_bytes(memory[place])} {words}" for place, words in PLACES.items() if place in memory]
    facts = [
        f"{seconds['total']:.1f} s ({stages})",
        *([f"{saved.seconds_per_step:.3g} s/step"] if saved.seconds_per_step else []),
        f"peak {', '.join(peaks)}",
    ]
    return f"{saved.path}: {'; '.join(facts)}"


def list_line(run: RunFinished) -> str:
    """Return the line that is said at the end of a list: what became of it, and how fast; empty for one."""
    if run.videos < 2:
        return ""
    made = run.videos - run.failed - run.skipped
    facts = [f"{made} made, {run.skipped} skipped, {run.failed} failed in {format_measured(run.seconds)}"]
    facts += [f"{made / run.seconds * 3600:.3g} an hour"] if made and run.seconds else []
    return f"{run.videos} videos: {', '.join(facts)}"
