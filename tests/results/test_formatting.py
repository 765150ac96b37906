"""Numbers as people read them."""

import pytest

from videogen.results.formatting import format_bytes, format_seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.52, "0.52 s"), (61, "61 s"), (90, "2 min"), (3599, "60 min"), (9000, "2.5 h")]
)
def test_times(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(5e5, "0.5 MB"), (9.9e8, "990.0 MB"), (1.26e11, "126.0 GB")])
def test_amounts(size, text):
    assert format_bytes(size) == text
