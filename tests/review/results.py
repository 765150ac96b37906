"""Results as runs leave them, without the runs."""

import json
import time

import numpy as np

from videogen.media.video_writer import open_writer
from videogen.results import sidecar
from videogen.results.output_paths import OutputPaths, kind_of

FRAMES = 5


def frames_of(seed, frames=FRAMES, size=(64, 48)):
    """Return a smooth picture that moves."""
    width, height = size
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    moved = [across * (1 + seed % 3) + down + 4 * index + 40 * seed for index in range(frames)]
    return np.stack([np.stack([each, 2 * each, 255 - each], axis=-1) for each in moved]).astype(np.uint8)


def write_result(folder, name, *, frames=None, request=None, record=None):
    """Write a video with its record; returns its path. ``name`` without a suffix is a folder of PNGs."""
    path, said = folder / name, request or {}
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = frames_of(said.get("seed", 1)) if frames is None else frames
    count, height, width = pictures.shape[:3]
    known = {
        "schema": sidecar.SCHEMA,
        "videogen": "0.1.0",
        "request": {
            **{"task_type": "text_to_video", "model_id": "tiny:skyreels-v2-t2v", "seed": 1},
            **{"prompt": "a robot waves", "shift": 8.0, "num_inference_steps": 30},
            **said,
        },
        "plan_hash": "0123456789abcdef",
        "width": width,
        "height": height,
        "num_frames": count,
        "fps": 16,
        "seconds": {"denoise": 10.0, "total": 12.5},
        "step_seconds": [1.0, 0.5, 0.5],
        "peak_memory": {"ram": 1_500_000_000},
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"torch": "2.13.0"},
        "output": path.name,
        **(record or {}),
    }
    outputs = OutputPaths(path=path, kind=kind_of(str(path)))
    with open_writer(
        path, outputs.kind, size=(width, height), fps=16, num_frames=count, comment=sidecar.comment(known)
    ) as writer:
        writer.write(pictures)
        writer.finish()
        writer.publish()
    outputs.sidecar.write_text(json.dumps(known))
    return path
