"""Single files in place of components of a model: --transformer, --text_encoder and --vae."""

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from videogen.checkpoints import completeness
from videogen.checkpoints.layouts import Checkpoint
from videogen.checkpoints.model_features import features_of
from videogen.checkpoints.stored_tensors import component_shapes, unused_note
from videogen.checkpoints.tensor_headers import check as check_header
from videogen.checkpoints.weight_files import SUFFIXES
from videogen.errors import CheckpointError, InputError, nearest
from videogen.tasks.option_types import WeightFile
from videogen.tasks.task_spec import TaskSpec

# Expert that a file is for -> component.
EXPERTS = {None: "transformer", "high": "transformer", "low": "transformer_2"}
FLAGS = {"transformer_2": "--transformer"}
# What some name in a file is like, by the component that it is for.
NAMES = {
    "text_encoder": r"SelfAttention\.|self_attn\.|pos_embedding\.|^enc\.blk\.",
    "vae": r"\bdecoder\.",
}


def flag_of(component: str) -> str:
    """Return the option that replaces a component."""
    return FLAGS.get(component, f"--{component}")


def replaced_files(options: Mapping[str, Any]) -> dict[str, Path]:
    """Return component -> file for the options that were given, after a look at the files' headers.

    Raises:
        InputError: no such file, or two for one component.
        CheckpointError: a file that cannot be read.
    """
    found: dict[str, Path] = {}
    for name in ("transformer", "text_encoder", "vae"):
        given = options.get(name) or ()
        for one in (given,) if isinstance(given, WeightFile) else given:
            component = name if name != "transformer" else EXPERTS[one.expert]
            flag = flag_of(component)
            if component in found:
                fix = "add ':high' to one and ':low' to the other" if name == "transformer" else "name one"
                raise InputError(flag, one.given or one.path, "is the second for one network", fix)
            check_file(flag, one.path, one.given)
            found[component] = one.path
    return found


def check_file(flag: str, path: Path, given: str) -> None:
    """Refuse what is no weight file, or none that is whole.

    Raises:
        InputError: no such file.
        CheckpointError: a file that cannot be read.
    """
    if not path.is_file():
        what = "is a folder, not a weight file" if path.is_dir() else "no such file"
        names = [file.name for file in path.parent.glob("*") if file.suffix in SUFFIXES]
        inside = next((file for file in sorted(path.glob("*")) if file.suffix in SUFFIXES), None)
        close = nearest(path.name, names)
        fix = f"nearest {inside or (path.parent / close if close else '')}" if inside or close else ""
        raise InputError(flag, given or path, what, fix or f"give one file ({', '.join(SUFFIXES)})")
    if path.suffix not in SUFFIXES:
        raise InputError(flag, path, "is no weight file", f"give one file ({', '.join(SUFFIXES)})")
    check_header(path)


def check(row: TaskSpec, checkpoint: Checkpoint, transformers: tuple[WeightFile, ...]) -> None:
    """Refuse files that do not fit the model found.

    Raises:
        InputError: one that is for another expert.
        CheckpointError: one that holds another network, or lacks tensors.
    """
    _check_experts(row, transformers)
    _check_networks(row, checkpoint)
    completeness.check(checkpoint, replaced=True)


def _check_experts(row: TaskSpec, files: tuple[WeightFile, ...]) -> None:
    """Refuse files that do not say which of two experts they are for, or say it where there is one.

    Raises:
        InputError: the first one.
    """
    two = row.network.experts == 2
    if wrong := next((file for file in files if two == (file.expert is None)), None):
        what = "the model has two experts" if two else f"':{wrong.expert}' is for models with two experts"
        fix = "add ':high' or ':low'" if two else "leave it out"
        raise InputError("--transformer", wrong.path, what, fix)


def _check_networks(row: TaskSpec, checkpoint: Checkpoint) -> None:
    """Refuse files that hold other networks than a task needs.

    Raises:
        CheckpointError: the first one.
    """
    for component, path in checkpoint.replaced.items():
        shapes = component_shapes(path)
        named = f"{flag_of(component)} {path}"
        if not shapes and zipfile.is_zipfile(path):
            raise CheckpointError(f"{named}: holds no table of tensors; is this the right file?")
        if not shapes:  # a pickle too old to be inspected
            continue
        features = features_of(shapes)
        if component in NAMES:
            known = any(re.search(NAMES[component], name) for name in shapes)
            if not known or features.traits.in_channels:
                what = f"holds no {component.replace('_', ' ')} ({next(iter(shapes))}, ...)"
                raise CheckpointError(f"{named}: {what}; is this the right file?")
            continue
        if not features.traits.in_channels:
            some = ", ".join(list(shapes)[:3])
            raise CheckpointError(f"{named}: tensor names of no known transformer ({some})")
        different = [trait for trait in row.network.differences(features.traits) if trait != "experts"]
        if different:
            has, needs = (getattr(of, different[0]) for of in (features.traits, row.network))
            what = f"is for another task ({different[0]} {has}, and {row.name} needs {needs})"
            raise CheckpointError(f"{named}: {what}; check --model_id")


def notes(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield a line for every transformer's file whose other tensors are not used."""
    for component, path in checkpoint.replaced.items():
        if component not in NAMES and (note := unused_note([path])):
            yield f"{flag_of(component)} {path.name}: {note}"
