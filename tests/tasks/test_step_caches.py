"""Step caches by name, and the ratios that MagCache measures."""

import pytest

from videogen.tasks.option_types import Reject
from videogen.tasks.step_caches import read_cache, read_ratios, step_cache, write_ratios

FLAT = {"steps": 6, "transformers": [{"cond": [1.0] * 6, "uncond": [1.0] * 6}]}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("first_block", ("first_block", 0.05)),
        ("first-block:.2", ("first_block", 0.2)),
        ("magcache:0.12", ("magcache", 0.12)),
        ("magcache:calibrate", ("magcache", None)),
        ("taylorseer", ("taylorseer", 5)),
        ("taylorseer_lite:2", ("taylorseer_lite", 2)),
    ],
)
def test_a_cache_by_name(given, read):
    assert read_cache(step_cache(given)) == read
    assert step_cache(step_cache(given)) == step_cache(given)  # what is recorded is read back


@pytest.mark.parametrize(
    ("given", "message", "fix"),
    [
        ("fbcache", "must be NAME.*first_block, magcache, taylorseer", "nearest first_block"),
        ("first_blok:1", "must be NAME", "nearest first_block"),
        ("first_block:", "threshold of first_block must be a number above 0 to 1", "for example"),
        ("first_block:2", "above 0 to 1", "nearest 1"),
        ("first_block:calibrate", "threshold of first_block must be", "for example"),
        ("magcache:0", "above 0 to 1, or 'calibrate'", "for example"),
        ("taylorseer:1", "interval of taylorseer must be a whole number from 2 to 100", "nearest 2"),
        ("taylorseer:2.5", "whole number", "nearest 2"),
        ("", "must be NAME", "for example first_block"),
    ],
)
def test_a_name_or_threshold_that_does_not_exist(given, message, fix):
    with pytest.raises(Reject, match=message) as refused:
        step_cache(given)
    assert fix in refused.value.fix


def test_ratios_are_kept_whole_or_not_at_all(tmp_path):
    file = tmp_path / "new" / "r.json"
    assert read_ratios(file) is None
    write_ratios(file, FLAT, {"num_inference_steps": 6})
    assert read_ratios(file) == FLAT
    assert [path.name for path in file.parent.iterdir()] == ["r.json"]
    for broken in ("{", "[]", '{"ratios": 3}', '{"ratios": {}}'):
        file.write_text(broken)
        assert read_ratios(file) is None
