"""Search for a model's files: local folder, Hugging Face cache and hub, or built-in tiny models.

Nothing here imports torch, so a missing folder or component is reported at once. Layouts map components to
places; ``models/weight_loader.py`` reads the files.
"""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from videogen.checkpoints import completeness, layouts, tiny_files
from videogen.checkpoints.json_files import cut_json
from videogen.checkpoints.layouts import Checkpoint
from videogen.checkpoints.model_features import published, read_features
from videogen.checkpoints.tensor_headers import check as check_header
from videogen.checkpoints.weight_files import SUFFIXES
from videogen.errors import SIMILAR, CheckpointError, InputError, nearest, reported_as
from videogen.files import cache_root
from videogen.media.file_contents import other_content
from videogen.tasks import config
from videogen.tasks.table import ROWS, TASKS, VARIANTS
from videogen.tasks.task_spec import DIFFUSERS, TaskSpec

FEATURES = {
    "kind": "a {} transformer",
    "in_channels": "{} input channels",
    "image": "image features",
    "audio": "audio layers",
    "fps": "frame rate embedding",
    "experts": "{} experts",
}
MOST_FOLDERS = 100  # looked into for a model
BELOW = ("*", "snapshots/*", "*/*", "*/snapshots/*")  # where a model may be in the folder that was given
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def locate(
    model_id: str, revision: str | None, task: TaskSpec, replaced: Mapping[str, Path] | None = None
) -> Checkpoint:
    """Find a model without network: by path, in the Hugging Face cache, or as a tiny model.

    Args:
        model_id: what was asked for.
        revision: branch, tag or commit, of a hub id.
        task: any row of the task.
        replaced: component -> file in its place.

    Raises:
        CheckpointError: a path without folder, an incomplete folder, a word that is neither path nor hub id.
    """
    if config.tiny_name(model_id) is not None:
        return _locate_tiny(model_id, task, replaced or {})
    if path := local_path(model_id):
        meant = _known_id(path.name, task)
        instead = f"or the hub id {meant}" if meant else "a hub id, 'miniature' or 'tiny'"
        require_folder(f"--model_id {model_id}", path, f"give an existing folder, {instead}")
        return inspect(path, task, name=path.resolve().name, replaced=replaced)
    if not HUB_ID.fullmatch(model_id):
        near = nearest(model_id.lower(), ["tiny", config.MINIATURE])
        near = f"nearest '{near}'" if near else f"default {task.default_model()}"
        if meant := _known_id(model_id.rstrip("/").rpartition("/")[2], task):
            near = f"nearest {meant}"
        what = "neither a folder nor a hub id; give a path, owner/name, 'miniature' or 'tiny'"
        raise CheckpointError(f"--model_id {model_id}: {what} ({near})")
    for row in ROWS:
        if why := row.config().get("unusable", {}).get(model_id):
            raise CheckpointError(f"--model_id {model_id}: {why}")
    from videogen.checkpoints import hub  # noqa: PLC0415 - 0.2 s, only for hub ids

    for name in repository_names(model_id, task):
        known_revision = revision or row_of(name, task).revision()
        if snapshot := hub.cached_snapshot(name, known_revision, patterns(task, replaced)):
            try:
                found = inspect(snapshot, task, name=name, replaced=replaced)
            except CheckpointError:
                continue  # interrupted or partial download; fetch completes it
            if row_of(name, task).model(name) is None or found.family == row_of(name, task).family:
                return replace(found, revision=snapshot.name)
    row = row_of(model_id, task)
    known = any(model_id in model.names for model in row.models())
    sizes = published(model_id, row).bytes if known else {}
    found = _checkpoint(row, model_id, row.layouts[0])
    return replace(found, revision=revision, sizes=sizes, replaced=replaced or {})


def _known_id(folder: str, task: TaskSpec) -> str | None:
    """Return the hub id of a task's model that is downloaded to a folder of this name."""
    return next((model.names[0] for row in VARIANTS[task.name] if (model := row.model(folder))), None)


def _checkpoint(row: TaskSpec, name: str, layout: str, folder: Path | None = None) -> Checkpoint:
    """Return a model that a row of the task table can read."""
    return Checkpoint(name=name, layout=layout, family=row.family, components=row.components, folder=folder)


def row_of(model_id: str, task: TaskSpec) -> TaskSpec:
    """Return the task's row that knows a hub id (by the longest name if several).

    For an unknown one it is the row of the id most like it, else the first.
    """
    rows = VARIANTS[task.name]
    known = [(len(model.names[0]), row) for row in rows if (model := row.model(model_id)) is not None]
    names = {name: row for row in rows for model in row.models() for name in model.names}
    likely = names.get(nearest(model_id, names) or "", rows[0])
    return max(known, key=lambda named: named[0], default=(0, likely))[1]


