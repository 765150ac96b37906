"""What a video takes on a GPU that is not there: memory by phase, work, traffic, copies, time at least.

    python -m benchmarks.simulate reference_to_video
    python -m benchmarks.simulate text_to_video --model_id Wan-AI/Wan2.2-T2V-A14B --mode offload --gpu 4090
    python -m benchmarks.simulate --table > table.md

Options of the command line are taken as well (--size, --num_frames, --vae_tiling ...). Nothing is
downloaded: the weights are fakes of the published size (see tests/simulated), and the project's own code
runs on them. It needs no GPU and 1 GB of memory.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tests.simulated.gpus import GPUS, Gpu
from tests.simulated.jobs import MODES, Job, run_with_little_room
from tests.simulated.ledger import Event
from tests.simulated.models import FAMILIES
from tests.simulated.roofline import Work, elementwise, select, total, work_by
from videogen.cli.parser import parse
from videogen.errors import VideoGenError
from videogen.tasks.options import FLAG_NAMES

CANNOT_SEE = (
    "Not seen: fragmentation of the allocator, workspaces of cuDNN and cuBLAS, the CUDA context (0.5-0.8 "
    "GB), buffers of NCCL, copies from the host (which --offload and --low_vram wait for), and how near real "
    "kernels come to the data sheet's rates (65 % is usual)."
)
STEPS = 2  # that are simulated: the second shows what every later one does
LISTED = 8
FRAMES = 9  # that are decoded for a table; the rest is reckoned
LARGER = (1.15, 1.3, 1.5, 1.75)  # cards to try, in shares of the estimate, where that is too little


def run_one(
    task: str, gpu: str, mode: str, frames: int | None, options: Mapping[str, Any], *, count: bool = True
) -> tuple[Job, bool]:
    """Simulate one job where it has just the memory that ``--dry_run`` speaks of, or what it needs.

    Args:
        count: its kernels too; without them it takes a fraction of the time.
    """
    settings = {**options, **MODES[mode], "num_inference_steps": STEPS}
    return run_with_little_room(task, gpu, frames=frames, count=count, others=LARGER, **settings)


def one_forward(job: Job, gpu: Gpu) -> dict[str, Work]:
    """Return the work of the last forward, by part."""
    ledger = job.sim.ledger
    last = max(kernel.step for kernel in ledger.kernels if kernel.phase == "denoise")
    return work_by(select(ledger, "denoise", last), gpu)


def whole_video(job: Job, gpu: Gpu, steps: int) -> dict[str, Work]:
    """Return the work of all forwards and all frames, by phase."""
    ledger = job.sim.ledger
    phases = dict.fromkeys(kernel.phase for kernel in ledger.kernels)
    works = {phase: total(work_by(select(ledger, phase), gpu).values()) for phase in phases}
    works["denoise"] = total(one_forward(job, gpu).values()).times(job.plan.forwards * steps / STEPS)
    if 0 < job.frames < (wanted := job.plan.shape.num_frames):
        works["decode"] = works["decode"].times(wanted / job.frames)
    return works


def steps_of(job: Job, options: Mapping[str, Any]) -> int:
    """Return the steps that were asked for, or the published number."""
    plan = job.plan
    return int(
        options.get("num_inference_steps") or plan.task.defaults(plan.checkpoint)["num_inference_steps"]
    )


def report(job: Job, gpu: Gpu, steps: int, *, fitted: bool) -> Iterator[str]:
    """Write down one job."""
    plan, shape, ledger = job.plan, job.plan.shape, job.sim.ledger
    yield (
        f"{plan.task.name}, {plan.checkpoint.name}, {shape.width}x{shape.height}, {shape.num_frames} frames, "
        f"{shape.tokens} tokens, {plan.memory_mode}, on one {gpu.name}"
    )
    where = "" if job.peak <= gpu.memory else f", more than the {gpu.memory / 1e9:.0f} GB of a {gpu.name}"
    said = f"{job.estimate / 1e9:.1f} GB ({job.estimate / job.peak - 1:+.1%})"
    yield f"peak memory: {job.peak / 1e9:.1f} GB{where}; --dry_run says {said}"
    if not fitted:
        yield "  with 5 % more than --dry_run says, it runs out of memory; this run had more"
    for phase, peaks in sorted(ledger.peaks.items(), key=lambda item: -item[1]["cuda"]):
        if peaks["cuda"]:
            place = ledger.peak_places.get((phase, "cuda"), "")
            yield f"  {phase:<12} {peaks['cuda'] / 1e9:6.1f} GB  {place}"
    forward = one_forward(job, gpu)
    work = total(forward.values())
    yield from _works("one forward", forward)
    near = f"{work.limit / work.seconds:.0%} of what its products allow, {work.limit:.2f} s"
    yield f"  {near}; traffic of all else {elementwise(forward) / 1e12:.2f} TB"
    yield from _works(
        f"the whole video, {steps} steps, {plan.forwards * steps // STEPS} forwards",
        whole_video(job, gpu, steps),
    )
    yield from _waits(ledger.syncs)
    yield from _copies(job, gpu)
    used = {event.what for event in ledger.attention if event.phase == "denoise"}
    yield f"attention: {'; '.join(sorted(used))}"
    guessed = {f"{event.what} at {event.place}" for event in ledger.notes if event.what.startswith("guessed")}
    yield f"guessed where no fake has numbers: {'; '.join(sorted(guessed)) or 'nothing'}"
    yield CANNOT_SEE


def _works(title: str, works: Mapping[str, Work]) -> Iterator[str]:
    whole = total(works.values())
    yield f"{title}: {whole.seconds:.2f} s at least"
    yield f"  {'':<18} {'seconds':>9} {'share':>6} {'PFLOP':>8} {'traffic GB':>11} {'kernels':>8}"
    for part, work in (*works.items(), ("together", whole)):
        if work.kernels:
            figures = f"{work.flops / 1e15:8.2f} {work.traffic / 1e9:11.1f} {work.kernels:8d}"
            yield f"  {part:<18} {work.seconds:9.3f} {work.seconds / whole.seconds:6.1%} {figures}"


def _waits(syncs: Mapping[Event, int]) -> Iterator[str]:
    """Synchronisations of the last forward, and of the solver's step behind it."""
    last = max((event.step for event in syncs if event.phase == "denoise"), default=0)
    found = {event: count for event, count in syncs.items() if event[:2] == ("denoise", last)}
    yield f"synchronisations in the last forward: {sum(found.values())}"
    for event, count in sorted(found.items(), key=lambda item: -item[1])[:LISTED]:
        yield f"  {count:6d}  {event.what}  {event.place}"


