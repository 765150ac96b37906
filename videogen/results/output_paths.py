"""Paths of results: names from patterns, kinds from suffixes, and checks that no other file is in the way."""

import glob
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from videogen.errors import InputError
from videogen.files import Record, numbered, writing
from videogen.media import output_formats
from videogen.results import sidecar as metadata
from videogen.results.output_locks import OutputLocks
from videogen.results.writable import check_writable

LONGEST_NAME = 200  # bytes; file systems allow 255, and temporary names are longer
# Endings of what is beside a result, behind its name.
PARTS, SHEET, PREVIEW = ".parts", ".sheet.png", ".preview.webp"
SEED_MARK, INDEX_MARK = "{seed}", "{index}"


class OutputOptions(Protocol):
    """The options that decide where results go."""

    @property
    def output(self) -> str | None: ...

    @property
    def output_dir(self) -> str | None: ...

    @property
    def codec(self) -> str | None: ...

    @property
    def save_latents(self) -> str | None: ...

    @property
    def save_last_frame(self) -> str | None: ...

    @property
    def contact_sheet(self) -> int | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class OverwritePolicy:
    """Policy for existing outputs: fail, overwrite or resume."""

    overwrite: bool = False
    resume: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputPaths:
    """Paths of one result: the video (a file, or a folder of PNGs) and the files that go with it.

    ``may_replace`` lets the result replace an earlier one; otherwise a result that another process publishes
    under this name meanwhile is kept, and this one gets a number.
    """

    path: Path
    kind: str
    latents: Path | None = None
    last_frame: Path | None = None
    has_sheet: bool = False
    may_replace: bool = False

    @property
    def sidecar(self) -> Path:
        return self.path.with_name(f"{self.name}.json")

    @property
    def sheet(self) -> Path:
        """Contact sheet of the video."""
        return self.path.with_name(f"{self.name}{SHEET}")

    @property
    def name(self) -> str:
        """Stem shared by the video, its sidecar and its resume folder."""
        return self.path.name if self.kind == "png" else self.path.stem

    @property
    def resume_folder(self) -> Path:
        """Folder of the finished segments of an unfinished video."""
        return self.path.with_name(f"{self.name}{PARTS}")

    @property
    def preview(self) -> Path:
        """Small animated picture of an unfinished video."""
        return self.path.with_name(f"{self.name}{PREVIEW}")

    @property
    def files(self) -> dict[str, Path]:
        """Return all files that will be written but the sidecar, by the names that it has for them."""
        named = {"video": self.path, "latents": self.latents, "last_frame": self.last_frame}
        named |= {"sheet": self.sheet} if self.has_sheet else {}
        return {role: path for role, path in named.items() if path is not None}

    @property
    def locked(self) -> list[tuple[Path, str]]:
        """Return the files whose names are locked while the result is made, and under which name."""
        beside = [path for path in (self.latents, self.last_frame) if path is not None]
        return [(self.path, self.name), *((path, path.stem) for path in beside)]

    @property
    def paths(self) -> list[Path]:
        """Return all files that will be written."""
        return [*self.files.values(), self.sidecar]


def kind_of(path: str) -> str | None:
    """Return the kind of a result by its suffix; without one, or with a slash at the end, it is a folder.

    None for any other suffix.
    """
    if Path(path).name.lower() in output_formats.SUFFIXES:
        return None  # a suffix without a name
    if path.endswith("/") or not Path(path).suffix:
        return output_formats.FOLDER
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix == "png":
        return output_formats.STILL
    return suffix if suffix in output_formats.FILES else None


