"""Wan2.2 and HunyuanVideo in every memory mode and size: they run, and take what ``--dry_run`` says."""

import pytest

from tests.simulated.guard import has_compiler
from tests.simulated.matrix import WAN22_AND_HUNYUAN, wrong_modes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not has_compiler(), reason="needs g++ for the device guard"),
]


@pytest.mark.parametrize(
    ("task", "options"), [row[1:] for row in WAN22_AND_HUNYUAN], ids=[row[0] for row in WAN22_AND_HUNYUAN]
)
def test_memory_is_what_it_is_said_to_be(task, options):
    assert wrong_modes(task, options) == {}
