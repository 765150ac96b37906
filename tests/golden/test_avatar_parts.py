"""What a talking avatar is put together from, against the published numbers: clips, the portrait, sizes."""

import numpy as np
import pytest
from PIL import Image

from videogen import config
from videogen.clips import plan_clips
from videogen.geometry import bucket_size
from videogen.media.image import cover_bilinear


def test_clips(golden):
    for row in golden("talking_avatar/clip_plan").about["rows"]:
        plan = plan_clips(
            row["audio_frames"], row["frame_num"], motion=row["motion_frame"], drop=row["drop_frame"]
        )
        if row["single_clip"]:
            assert not plan.clips
            continue
        assert plan.rows == row["padded_frames"]
        assert [clip.keyframe for clip in plan.clips] == row["keyframes"]
        assert [clip.start for clip in plan.clips] == row["audio_starts"]
        assert sum(clip.stop - clip.first for clip in plan.clips) == row["total"]


@pytest.mark.parametrize("rows", range(81, 300, 7))
def test_every_frame_of_a_sound_is_shown_once(rows):
    shown = []
    for clip in plan_clips(rows, 81, motion=5, drop=12).clips:
        shown += range(clip.start + clip.first, clip.start + clip.stop)
    assert shown == list(range(rows))


def test_portraits(golden):
    case = golden("talking_avatar/resize_centercrop")
    pictures = [row for row in case.about["args"] if row["kind"] == "pil"]
    assert len(pictures) == 3
    for row in pictures:
        height, width = row["target"]
        made = np.asarray(
            cover_bilinear(Image.open(case.folder / f"img{row['i']}.png").convert("RGB"), width, height)
        )
        (expected,) = (
            tensor
            for name, tensor in case.outputs.items()
            if name.startswith(str(row["i"])) or name.endswith(str(row["i"]))
        )
        assert np.array_equal(made, expected[0, :, 0].permute(1, 2, 0).numpy())


def test_sizes(golden):
    tables = config.read("sizes")["talking_avatar"]
    for pair in golden("talking_avatar/resolution_buckets").about["pairs"]:
        size = bucket_size(tables[pair["resolution"]], pair["src_w"], pair["src_h"])
        assert size == (pair["target_h"], pair["target_w"]), pair
