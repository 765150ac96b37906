"""Videos for workers of a Ray cluster."""

import logging

import pytest

from tests.conftest import REFS
from videogen.planning.request import Item, make_plans
from videogen.results.output_paths import OverwritePolicy


@pytest.fixture
def log_as_before():
    logger = logging.getLogger("videogen")
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers = handlers
    logger.setLevel(level)


@pytest.fixture
def make_list(tmp_path):
    """Return a function that plans videos of two steps from a picture."""
    picture = tmp_path / "robot.png"
    picture.write_bytes((REFS / "robot.png").read_bytes())

    def plans(*names):
        values = {
            "task_type": "reference_to_video",
            "model_id": "tiny",
            "ref_imgs": (str(picture),),
            "prompt": "a robot waves",
            "num_frames": 5,
            "num_inference_steps": 2,
            "device": "cpu",
            "seed": (1,),
        }
        items = [Item(values={**values, "output": str(tmp_path / name)}) for name in names]
        return make_plans(items, OverwritePolicy(), tmp_path)

    return plans