def choose_output_paths(
    options: OutputOptions, *, task: str, index: int, seed: int | str, stamp: str
) -> OutputPaths:
    """Return the paths of one video, from --output, --output_dir or the default name.

    Args:
        index: of the video in the run, from 1.
        seed: its seed, or a wildcard for it.
        stamp: date and time, for the default name.

    Raises:
        InputError: an unknown suffix.
    """
    output, folder, latents, last = (
        getattr(options, name) for name in ("output", "output_dir", "save_latents", "save_last_frame")
    )

    def filled(pattern: str) -> Path:
        named = pattern.replace(SEED_MARK, str(seed)).replace(INDEX_MARK, str(index))
        return Path(named).expanduser()

    if latents and Path(latents).suffix != ".safetensors":
        fix = f"try {Path(latents).stem}.safetensors"
        raise InputError("--save_latents", latents, "must end in .safetensors", fix)
    if output:
        kind, path = kind_of(output), filled(output)
        if kind is None:
            name = f"{path.name.partition('.')[0] or 'video'}.mp4"
            what = f"must be {', '.join(output_formats.SUFFIXES)} or a folder"
            raise InputError("--output", output, what, f"try {path.with_name(name)}")
    else:
        kind = output_formats.container_of(options.codec)
        name = f"{index}_{seed}.{kind}" if folder else f"{seed}_{stamp}.{kind}"
        path = filled(folder or f"result/{task}") / name
    if last and Path(last).suffix != ".png":
        raise InputError("--save_last_frame", last, "must end in .png", f"try {Path(last).stem}.png")
    return OutputPaths(
        path=path,
        kind=kind,
        latents=filled(latents) if latents else None,
        last_frame=filled(last) if last else None,
        has_sheet=options.contact_sheet is not None,
    )


def check_pattern(
    options: OutputOptions, named: Collection[str], *, shared: Collection[str], fixed: str | None
) -> None:
    """Refuse name patterns that do not fit the run.

    Args:
        named: options that name a file of one video.
        shared: patterns of several videos.
        fixed: the flag for which names must be the same every time.

    Raises:
        InputError: one name for several videos, or names that change where they must not.
    """
    if fixed and not (options.output or options.output_dir):
        raise InputError(fixed, None, "needs names that stay the same", "give --output or --output_dir")
    for name in named:
        pattern = getattr(options, name)
        if pattern in shared and SEED_MARK not in pattern and INDEX_MARK not in pattern:
            raise InputError(
                f"--{name}", pattern, "several videos need {seed} or {index} in it", "or give --output_dir"
            )


def reserve(
    outputs: OutputPaths,
    options: OutputOptions,
    taken: Mapping[Path, str],
    policy: OverwritePolicy,
    sources: Iterable[Path],
    *,
    label: str,
    locks: OutputLocks | None,
) -> OutputPaths:
    """Return the paths if they are free; for default names, the next free ones.

    Args:
        taken: paths of the run's other videos, as ``real_path`` gives them, and the labels of those videos.
        sources: input files of this video.
        label: of this video.
        locks: takes the locks of the paths; None for a dry run.

    Raises:
        InputError: a path exists, is a source, belongs to another video of the run or to another run that
            writes it now, or its folder cannot be written.
    """
    if not (options.output or options.output_dir):
        outputs = _next_free(outputs, taken, locks)
    outputs = replace(outputs, may_replace=policy.overwrite or policy.resume)
    refuse_taken(outputs, options, taken, label)
    for path in outputs.paths:
        flag = _flag_of(path, outputs, options)
        if len(os.fsencode(path.name)) > LONGEST_NAME:
            raise InputError(flag, path.name, f"names may have {LONGEST_NAME} bytes", "choose a shorter one")
        if path.absolute() in {source.absolute() for source in sources}:
            raise InputError(flag, path, "is an input of this very video", "choose another name")
        if _is_taken(path) and not (policy.overwrite or policy.resume):
            what = "exists already" if path != outputs.sidecar else f"its record {path.name} exists already"
            given = path if path != outputs.sidecar else outputs.path
            raise InputError(flag, given, what, "add --overwrite, or choose another name")
        is_result = path in (outputs.path, outputs.sidecar)
        if policy.resume and is_result and path.exists() and earlier_record(outputs) is None:
            what, fix = "is no earlier result of videogen", "move it, or choose another name"
            raise InputError(flag, path, what, fix)
        _check_replaceable(flag, path, folder=path == outputs.path and outputs.kind == "png")
        check_writable(flag, path.parent)
    if locks is not None:
        lock(outputs, options, locks)
    return outputs


def lock(outputs: OutputPaths, options: OutputOptions, locks: OutputLocks) -> None:
    """Lock a result.

    Raises:
        InputError: another run writes it.
        OutputError: the lock cannot be written.
    """
    for path, name in outputs.locked:
        refuse_if_locked(locks, _flag_of(path, outputs, options), path, name)


def refuse_taken(outputs: OutputPaths, options: OutputOptions, taken: Mapping[Path, str], label: str) -> None:
    """Refuse names that another video of the run has; ``label`` is that of this one.

    Raises:
        InputError: the first one.
    """
    for path in outputs.paths:
        if (other := taken.get(real_path(path))) is not None:
            what, fix = "two videos would get this name", "use {seed} and {index} in it"
            if other != label:
                what, fix = f"{other} has this name too", "give each its own, for example with {index} in it"
            raise InputError(_flag_of(path, outputs, options), path, what, fix)


