"""Inputs that are removed or replaced while the program runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from videogen.distributed import get_ranks
from videogen.errors import InputError, is_out_of_memory
from videogen.media.stored_frames import content_digest
from videogen.planning.plan import Outline
from videogen.tasks.options import OPTIONS


@contextmanager
def refuse_changed_inputs(plan: Outline) -> Iterator[None]:
    """Look at the inputs before they are used, and again if something fails, which then is the reason.

    Raises:
        InputError: one is no longer the file that was planned with.
    """
    if not get_ranks().is_main_process:  # it alone reads them
        yield
        return
    _check(plan)
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            _check(plan)
        raise


def _check(plan: Outline) -> None:
    for name, sources in plan.inputs.items():
        for source in sources:
            what = None
            try:
                if content_digest(source.path) != source.sha256:
                    what = "was replaced during the run"
            except OSError as error:
                what = f"cannot be read any more ({error.strerror})"
            if what is not None:
                raise InputError(OPTIONS[name].flag, source.name, what, "start again with the file in place")
