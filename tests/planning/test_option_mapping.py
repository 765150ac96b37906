"""Option values from mappings: files of options, lines of job lists, and keywords of Python calls."""

import pytest

from videogen.errors import InputError
from videogen.planning.option_mapping import from_mapping, named


def test_values_are_checked_and_named_as_their_options():
    content = {"--guidance-scale": 5, "frame_num": 17, "seed": [1, 2], "prompt": "a swan"}
    values = from_mapping(content, "job 3", one_video=True)
    assert values == {"guidance_scale": 5.0, "num_frames": 17, "seed": (1, 2), "prompt": "a swan"}


def test_a_seed_of_minus_one_is_drawn_as_published():
    assert from_mapping({"base_seed": -1}, "a.yaml", one_video=True) == {"seed": ()}
    with pytest.raises(InputError, match=r"a\.yaml: --seed -1: must lie between 0"):
        from_mapping({"seed": -1}, "a.yaml", one_video=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"promt": "x"}, r"a\.yaml promt: no such option; nearest prompt"),
        ({"config": "b.yaml"}, r"a\.yaml config: no such option"),  # must be known before files are read
        ({"jobs": "b.jsonl"}, r"a\.yaml jobs: is about the whole run; give --jobs on the command line"),
        ({"seed": [1, [2]]}, r"a\.yaml seed: holds lists inside a list; give one value, or a plain list"),
        ({"num_frames": "x"}, r"a\.yaml: --num_frames x: "),
    ],
)
def test_what_cannot_be_used_is_named_with_its_source(content, message):
    with pytest.raises(InputError, match=message):
        from_mapping(content, "a.yaml", one_video=True)


def test_a_file_about_the_run_may_name_options_of_the_run():
    assert from_mapping({"resume": True}, "a.yaml", one_video=False) == {"resume": True}
    assert named("video_path", "a.yaml").name == "input_video"
