"""Numbers as people read them."""

import pytest

from videogen.results.formatting import format_bytes, format_measured, format_seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.52, "0.52 s"), (61, "61 s"), (90, "2 min"), (3599, "60 min"), (9000, "2.5 h")]
)
def test_times(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.52, "0.52 s"), (59.4, "59 s"), (92, "1 min 32 s"), (3599.4, "59 min 59 s"), (9000, "2.5 h")],
)
def test_measured_times_have_two_parts(seconds, text):
    assert format_measured(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(5e5, "0.5 MB"), (9.9e8, "990.0 MB"), (1.26e11, "126.0 GB")])
def test_amounts(size, text):
    assert format_bytes(size) == text
