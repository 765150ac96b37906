"""Tiny models of a user's own: --model_id tiny:FILE.yaml, a file like those of configs/tiny."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from videogen.errors import CheckpointError, first_line
from videogen.files import TextError
from videogen.tasks import config
from videogen.tasks.config import Config
from videogen.tasks.table import VARIANTS
from videogen.tasks.task_spec import TaskSpec

FIXED = ("sizes", "kind")  # what a file must say as the built-in one does


def find_row(model_id: str, task: TaskSpec) -> tuple[TaskSpec, Path]:
    """Return the task's row whose built-in tiny model a file is like, and the path of the file.

    Raises:
        CheckpointError: the first thing that the file lacks, has too much, or says wrongly.
    """
    file = Path(model_id.partition(":")[2]).expanduser().absolute()
    content = _read(model_id, file)
    rows = VARIANTS[task.name]
    named = [(row, *item) for row in rows for item in row.tiny.items()]
    built_in = {name: (row, path) for row, name, path in named if not config.is_trained(path)}
    problems = {
        name: [*_differences(content, config.read(f"tiny/{path}"))] or [*_contradictions(content)]
        for name, (_, path) in built_in.items()
    }
    name = min(problems, key=lambda name: len(problems[name]))
    row, like = built_in[name]
    if problems[name]:
        fix = f"begin with a copy of configs/tiny/{like}.yaml"
        raise CheckpointError(f"--model_id {model_id}: {problems[name][0]}; {fix}")
    return row, file


def _read(model_id: str, file: Path) -> Config:
    """Read a file that holds a mapping."""
    try:
        content = config.read_tiny(str(file))
    except TextError as error:
        raise CheckpointError(f"--model_id {model_id}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointError(f"--model_id {model_id}: is not YAML ({first_line(error)})") from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"--model_id {model_id}: must be 'name: value' lines, as configs/tiny has")
    return content


def _differences(content: Config, like: Config, inside: str = "") -> Iterator[str]:
    """Yield what makes a config another than ``like``, whose numbers alone may differ."""
    yield from (f"lacks {inside}{name}" for name in like if name not in content)
    yield from (f"has {inside}{name}, which nothing reads" for name in content if name not in like)
    for name in like.keys() & content.keys():
        given, there = content[name], like[name]
        if isinstance(there, Mapping) and isinstance(given, Mapping):
            yield from _differences(given, there, f"{inside}{name}.")
        elif type(given) is not type(there) or (name in FIXED and given != there):
            yield f"{inside}{name} is {given!r}, and must be {'' if name in FIXED else 'like '}{there!r}"
        elif isinstance(given, int | float) and given < 0:
            yield f"{inside}{name} is {given!r}, and must not be negative"
        elif name != "seed" and isinstance(given, int) and not isinstance(given, bool) and given == 0:
            yield f"{inside}{name} is 0, and must be at least 1"
        elif name == "attention_head_dim" and given % 2:
            yield f"{inside}{name} is {given}, and must be even"


def _contradictions(content: Config) -> Iterator[str]:
    """Yield what does not go together in a config that has all it needs."""
    width, taken = content.get("text_encoder", {}).get("d_model"), content["transformer"].get("text_dim")
    if width != taken:
        yield f"text_encoder.d_model is {width}, and transformer.text_dim {taken}: they must be equal"
