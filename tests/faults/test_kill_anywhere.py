"""Every task with segments, chains and jobs killed anywhere; then --resume.

``pytest -m slow tests/faults --rounds 100`` kills them more often.
"""

import random
import shutil
import signal
import time

import pytest

from tests.faults.commands import Command, check_equal
from tests.faults.harness import DIED, Steps, kill_sometime, run

pytestmark = pytest.mark.slow
SEGMENTED = ("diffusion_forcing", "single_shot_extension", "talking_avatar")


@pytest.mark.parametrize("command", [*SEGMENTED, "chain", "jobs"], indirect=True)
def test_killed_anywhere(command, tmp_path, said, request):
    """Killed at a random time, at a random step, and when it goes on again, until it ends."""
    log, seed = tmp_path / "log", random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    print(f"seed {seed}")  # noqa: T201 - shown if it fails
    assert command()() == 0  # with all libraries loaded, and the tiny model made
    shutil.rmtree(command.folder)
    started = time.monotonic()
    assert run(command(), said, Steps(command.folder, log=log)).code == 0
    seconds, steps = time.monotonic() - started, len(log.read_text().splitlines())
    for number in range(request.config.getoption("rounds")):
        broken = Command(command.program, command.words, tmp_path / str(number))
        for more in ((), ("--resume",), ("--resume",)):
            if chance.random() < 0.5:
                ended = kill_sometime(broken(*more), said, seconds, chance)
            else:
                ended = run(broken(*more), said, Steps(broken.folder, at=chance.randrange(steps)))
            assert ended.code in (0, DIED, -signal.SIGKILL), ended.err
        ended = run(broken("--resume"), said)
        assert ended.code == 0, ended.err
        check_equal(broken.folder, command.folder)
