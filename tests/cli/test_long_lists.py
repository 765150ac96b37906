"""Nothing piles up in a long list: memory and file handles stay as they are after the first video."""

import ctypes
import gc
from pathlib import Path

import psutil
import pytest

from videogen.engine.queue import run
from videogen.planning.request import Item, make_plans
from videogen.results.output_paths import OverwritePolicy
from videogen.results.progress import Reporter


def used() -> tuple[int, int]:
    """Return the bytes in RAM once all that is free was given back, and the open handles."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return psutil.Process().memory_info().rss, len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")
def test_the_twentieth_video_finds_what_the_second_found(tmp_path):
    values = {"task_type": "text_to_video", "model_id": "tiny", "prompt": "a", "seed": tuple(range(1, 22))}
    values |= {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 2, "device": "cpu"}
    item = Item(values={**values, "output_dir": str(tmp_path)})
    plans = make_plans([item], OverwritePolicy(), tmp_path)
    found = {outcome.plan.index: used() for outcome in run(plans, reporter=Reporter())}
    (memory, handles), (later_memory, later_handles) = found[1], found[19]
    assert later_memory < memory * 1.01
    assert later_handles <= handles
