"""Types for editors and type checkers: ``python -m tests.structure.write_stubs`` writes them anew.

Calls of pipelines, ``videogen.load`` by task and the options of ``videogen.generate`` are made from the rows
of the options and of the tasks when the program runs. What reads the source without running it sees them in
two stub files that are made from the same; a test says when they are out of date.
"""

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from types import NoneType
from typing import get_args

from tests.conftest import ROOT
from videogen.engine.load import load
from videogen.pipelines.pixels import VideoOutput
from videogen.pipelines.signature import KINDS
from videogen.tasks import option_types
from videogen.tasks.option import Option
from videogen.tasks.options import FLAG_NAMES, OPTIONS, Options
from videogen.tasks.table import INPUTS, ROWS, TASKS, VARIANTS, users_of

HEAD = '"""{about}; written by ``python -m tests.structure.write_stubs``."""\n\n'
SIGNED = ("task_type", "model_id", "prompt")  # arguments of generate itself
FILE = "str | Path"
# What Python callers give for an option that is read by a parser, or has a type.
GIVEN: dict[object, str] = {
    **dict.fromkeys((option_types.path, option_types.file_path), FILE),
    option_types.prompts: f"{FILE} | Sequence[str]",
    option_types.device: "str | torch.device",
    option_types.seeds: "int | str | Sequence[int]",
    option_types.size: "str | tuple[int, int]",
    option_types.rate: "float | str",
}
PIPELINES = dict.fromkeys(tuple(row.pipeline.split(":")) for row in ROWS)  # (module, class)


def calls() -> Iterator[str]:
    """Yield the stub of the pipelines' calls: a function with each one's signature and documentation."""
    yield HEAD.format(about="Calls of the pipelines as functions")
    yield (
        "import collections.abc\nimport pathlib\nimport typing\n\nimport numpy\nimport PIL.Image\n"
        "import torch\nimport videogen.pipelines.pixels\n"
    )
    yield "\ndef any_pipeline(self: object, *given: typing.Any, **arguments: typing.Any) -> typing.Any: ...\n"
    for module, kind in PIPELINES:
        name, call = module.rpartition(".")[2], getattr(import_module(module), kind).__call__
        signature = inspect.signature(call).replace(return_annotation=VideoOutput)
        me, *others = signature.parameters.values()
        signature = signature.replace(parameters=[me.replace(annotation=object), *others])
        text = "\n".join(f"    {line}".rstrip() for line in call.__doc__.splitlines()).strip()
        yield f'\ndef {name}{signature}:\n    """{text}\n    """\n'


def options() -> Iterator[str]:
    """Yield the stub of what takes the place of ``videogen.load`` and ``**options``."""
    yield HEAD.format(about="``videogen.load`` by task, and options of ``videogen.generate``")
    yield (
        "from collections.abc import Mapping, Sequence\nfrom pathlib import Path\n"
        "from typing import Any, Literal, TypedDict, overload\n\n"
        "import numpy\nimport PIL.Image\nimport torch\n\n"
        "from videogen.pipelines.base import VideoPipeline\n"
    )
    yield from sorted(f"from {module} import {kind}\n" for module, kind in PIPELINES)
    tasks = ", ".join(f'"{name}"' for name in TASKS)
    yield f"\nTaskName = Literal[{tasks}]\n\n\nclass VideoOptions(TypedDict, total=False):\n"
    yield '    """Options of a video; which ones a task uses says the command line\'s ``--help``."""\n\n'
    for spelling, name in FLAG_NAMES.items():
        option = OPTIONS[name]
        if name not in SIGNED and not option.about_run and users_of(name):
            about = option.help if spelling == name else f"{name}, as published commands call it"
            yield f'    {spelling}: {given_for(option)} | None\n    """{about}"""\n'
    signature = inspect.signature(load)
    for task, rows in [*VARIANTS.items(), (None, ())]:
        kind = f'Literal["{task}"]' if task else "str"
        classes = dict.fromkeys(row.pipeline.partition(":")[2] for row in rows)
        words = str(signature).replace("(task: str", f"(task: {kind}").rpartition(" -> ")[0]
        yield f"\n@overload\ndef load{short(words)} -> {' | '.join(classes) or 'VideoPipeline'}: ...\n"


def short(annotation: str) -> str:
    """Return an annotation without the modules of what the stub imports by name."""
    return re.sub(r"\b(collections\.abc|typing|pathlib)\.", "", annotation)


def given_for(option: Option) -> str:
    """Return the type of what a Python caller may give for an option, but for None."""
    if (files := INPUTS.get(option.name)) is not None:
        kind = short(inspect.formatannotation(KINDS[files.kind]))
        one = " | ".join(dict.fromkeys([*FILE.split(" | "), *kind.split(" | ")]))
        return f"{one} | Sequence[{one}]" if files.most > 1 else one
    if option.parse in GIVEN:
        return GIVEN[option.parse] + " | bool" * (option.bare is not None)
    if "bfloat16" in getattr(option.parse, "choices", ()):
        return "str | torch.dtype"
    declared = next(each.type for each in Options.__dataclass_fields__.values() if each.name == option.name)
    kinds = [kind for kind in get_args(declared) or [declared] if kind is not NoneType]
    if option.repeat:
        return f"{FILE} | Sequence[{FILE}]"
    text = " | ".join(kind.__name__ if kind in (bool, int, float, str) else str(kind) for kind in kinds)
    return text if kinds[0] in (bool, int, float, str) else FILE


STUBS = {"videogen/pipelines/typed.pyi": calls, "videogen/engine/typed.pyi": options}


def made(path: str) -> str:
    """Return what a stub file must hold."""
    text = "".join(STUBS[path]()).replace("pathlib._local.", "pathlib.").replace("torch._C.", "torch.")
    ruff = [sys.executable, "-m", "ruff", "format", "--stdin-filename", path, "-"]
    return subprocess.run(ruff, input=text, text=True, capture_output=True, check=True, cwd=ROOT).stdout


if __name__ == "__main__":
    for path in STUBS:
        (ROOT / path).write_text(made(path), encoding="utf-8")
