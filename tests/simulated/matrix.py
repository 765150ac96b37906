"""The rows of the slow matrix: every family at every published size, and options that change what is held.

They are in two test modules, so that two processes share them.
"""

from typing import Any

from tests.simulated.jobs import MODES, ROOM, run_with_little_room
from tests.simulated.models import FAMILIES, V2, WAN

LONG = {"num_frames": 121, "base_num_frames": 121}
SMALLER = tuple(
    (f"{task} {size}{more}", task, {"resolution": size, **options})
    for task, sizes, more, options in (
        ("reference_to_video", ("480P", "540P"), "", {}),
        ("single_shot_extension", ("480P", "540P"), "", {}),
        ("shot_switching_extension", ("480P", "540P"), "", {}),
        ("talking_avatar", ("480P", "540P"), "", {}),
        ("text_to_video", ("480P",), " A14B", {"model_id": f"{WAN}-T2V-A14B"}),
        ("image_to_video", ("480P",), " A14B", {"model_id": f"{WAN}-I2V-A14B"}),
        ("hunyuan_image_to_video", ("360P", "540P"), "", {}),
        ("image_to_video", ("720P",), " 14B", {"model_id": f"{V2}-I2V-14B-720P", "num_frames": 121}),
        ("diffusion_forcing", ("720P",), " 14B", {"model_id": f"{V2}-DF-14B-720P", **LONG}),
    )
    for size in sizes
)
OTHERS = (
    ("Wan2.2 5B from an image", "image_to_video", {"model_id": f"{WAN}-TI2V-5B"}),
    ("v2v-14B", "v2v-14B", {}),
    ("v2v-5B", "v2v-5B", {}),
    (
        "HunyuanVideo-I2V, image beside the noise",
        "hunyuan_image_to_video",
        {"model_id": "hunyuanvideo-community/HunyuanVideo-I2V-33ch"},
    ),
    (
        "reference_to_video, three branches",
        "reference_to_video",
        {"guidance_scale": 5, "guidance_scale_img": 3},
    ),
    ("reference_to_video, decoded in bfloat16", "reference_to_video", {"vae_dtype": "bfloat16"}),
    ("reference_to_video, decoded in tiles", "reference_to_video", {"vae_tiling": "on"}),
    ("reference_to_video, first block cache", "reference_to_video", {"cache": "first_block:0.1"}),
    ("reference_to_video in float32", "reference_to_video", {"dtype": "float32", "resolution": "480P"}),
)
SKYREELS, WAN22_AND_HUNYUAN = [], []
for _row in (*FAMILIES, *SMALLER, *OTHERS):
    other = any(word in _row[0].lower() for word in ("wan2.2", "a14b", "v2v", "hunyuan"))
    (WAN22_AND_HUNYUAN if other else SKYREELS).append(_row)
FRAMES = 9


def wrong_modes(task: str, options: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong by memory mode: a job fails, or takes other than ``--dry_run`` says."""
    wrong = {}
    for mode, chosen in MODES.items():
        settings = {"num_inference_steps": 2, **options, **chosen}
        try:
            job, fitted = run_with_little_room(task, frames=FRAMES, **settings)
        except RuntimeError as error:  # the other modes are judged all the same
            wrong[mode] = f"{type(error).__name__}: {error}"
            continue
        if not (fitted and job.peak <= job.estimate <= job.peak * ROOM):
            wrong[mode] = f"peak {job.peak / 1e9:.2f} GB, --dry_run says {job.estimate / 1e9:.2f} GB"
    return wrong
