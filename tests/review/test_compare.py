"""--diff: figures frame by frame, what is compared where sizes or lengths differ, both side by side."""

import numpy as np
import pytest

from tests.review.results import frames_of, write_result
from videogen.errors import InputError
from videogen.media.contact_sheet import BACKGROUND, GAP, LINE, headings
from videogen.review.compare import compare, option_lines, titles
from videogen.review.found import find
from videogen.review.quality import psnr, ssim


@pytest.fixture
def pair(tmp_path):
    """Return a function that makes two results of frames, and finds them."""

    def make(one, other, **asked):
        files = [write_result(tmp_path, "a.npy", frames=one, request={"seed": 1})]
        files += [write_result(tmp_path, "b.npy", frames=other, request={"seed": 2, **asked})]
        return [find("--diff", str(file)) for file in files]

    return make


def test_frame_by_frame(pair, tmp_path):
    one = frames_of(1)
    other = one.copy()
    other[3] = 255 - other[3]
    other[1, :8] //= 2
    likeness = compare(*pair(one, other), tmp_path / "side.npy")
    assert likeness.psnr == [np.inf, psnr(one[1], other[1]), np.inf, psnr(one[3], other[3]), np.inf]
    assert likeness.ssim[3] == ssim(one[3], other[3])
    summary = likeness.to_json()
    assert (summary["frames"], summary["equal_frames"], summary["worst_frame"]) == (5, 3, 3)
    assert summary["psnr"] == {"min": likeness.psnr[3], "mean": (likeness.psnr[1] + likeness.psnr[3]) / 2}
    assert likeness.lines()[0].endswith("of the others; 3 of 5 frames are equal")
    side = np.load(tmp_path / "side.npy")
    np.testing.assert_array_equal(side[:, LINE:], np.concatenate([one, other], axis=2))


def test_equal_videos(pair):
    likeness = compare(*pair(frames_of(1), frames_of(1)), None)
    assert likeness.lines() == ["frames     all 5 are equal"]
    assert likeness.to_json()["worst_frame"] is likeness.to_json()["psnr"] is None


def test_another_length_and_size(pair, tmp_path):
    one, other = frames_of(1, 5), frames_of(1, 3, (128, 96))
    likeness = compare(*pair(one, other), tmp_path / "side.npy")
    assert len(likeness.psnr) == len(likeness.ssim) == 3
    assert likeness.notes == [
        "they have 5 and 3 frames; the first 3 are compared",
        "they are 64x48 and 128x96 pixels; the second is scaled to the first",
    ]
    side = np.load(tmp_path / "side.npy")
    assert side.shape == (5, LINE + 48, 128, 3)
    side = side[:, LINE:]
    np.testing.assert_array_equal(side[:, :, :64], one)
    np.testing.assert_array_equal(side[3, :, 64:], side[2, :, 64:])


def test_titles_are_above_each_side(pair, tmp_path):
    size = (320, 48)
    found = pair(frames_of(1, size=size), frames_of(1, size=size), prompt="a cat " * 9, offload=True)
    named = [
        "a: seed 1, prompt a robot waves, offload not set",
        "b: seed 2, prompt a cat a cat a cat a cat…, offload on",
    ]
    assert titles(*found) == named
    compare(*found, tmp_path / "side.npy")
    above = np.load(tmp_path / "side.npy")[:, :LINE]
    assert (above == above[0]).all()
    left, right = (above[0, :, :320], above[0, :, 320:])
    for side in (left, right):
        assert (side.max(axis=(0, 2)) > 128).any()  # there are letters, with room around them
        assert (side[:, :GAP] == BACKGROUND).all() and (side[:, -GAP:] == BACKGROUND).all()
    assert (left != right).any()
    assert titles(found[0], found[0]) == ["a", "a"]


@pytest.mark.parametrize(("width", "height"), [(64, 20), (832, 22), (1280, 36)])
def test_headings_grow_with_the_picture(width, height):
    above = headings(["a " * 400, "猫"], width)
    assert above.shape == (height, 2 * width, 3)
    assert (above[:, width - GAP : width + GAP] == BACKGROUND).all()  # cut before the other's


def test_a_video_without_room_for_a_window(pair):
    one, other = pair(frames_of(1, size=(16, 4)), frames_of(1))
    with pytest.raises(InputError, match="is 16x4 pixels, and windows of 7x7 are compared"):
        compare(one, other, None)


def test_options(pair):
    one, other = pair(frames_of(1), frames_of(1), offload=True)
    assert option_lines(one, other) == ["option     --seed 1 | 2", "option     --offload not set | on"]
    assert option_lines(one, one) == ["options    all are equal"]
