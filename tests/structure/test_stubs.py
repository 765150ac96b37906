"""What editors and type checkers see of the API is what the program takes."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.structure.write_stubs import STUBS, made

SCRIPT = """
import videogen
from videogen.pipelines.text_to_video import TextToVideoPipeline

pipe = videogen.load("reference_to_video", model="tiny")
reveal_type(pipe)
reveal_type(pipe("a robot", num_frames=5))
pipe("a robot", num_frame=5)
pipe("a robot", height="32")
reveal_type(videogen.load("text_to_video"))
videogen.load("text_to_video")(["a", "b"], negative_prompt=["c", "d"], ref_imgs=[])
def of_any_task(task: str) -> None:
    reveal_type(videogen.load(task))
    videogen.load(task)("a", num_frame=5)
reveal_type(TextToVideoPipeline.from_pretrained("tiny"))
reveal_type(videogen.generate("text_to_video", "a swan", model="tiny", seed=[7]))
videogen.generate("text_to_video", "a swan", seeed=7)
videogen.plan("text_to_video", "a swan", num_frames="five")
""".lstrip()
SEEN = """
5: note: Revealed type is "videogen.pipelines.reference_to_video.ReferenceToVideoPipeline"
6: note: Revealed type is "videogen.pipelines.pixels.VideoOutput"
7: error: Unexpected keyword argument "num_frame"; did you mean "num_frames"?  [call-arg]
8: error: Argument "height" has incompatible type "str"; expected "int | None"  [arg-type]
9: note: Revealed type is "videogen.pipelines.text_to_video.TextToVideoPipeline | \
videogen.pipelines.wan22_a14b.Wan22A14BPipeline | videogen.pipelines.wan22_5b.Wan22TI2V5BPipeline"
10: error: Unexpected keyword argument "ref_imgs"  [call-arg]
12: note: Revealed type is "videogen.pipelines.base.VideoPipeline"
14: note: Revealed type is "videogen.pipelines.text_to_video.TextToVideoPipeline"
15: note: Revealed type is "videogen.results.result.Result"
16: error: Unexpected keyword argument "seeed" for "generate"; did you mean "seed"?  [call-arg]
17: error: Argument "num_frames" to "plan" has incompatible type "str"; expected "int | None"  [arg-type]
""".strip()
CONFIG = """
[mypy]
ignore_missing_imports = True
[mypy-accelerate.*,diffusers.*,peft.*,torchao.*,transformers.*,triton.*]
follow_imports = skip
"""


@pytest.mark.parametrize("path", STUBS)
def test_stubs_are_made_from_the_rows(path):
    assert (ROOT / path).read_text() == made(path), "run python -m tests.structure.write_stubs"


@pytest.mark.slow
def test_a_type_checker_knows_tasks_calls_and_options(tmp_path):
    (tmp_path / "user.py").write_text(SCRIPT)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "user.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.removeprefix("user.py:") for line in done.stdout.splitlines() if " defined in " not in line]
    assert lines[:-1] == SEEN.splitlines()  # the last one counts the errors