def _copies(job: Job, gpu: Gpu) -> Iterator[str]:
    """Copies between host and card, by phase and kind."""
    sizes: Counter[tuple[str, str]] = Counter()
    for event, size in job.sim.ledger.copies.items():
        sizes[event.phase, event.what] += size
    yield f"copies of these {STEPS} steps (a {gpu.name} takes pinned memory at {gpu.link / 1e9:.0f} GB/s):"
    for (phase, what), size in sizes.most_common():
        if size > 1e7:
            yield f"  {phase:<12} {size / 1e9:8.2f} GB  {what}"


def table(gpu: Gpu, frames: int | None) -> Iterator[str]:
    """Write a markdown table of all families and modes."""
    modes = " | ".join(f"{mode}: peak / --dry_run, GB" for mode in MODES)
    yield f"| task | {modes} | PFLOP per forward | traffic TB | of the limit | whole video at least |"
    yield f"|{'---|' * (len(MODES) + 5)}"
    for label, task, options in FAMILIES:
        cells: list[str] = []
        plain: Job | None = None
        for mode in MODES:
            try:
                first = plain is None  # whose kernels are reported
                job, fitted = run_one(task, gpu.name, mode, frames or FRAMES, options, count=first)
            except Exception as error:  # one that fails does not stop the others
                cells.append(f"fails ({type(error).__name__})")
                continue
            plain = plain or job
            difference = f"{job.estimate / job.peak - 1:+.1%}" + ("" if fitted else ", too little")
            cells.append(f"{job.peak / 1e9:.1f} / {job.estimate / 1e9:.1f} ({difference})")
        if plain is not None:
            cells += _speed(plain, gpu, steps_of(plain, options))
        yield f"| {label} | {' | '.join(cells)} |"
    yield ""
    yield f"On one {gpu.name}. {CANNOT_SEE}"


def _speed(job: Job, gpu: Gpu, steps: int) -> list[str]:
    forward = one_forward(job, gpu)
    work, whole = total(forward.values()), total(whole_video(job, gpu, steps).values())
    return [
        f"{work.flops / 1e15:.2f}",
        f"{elementwise(forward) / 1e12:.2f}",
        f"{work.limit / work.seconds:.0%}",
        f"{whole.seconds / 60:.1f} min",
    ]


def options_of(words: list[str]) -> dict[str, Any]:
    """Return flags of the command line as options.

    Raises:
        InputError: an unknown flag, or a value that it does not take.
    """
    parse(words)  # or an error
    options: dict[str, Any] = {}
    while words:
        flag, equals, value = words.pop(0).partition("=")
        alone = not equals and (not words or words[0].startswith("--"))
        name = FLAG_NAMES[flag.removeprefix("--").replace("-", "_")]
        options[name] = True if alone else value if equals else words.pop(0)
    return options


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("task", nargs="?", help="as --task_type")
    parser.add_argument("--gpu", choices=GPUS, default="H100")
    parser.add_argument("--mode", choices=MODES, default="plain")
    parser.add_argument(
        "--frames", type=int, help="decode only so many frames and scale up; not the length (--num_frames)"
    )
    parser.add_argument("--table", action="store_true", help="all families and modes, in markdown")
    args, words = parser.parse_known_args()
    gpu = GPUS[args.gpu]
    if args.task is None and not args.table:
        parser.error("give a task, or --table")
    try:
        if args.table:
            lines = table(gpu, args.frames)
        else:
            options = options_of(words)
            job, fitted = run_one(args.task, gpu.name, args.mode, args.frames, options)
            lines = report(job, gpu, steps_of(job, options), fitted=fitted)
        for line in lines:
            print(line, flush=True)
    except VideoGenError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