def known_ids_like(model_id: str) -> str:
    """Return what to say of an unknown hub id: '; known and like it: ...', or nothing."""
    known = {name for row in ROWS for model in row.models() for name in model.names}
    close = difflib.get_close_matches(model_id, sorted(known), n=3, cutoff=SIMILAR)
    return f"; known and like it: {', '.join(close)}" if close else ""


def is_published(model_id: str) -> bool:
    """Return whether a hub id is one of those in the task table."""
    return any(model_id in model.names for row in ROWS for model in row.models())


def repository_names(model_id: str, task: TaskSpec) -> list[str]:
    """Return the requested id, then the other names of the same repository."""
    models = [model for row in VARIANTS[task.name] for model in row.models()]
    same = [name for model in models if model_id in model.names for name in model.names]
    return list(dict.fromkeys([model_id, *same]))


def licence_note(model_id: str, task: TaskSpec) -> str:
    """Return what to say of the licence of a model's weights when they are downloaded."""
    row, page = row_of(model_id, task), f"see hf.co/{model_id}"
    if not any(model_id in model.names for model in row.models()):
        return f"its weights have a licence of their own, {page}"
    licence = config.read("licences")[row.config()["licence"]]
    limits = f" ({licence['limits']})" if "limits" in licence else ""
    return f"its weights are under the {licence['name']}{limits}, {page}"


def patterns(task: TaskSpec, replaced: Collection[str] | None = None) -> list[str]:
    """Return patterns of the files that the task needs, of every layout it can read.

    Of ``replaced`` components that is their config alone.
    """
    wanted = ["model_index.json", "tiny_arch.json"]
    every = [(layout, row) for row in VARIANTS[task.name] for layout in row.layouts]
    for layout, row in every:
        places = layouts.places_of(layout, row.components)
        needed = {place for name, place in places.items() if name not in (replaced or ())}
        for place in places.values():
            inside = "" if place == "./" else place
            kinds = layouts.KINDS if place in needed else ("*.json",)
            wanted += [inside + kind for kind in kinds] if place.endswith("/") else {place} & needed
    return list(dict.fromkeys(wanted))


def inspect(
    folder: Path, task: TaskSpec, *, name: str, replaced: Mapping[str, Path] | None = None
) -> Checkpoint:
    """Return the model in a folder (see ``_inspect``); whatever its files do to the reader is their fault."""
    fix = "its files do not describe a model"
    with reported_as(lambda why: CheckpointError(f"--model_id {folder}: {fix} ({why}); download it again")):
        return _inspect(folder, task, name, replaced or {})


def _inspect(folder: Path, task: TaskSpec, name: str, replaced: Mapping[str, Path]) -> Checkpoint:
    """Check that a folder holds every component of a task, by the files present and their headers.

    Raises:
        CheckpointError: what is missing or broken, and what is expected.
        InputError: a model for another task.
    """
    layout = layouts.detect(folder)
    rows = VARIANTS[task.name]
    needed = [layouts.places_of(name, row.components).values() for row in rows for name in row.layouts]
    expected = ", or ".join(dict.fromkeys(" ".join(dict.fromkeys(places)) for places in needed))
    if layout is None:
        state = "is empty" if not any(folder.iterdir()) else "is not a model folder"
        where = "" if folder.name.strip(".") or folder.is_absolute() else f" ({folder.resolve()})"
        hint = (
            _nearby(folder, task) or f"; {task.name} needs {expected}, or the hub id {task.default_model()}"
        )
        raise CheckpointError(f"--model_id {folder}{where}: {state}{hint}")
    fitting = [row for row in rows if layout in row.layouts]
    if not fitting:
        others = [other.name for other in TASKS.values() if layout in _layouts(other)]
        use = f"it is for {', '.join(others)}; " if others else ""
        known = " or ".join(dict.fromkeys(_layouts(task)))
        raise CheckpointError(
            f"--model_id {folder}: is a {layout} folder; {use}{task.name} needs a {known} folder"
        )
    # Check the network before missing files, because another task's model lacks other files.
    candidate = replace(_checkpoint(fitting[0], name, layout, folder), replaced=replaced)
    row = _fitting(fitting, candidate)
    found = replace(candidate, family=row.family, components=row.components)
    missing = [
        problem
        for component, place in layouts.places_of(layout, row.components).items()
        if component not in replaced
        if (problem := layouts.missing_part(folder, place, row.components[component])) is not None
    ]
    if missing:
        what = f"incomplete {layout} folder; missing {', '.join(dict.fromkeys(missing))}"
        raise CheckpointError(f"--model_id {folder}: {what}{_nearby(folder, task, depths=())}")
    for file in layouts.files(found):
        if file.suffix in SUFFIXES:
            check_header(file)
        elif other := other_content(file) or cut_json(file):
            raise CheckpointError(f"{file}: {other}")
    completeness.check(found, replaced=False)
    return replace(found, sizes=layouts.component_sizes(found))


def _layouts(task: TaskSpec) -> list[str]:
    return [layout for row in VARIANTS[task.name] for layout in row.layouts]


