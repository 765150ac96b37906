"""What other libraries say is left out where it is listed, and nothing else."""

import logging
import os
import warnings

import pytest

from videogen.engine.third_party import ADVISORY_LOGGERS, VARIABLES, quiet_imports

LISTED = next(iter(ADVISORY_LOGGERS))


@pytest.fixture(autouse=True)
def _as_at_the_start(monkeypatch):
    """Undo what an earlier run of the command line in this process has left out."""
    monkeypatch.setattr(logging.getLogger(LISTED), "level", logging.WARNING)
    logging.getLogger(LISTED).manager._clear_cache()


def advise():
    """Say what a library says: warnings of three modules, and its log."""
    for category, module in (
        (FutureWarning, "diffusers.utils"),
        (UserWarning, "torch"),
        (UserWarning, "mine"),
    ):
        warnings.warn_explicit(f"said by {module}", category, f"{module}.py", 1, module=module)
    logging.getLogger(LISTED).warning("an extension is missing")
    logging.getLogger(LISTED).error("it is broken")


@pytest.mark.filterwarnings("always")
def test_advice_is_left_out_and_the_rest_is_passed_on(caplog):
    before = logging.getLogger(LISTED).level
    with pytest.warns(UserWarning, match="said by mine") as said, quiet_imports():
        advise()
    assert [str(warning.message) for warning in said] == ["said by mine"]
    assert [record.message for record in caplog.records] == ["it is broken"]
    assert logging.getLogger(LISTED).level == before


@pytest.mark.filterwarnings("always")
def test_afterwards_libraries_speak_as_before(caplog):
    with quiet_imports():
        pass
    with pytest.warns() as said:
        advise()
    assert len(said) == 3
    assert [record.message for record in caplog.records] == ["an extension is missing", "it is broken"]


def test_libraries_that_set_their_own_level_are_told_it(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DIFFUSERS_VERBOSITY", "info")  # asked for
    before = dict(os.environ)
    with quiet_imports():
        assert {name: os.environ[name] for name in VARIABLES} == {**VARIABLES, "DIFFUSERS_VERBOSITY": "info"}
    assert dict(os.environ) == before
