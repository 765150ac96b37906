"""Seconds of every stage of making a video, from the files to the finished MP4. Prints one table.

    python -m benchmarks.end_to_end
    python -m benchmarks.end_to_end --task text_to_video --model Skywork/SkyReels-V2-T2V-14B-540P

Everything else is a flag of generate_video.py. ``write`` is how long decoding waits for the encoder, which
works beside it, and the encoder's end; ``rest`` is what no stage counts: noise, names, the sidecar.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.dit_forward import spread
from videogen.cli.parser import parse
from videogen.engine.session import Session, generate
from videogen.pipelines.base import VideoPipeline
from videogen.planning.plan import Outline
from videogen.planning.request import Item, make_plans
from videogen.results.output_paths import OverwritePolicy
from videogen.runtime.device import device_name

ROOT = Path(__file__).parent.parent
# What a task is given unless flags say otherwise; small, for the tiny models.
INPUTS = {
    "reference_to_video": {"ref_imgs": ROOT / "ref_imgs/robot.png"},
    "image_to_video": {"input_image": ROOT / "ref_imgs/robot.png"},
    "hunyuan_image_to_video": {"input_image": ROOT / "ref_imgs/robot.png"},
}
SMALL = {"height": 96, "width": 160, "num_frames": 25, "num_inference_steps": 8}
STAGES = ("load", "text", "clip", "audio", "vae encode", "denoise", "decode", "colours", "write")


def synchronized(stage: Callable) -> Callable:
    """A GPU's work counts for the stage that asked for it."""

    @contextmanager
    def timed(pipeline: VideoPipeline, name: str) -> Iterator[None]:
        with stage(pipeline, name):
            yield
            torch.cuda.synchronize()

    return timed


def make_plan(task: str, model: str, flags: list[str], folder: Path, run: int) -> Outline:
    given, _ = parse(flags)
    standard = {
        "prompt": "a robot waves",
        "seed": 1,
        **INPUTS.get(task, {}),
        **(SMALL if model == "tiny" else {}),
    }
    words = [
        word for name, value in standard.items() if name not in given for word in (f"--{name}", str(value))
    ]
    values, _ = parse(
        ["--task_type", task, "--model_id", model, "--output", str(folder / f"{run}.mp4"), *words, *flags]
    )
    (plan,) = make_plans([Item(values=values)], OverwritePolicy(overwrite=False, resume=False), folder)
    return plan


def measure(plan: Outline) -> tuple[dict[str, float], list[float], str]:
    """One video, loaded anew: seconds by stage, seconds by step, the device."""
    session = Session()
    record = generate(plan, session).record
    pipeline = session.pipeline
    assert pipeline is not None
    steps, device = list(pipeline.step_seconds), device_name(pipeline._execution_device)
    session.close()
    return dict(record["seconds"]), steps, device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", default="reference_to_video")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--repeats", type=int, default=3)
    args, flags = parser.parse_known_args()
    if torch.cuda.is_available():
        VideoPipeline.stage = synchronized(VideoPipeline.stage)  # type: ignore[method-assign]
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for run in range(args.repeats + 1):  # the first is a warm-up
            plan = make_plan(args.task, args.model, flags, Path(folder), run)
            seconds, steps, device = measure(plan)
            seconds["rest"] = seconds["total"] - sum(seconds.get(stage, 0) for stage in STAGES)
            seconds |= {"first step": steps[0], "every other step": statistics.median(steps[1:] or steps)}
            for stage, value in seconds.items() if run else ():
                taken.setdefault(stage, []).append(value)
    shape = plan.shape
    size = (
        f"{shape.width}x{shape.height}, {shape.num_frames} frames, {shape.tokens} tokens, {len(steps)} steps"
    )
    print(f"{args.task}, {args.model}, {device}, {size}; median of {args.repeats} [min-max] seconds")
    print("| stage | seconds | share |\n|---|---|---|")
    total = statistics.median(taken["total"])
    for stage in (*STAGES, "rest", "total"):
        if stage in taken:
            print(f"| {stage} | {spread(taken[stage])} | {statistics.median(taken[stage]) / total:.0%} |")
        if stage == "denoise":
            for step in ("first step", "every other step"):
                print(f"| of it {step} | {spread(taken[step])} | |")


if __name__ == "__main__":
    main()