def _fitting(rows: Sequence[TaskSpec], candidate: Checkpoint) -> TaskSpec:
    """Return the row whose network the transformer of a checkpoint matches.

    Raises:
        InputError: there is none: a model for another task.
    """
    found = read_features(candidate).traits
    if not found.in_channels:
        return rows[0]  # not a transformer; missing files are reported later
    row = min(rows, key=lambda row: len(row.network.differences(found)))
    differences = row.network.differences(found)
    if not differences:
        return row
    given = getattr(found, differences[0])
    has = f"{'no ' if given is False else ''}{FEATURES[differences[0]].format(given)}"
    if file := candidate.replaced.get("transformer"):
        what = f"is for another task ({has}), not for {row.name}"
        raise InputError("--transformer", file, what, "check --task_type and --model_id")
    says = candidate.component_config("transformer").get("model_type")
    kind = f"model_type {says}, " if says else ""
    what = f"is a model for another task ({kind}{has}), not for {row.name}"
    raise InputError("--model_id", candidate.folder, what, f"use {row.default_model()}")


def tiny_folder(name: str) -> Path:
    """Return the folder of a tiny model: that of its weights, or in the cache, one for every config."""
    if config.is_trained(name):
        return config.weights_folder()
    return cache_root() / "tiny" / f"{Path(name).stem}-{config.tiny_digest(name)}"


def _locate_tiny(model_id: str, task: TaskSpec, replaced: Mapping[str, Path]) -> Checkpoint:
    """Return the tiny model that 'tiny', 'tiny:NAME', 'tiny:FILE.yaml' or 'miniature' means.

    Raises:
        CheckpointError: the task has no tiny model of that name, or the file describes none.
    """
    if config.is_file(model_id):
        row, file = tiny_files.find_row(model_id, task)
        return _tiny_model(row, f"tiny:{file.name}", str(file), replaced)
    models = {name: row for row in VARIANTS[task.name] for name in row.tiny}
    name = config.tiny_name(model_id) or next(iter(models))
    if name not in models:
        if name == config.MINIATURE:
            known = ", ".join(dict.fromkeys(row.name for row in ROWS if name in row.tiny))
            raise CheckpointError(f"--model_id {name}: is for {known}; use --model_id tiny for {task.name}")
        near = f"nearest tiny:{nearest(name, models) or next(iter(models))}"
        raise CheckpointError(
            f"--model_id {model_id}: {task.name} has the tiny models {', '.join(models)}; {near}"
        )
    shown = name if name == config.MINIATURE else f"tiny:{name}"
    return _tiny_model(models[name], shown, models[name].tiny[name], replaced)


def _tiny_model(row: TaskSpec, name: str, tiny: str, replaced: Mapping[str, Path]) -> Checkpoint:
    """Return a tiny model with its files, if it has been built before.

    Raises:
        CheckpointError: it is trained, and its files are not there.
    """
    folder = tiny_folder(tiny)
    is_trained = config.is_trained(tiny)
    layout = config.read_tiny(tiny)["layout"] if is_trained else DIFFUSERS.name
    found = replace(_checkpoint(row, name, layout), tiny=tiny, replaced=replaced)
    if is_trained:
        for component, place in layouts.places_of(layout, row.components).items():
            if layouts.missing_part(folder, place, row.components[component]) is not None:
                fix = "install videogen again, or take a whole checkout"
                raise CheckpointError(f"--model_id {name}: its weights are not in {folder}; {fix}")
    elif not (folder / "model_index.json").is_file():
        return found
    found = replace(found, folder=folder)
    return replace(found, sizes=layouts.component_sizes(found))


def _nearby(folder: Path, task: TaskSpec, depths: Sequence[str] = BELOW) -> str:
    """Return a hint to a folder above or below that is the model."""
    above = reversed(list(folder.resolve().parents)[:2])
    below = (path for depth in depths for path in sorted(islice(folder.glob(depth), MOST_FOLDERS)))
    near = next((path for path in (*above, *below) if layouts.detect(path) in _layouts(task)), None)
    return f"; nearest {near}" if near else ""


def local_path(text: str) -> Path | None:
    """Return the path that a text means if it begins with '/', '.' or '~' or is a folder, else None."""
    path = Path(text).expanduser()
    return path if text.startswith(("/", ".", "~")) or path.is_dir() else None


def require_folder(named: str, folder: Path, fix: str) -> None:
    """Check that a folder exists.

    Raises:
        CheckpointError: there is none; with the folder of the most similar name beside it, or else ``fix``.
    """
    if not folder.is_dir():
        what = "is a file, not a model folder" if folder.exists() else "no such folder"
        if folder.is_file() and (
            model := next((up for up in reversed(list(folder.parents)[:3]) if layouts.detect(up)), None)
        ):
            raise CheckpointError(f"{named}: {what}; nearest {model}")
        close = nearest(folder.name, [entry.name for entry in folder.parent.glob("*") if entry.is_dir()])
        raise CheckpointError(f"{named}: {what}; {f'nearest {folder.parent / close}' if close else fix}")
