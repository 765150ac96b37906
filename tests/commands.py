"""Commands as words, and what a folder holds."""

from pathlib import Path

from tests.conftest import GOLDEN, REFS

R2V = GOLDEN / "skyreels_v3/checkpoint-r2v"
# The shortest text_to_video, without a prompt.
T2V = (
    *("--task_type", "text_to_video", "--model_id", "tiny", "--height", 32, "--width", 48),
    *("--num_frames", 5, "--num_inference_steps", 1, "--device", "cpu"),
)
ROBOT = str(REFS / "robot.png")

BASE = {
    "task_type": "reference_to_video",
    "model_id": "tiny",
    "prompt": "a robot waves",
    "ref_imgs": ROBOT,
    "output": "out.mp4",
}


def command(changes: dict[str, object]) -> list[str]:
    """Arguments of BASE with changes; None leaves a flag out, True is a switch."""
    words: list[str] = []
    for name, value in {**BASE, **changes}.items():
        if value is not None:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