def real_path(path: Path) -> Path:
    """Return the path of a file that is or will be there, the same for all ways to write it."""
    return path.parent.resolve() / path.name


def _flag_of(path: Path, outputs: OutputPaths, options: OutputOptions) -> str:
    named = {outputs.latents: "--save_latents", outputs.last_frame: "--save_last_frame"}
    return named.get(path) or ("--output" if options.output else "--output_dir")


def refuse_if_locked(locks: OutputLocks, flag: str, path: Path, name: str) -> None:
    """Lock the results ``name`` beside ``path``.

    Raises:
        InputError: another run writes them.
        OutputError: the lock cannot be written.
    """
    with writing(path):
        owner = locks.acquire(path.parent, name)
    if owner is not None:
        what = f"another run is writing it ({owner})"
        raise InputError(flag, path, what, "wait until it ends, or choose another name")


def _is_taken(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def earlier_record(outputs: OutputPaths) -> Record | None:
    """Return the record of an earlier result: of its sidecar, its MP4, or its stored segments."""
    if outputs.sidecar.exists():
        return metadata.read_record(outputs.sidecar)
    own = metadata.read_record(outputs.path) if outputs.kind in output_formats.CONTAINERS else None
    return own or metadata.read_record(outputs.resume_folder / "state.json")


def earlier_seed(options: OutputOptions, task: str, index: int) -> int | None:
    """Return the seed that an earlier run drew for this video, from its record; None without one."""
    outputs = choose_output_paths(options, task=task, index=index, seed="*", stamp="")
    folder = outputs.path.parent
    for path in sorted(folder.glob(_escaped(outputs.path.name))):
        if (seed := _seed_of(earlier_record(replace(outputs, path=path)))) is not None:
            return seed
    for stored in sorted(folder.glob(_escaped(outputs.resume_folder.name))):
        if (seed := _seed_of(metadata.read_record(stored / "state.json"))) is not None:
            return seed
    return None


def _escaped(name: str) -> str:
    """Return the glob pattern of a name in which only ``*`` is special."""
    return "*".join(glob.escape(piece) for piece in name.split("*"))


def _seed_of(record: Record | None) -> int | None:
    seed = None if record is None else record.get("seed")
    return seed if isinstance(seed, int) else None


def _next_free(outputs: OutputPaths, taken: Collection[Path], locks: OutputLocks | None) -> OutputPaths:
    """Return the paths with the first number that makes them free."""
    check_writable("--output_dir", outputs.path.parent)
    for path in numbered(outputs.path):
        outputs = replace(outputs, path=path)
        own = (outputs.path, outputs.sidecar, *[outputs.sheet] * outputs.has_sheet)
        if any(real_path(path) in taken or _is_taken(path) for path in own):
            continue
        if locks is None or locks.acquire(path.parent, outputs.name) is None:
            break
    return outputs


def check_saved(outputs: OutputPaths, *, overwrite: bool) -> None:
    """Refuse to replace anything but an earlier result, and that only if asked to.

    Raises:
        InputError: what is there is kept.
    """
    there = next((path for path in outputs.paths if path.exists()), None)
    if there is None:
        return
    if (record := earlier_record(outputs)) is None:
        raise InputError("path=", there, "is no earlier result of videogen", "choose another name")
    if (owner := record.get("output")) not in (None, outputs.path.name):
        raise InputError("path=", there, f"is the record of {owner}", "choose another name")
    if not overwrite:
        raise InputError("path=", there, "exists already", "give overwrite=True, or choose another name")
    _check_replaceable("path=", outputs.path, folder=outputs.kind == output_formats.FOLDER)


def _check_replaceable(flag: str, path: Path, *, folder: bool) -> None:
    """Refuse to replace a folder by a file, a file by a folder, or a folder with other files than frames."""
    if path.is_dir() and not (
        folder and all(output_formats.PNG_FILE.fullmatch(entry.name) for entry in path.iterdir())
    ):
        raise InputError(flag, path, "is a folder with other files in it", "choose another name")
    if folder and path.is_file():
        raise InputError(flag, path, "is a file; without a suffix a folder is meant", f"try {path}.mp4")
