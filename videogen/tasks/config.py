"""The YAML files of ``configs/``: the published defaults and models of every task, and the tiny models."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from videogen import files
from videogen.errors import VideoGenError

MINIATURE = "miniature"  # the model whose weights are in the repository, and its file in configs/tiny
SUFFIXES = (".yaml", ".yml")
LARGEST_TINY = 100_000  # bytes
# libyaml's loader, which most installations have, takes a sixth of the time.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Config = Mapping[str, Any]
"""Content of a config file: one of these, or the config.json of a model's component."""


def root() -> Path:
    """Return the configs folder: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).parent.parent  # the package
    return next(path for path in (here / "configs", here.parent / "configs") if path.is_dir())


def weights_folder() -> Path:
    """Return the folder of the miniature: inside the installed package, or in a checkout."""
    here = Path(__file__).parent.parent
    return next(
        (path for path in (here / MINIATURE, here.parent / MINIATURE / "weights") if path.is_dir()),
        here / MINIATURE,
    )


@functools.cache
def read(name: str) -> Config:
    """Return a config by name ('reference_to_video', 'tiny/skyreels-v3-r2v'); shared: do not change it."""
    file = root() / f"{name}.yaml"
    content = yaml.load(file.read_text(encoding="utf-8"), LOADER)
    if not isinstance(content, dict):
        raise VideoGenError(f"{file}: not a mapping; restore it from the repository")
    return content


def read_tiny(name: str) -> Config:
    """Return the config of a tiny model: one of configs/tiny by its name, or a user's file by its path."""
    if is_file(name):
        return yaml.load(files.read_text(Path(name), LARGEST_TINY), LOADER)
    return read(f"tiny/{name}")


def is_trained(name: str) -> bool:
    """Return whether a tiny model comes with its weights."""
    return not is_file(name) and "layout" in read_tiny(name)


def tiny_name(model_id: str) -> str | None:
    """Return the name of a tiny model, '' for the first one of a task; None for any other model."""
    kind, _, name = model_id.partition(":")
    return name if kind == "tiny" else model_id if model_id == MINIATURE else None


def is_file(name: str) -> bool:
    """Return whether the name of a tiny model is the path of a user's file."""
    return name.endswith(SUFFIXES)


def tiny_digest(name: str) -> str:
    """Return a short digest of a tiny model's config; a changed config is another model."""
    file = Path(name) if is_file(name) else root() / "tiny" / f"{name}.yaml"
    return hashlib.sha256(file.read_bytes()).hexdigest()[:8]
