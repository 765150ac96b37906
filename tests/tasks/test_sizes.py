"""Sizes and lengths at their limits, and what is said beyond them."""

import re

import pytest

from videogen.errors import InputError
from videogen.tasks.geometry import Grid
from videogen.tasks.options import Size
from videogen.tasks.sizes import choose_num_frames, choose_size, not_4k1

TABLES = {
    "480P": [(0.58, 480, 832), (1.73, 832, 480), (1.0, 630, 630)],
    "720P": [(0.56, 720, 1280), (1.78, 1280, 720)],
}
LARGEST = 16384


def size(source=(100, 100), tables=TABLES, **values):
    return choose_size(Size(**({"resolution": "480P"} | values)), tables, source)


def complaint(ask, *args, **values):
    with pytest.raises(InputError) as caught:
        ask(*args, **values)
    return str(caught.value)


def frames(fps=24, context=0, after_image=False, **values):
    return choose_num_frames(Size(**values), fps, context, after_image=after_image)


def test_exact_sizes():
    assert size(height=LARGEST, width=LARGEST) == (LARGEST, LARGEST)
    assert size(height=16, width=LARGEST) == (16, LARGEST)
    for flag, sides in (("--height", (LARGEST + 16, 16)), ("--width", (16, LARGEST + 16))):
        said = complaint(size, height=sides[0], width=sides[1])
        assert said == f"{flag} {LARGEST + 16}: at most {LARGEST}; nearest {LARGEST}"


@pytest.mark.parametrize(("given", "other"), [("height", "width"), ("width", "height")])
def test_half_a_size(given, other):
    assert complaint(size, **{given: 32}) == f"--{given} 32: needs its partner; give --{other} as well"


def test_two_sizes():
    said = complaint(size, height=32, width=48, size=(832, 480))
    assert said == "--size 832*480: not together with --height and --width; give one of the two"


def test_classes_follow_the_shape_of_the_source():
    assert size((1920, 1080)) == (480, 832)
    assert size((1080, 1920)) == (832, 480)
    assert size((90, 100)) == (624, 624)  # 630 rounded down to a multiple of 16
    assert size((1920, 1080), resolution="720P") == (720, 1280)


@pytest.mark.parametrize(
    ("asked", "near"),
    [("360P", "480P"), ("590P", "480P"), ("610P", "720P"), ("4K", "720P"), ("FULL", "480P")],
)
def test_classes_that_a_model_lacks(asked, near):
    assert (
        complaint(size, resolution=asked)
        == f"--resolution {asked}: this model has 480P, 720P; nearest {near}"
    )


def test_sizes_of_the_tables():
    for height, width in ((480, 832), (832, 480), (624, 624), (720, 1280), (1280, 720)):
        assert size(size=(width, height)) == (height, width)
    for asked, near in {(800, 470): "832*480", (470, 800): "480*832", (1300, 640): "1280*720"}.items():
        said = complaint(size, size=asked)
        listed = "480*832, 1280*720, 720*1280"
        assert said.startswith(
            f"--size {asked[0]}*{asked[1]}: must be one of 832*480, 624*624, 1280*720, 480*832"
        )
        assert listed not in said
        assert said.endswith(f"(W*H); nearest {near}; --height and --width take any multiple of 16")


def test_many_sizes_are_counted_not_listed():
    eight = {"480P": [(1.0, 16 * n, 16 * n) for n in range(1, 9)]}
    nine = {"480P": [(1.0, 16 * n, 16 * n) for n in range(1, 10)]}
    assert "must be one of 16*16, 32*32" in complaint(size, tables=eight, size=(17, 17))
    assert "must be one of the model's 9 sizes (W*H)" in complaint(size, tables=nine, size=(17, 17))


def test_the_unit_of_the_grid_is_told():
    grid = Grid(stride=16)
    with pytest.raises(InputError, match="any multiple of 32"):
        choose_size(Size(resolution="480P", size=(17, 17)), TABLES, (1, 1), grid)
    for flag, sides in (("--height", (16, 64)), ("--width", (64, 16))):
        with pytest.raises(InputError, match=f"{flag} 16: must be a multiple of 32; nearest 32"):
            choose_size(Size(height=sides[0], width=sides[1]), TABLES, (1, 1), grid)
    assert choose_size(Size(height=64, width=32), TABLES, (1, 1), grid) == (64, 32)


def test_a_family_may_pick_in_its_own_way():
    def pick(table, width, height):
        return len(table), width + 2 * height

    assert choose_size(Size(resolution="720P"), TABLES, (3, 5), pick=pick) == (2, 13)


@pytest.mark.parametrize(
    ("given", "least", "near"),
    [(6, 1, "5 or 9"), (3, 1, "1 or 5"), (3, 5, "5"), (8, 5, "5 or 9"), (7, 9, "9")],
)
def test_the_nearest_lengths(given, least, near):
    assert str(not_4k1("--num_frames", given, least)) == f"--num_frames {given}: must be 4k+1; nearest {near}"
    if least == 1:
        assert str(not_4k1("--num_frames", given)).endswith(f"nearest {near}")


def test_lengths_in_frames():
    assert frames(num_frames=1) == 1
    assert frames(num_frames=5) == 5
    assert frames(num_frames=4093) == 4093  # 1023 latent frames and one
    assert complaint(frames, num_frames=4097) == "--num_frames 4097: at most 4093; nearest 4093"
    assert frames(num_frames=4077, context=4) == 4077
    assert complaint(frames, num_frames=4081, context=4) == "--num_frames 4081: at most 4077; nearest 4077"
    assert complaint(frames, num_frames=6) == "--num_frames 6: must be 4k+1; nearest 5 or 9"
    assert choose_num_frames(Size(num_frames=4093), 24) == 4093
    assert choose_num_frames(Size(num_frames=5, duration=9), 24) == 5


def test_videos_in_segments_may_be_long():
    assert frames(num_frames=1_000_001, context=None) == 1_000_001
    assert complaint(frames, num_frames=1_000_005, context=None).endswith("at most 1000001; nearest 1000001")


def test_after_an_image_there_must_be_others():
    assert frames(num_frames=5, after_image=True) == 5
    said = "--num_frames 1: is the input image alone; at least 5"
    assert complaint(frames, num_frames=1, after_image=True) == said
    assert complaint(frames, num_frames=3, after_image=True).endswith("must be 4k+1; nearest 5")
    with pytest.raises(InputError, match=re.escape(said)):
        frames(duration=0.1, after_image=True)


def test_lengths_in_seconds():
    assert frames(duration=9.12, fps=25) == 229  # the product is 227.99999999999997
    assert frames(duration=9.08, fps=25) == 225
    assert frames(duration=170.5) == 4093
    said = complaint(frames, duration=171)
    assert said == "--duration 171: at most 170.5 s at 24 fps; make several clips"
    assert complaint(frames, duration=171.5, context=4).endswith(
        "at most 169.8 s at 24 fps; make several clips"
    )
