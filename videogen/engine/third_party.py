"""What other libraries say of their own accord that is no news to a user: what is left out, and why.

Only what is named here is left out. Anything else that a library says through Python's warnings or its log is
passed on as a warning of ours.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

# Libraries whose advice is about their own versions and platforms; what a user must know of a model, a file
# or an option is checked and said by this project. Errors pass.
ADVISORY_LOGGERS = {
    "torchao": "extensions in C++ that are not built for this torch ('Failed to load ...'); not used here",
    "torch.utils._pytree": "torchao registers its enums in a way that torch will not want in future",
    "torch.distributed": "which ports and threads it takes",
    "transformers": "processors that need torchvision, deprecated names; weights are checked strictly here",
    "diffusers": "optional packages that are not there, arguments that will be renamed",
    "peft": "optional packages that are not there",
    "accelerate": "optional packages that are not there",
}
# Read by libraries when they are imported, where they would set the level of their loggers themselves.
VARIABLES = {"DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error", "TORCH_LOGS": "-all"}


class Ignored(NamedTuple):
    """A Python warning that is left out: its kind, the modules that it comes from, how its text begins."""

    category: type[Warning]
    module: str
    message: str = ""


IGNORED = (
    # Names and arguments that will change, and other ways to be faster, as in the logs of these libraries.
    Ignored(FutureWarning, r"(torch|torchao|diffusers|transformers|peft|accelerate|huggingface_hub)\b"),
    Ignored(UserWarning, r"(torch|torchao|diffusers|transformers|peft|accelerate)\b"),
)


def quieten(*, verbose: bool) -> None:
    """Leave out what is listed here, unless all is wanted; to be called before libraries are imported."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # ours say what is downloaded for which video
    if verbose:
        return
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    _set_filters()


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Leave out what libraries say while they are imported; afterwards their logs are as they were."""
    loggers = [logging.getLogger(name) for name in ADVISORY_LOGGERS]
    levels = [logger.level for logger in loggers]
    unset = VARIABLES.keys() - os.environ.keys()
    with warnings.catch_warnings():
        os.environ.update({name: VARIABLES[name] for name in unset})
        _set_filters()
        try:
            yield
        finally:
            for name in unset:
                os.environ.pop(name, None)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _set_filters() -> None:
    for name in ADVISORY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for category, module, message in IGNORED:
        warnings.filterwarnings("ignore", message, category, module)
