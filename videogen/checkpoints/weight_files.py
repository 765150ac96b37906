"""Weight files of a component: which of its folder are read, and which are missing or passed over."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from videogen.checkpoints.json_files import read_json
from videogen.errors import CheckpointError, reported_as
from videogen.media.file_contents import unfinished_downloads

# Patterns of a folder's weight files; the first kind that exists is read.
SAFETENSORS = ("*.safetensors",)
BINARIES = ("pytorch_model*.bin", "diffusion_pytorch_model*.bin")
STATES = ("*_model_states.pt",)
FLOAT8_STATES = ("*_model_states_fp8.pt",)
PICKLES = (*BINARIES, "pytorch_model.pt", *STATES, *FLOAT8_STATES)
KINDS = (SAFETENSORS, BINARIES, ("pytorch_model.pt",), STATES, FLOAT8_STATES, ("*.gguf",))
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".gguf")
INDEX = ".index.json"
NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """What was found in a component's folder.

    Args:
        files: those that are read.
        missing: those that are not there, in words.
        passed_over: one line for every reason for which a file is not read.
        strays: files beside those that are read.
    """

    files: tuple[Path, ...] = ()
    missing: str | None = None
    passed_over: tuple[str, ...] = ()
    strays: frozenset[Path] = frozenset()


def weight_files(place: Path) -> list[Path]:
    """Return a component's weight files: the file itself, or those of its folder (see ``find``)."""
    return list(find(place).files)


def find(place: Path) -> WeightFiles:
    """Find the weight files at a place: a file, or a folder with safetensors, pickles or GGUF.

    An index is obeyed if its files are there. If they are not, a whole file of its name is read.

    Raises:
        CheckpointError: an index that cannot be read.
    """
    if place.is_file():
        return WeightFiles((place,))
    hidden = sorted(path.name for kind in KINDS for pattern in kind for path in place.glob(f"._{pattern}"))
    notes = [f"{name} is macOS metadata and not read" for name in hidden]
    for kind in KINDS:
        found, indices = _matching(place, kind), _matching(place, kind, INDEX)
        if found or indices:
            chosen = _indexed(place, found, indices) if indices else None
            chosen = chosen or _unindexed(found)
            others = {file for other in KINDS for file in _matching(place, other)} - set(found)
            if others and chosen.files:
                notes.append(
                    f"{_are_not_read(sorted(file.name for file in others))}: {chosen.files[0].name} is"
                )
            strays = chosen.strays | others
            return replace(chosen, passed_over=(*notes, *chosen.passed_over), strays=strays)
    if leftovers := unfinished_downloads(place):
        return WeightFiles(missing=f"weights ({leftovers[0]} is a download that did not finish)")
    return WeightFiles(missing=f"weights ({hidden[0]} is macOS metadata)") if hidden else WeightFiles()


def _matching(folder: Path, kind: Sequence[str], suffix: str = "") -> list[Path]:
    found = (path for pattern in kind for path in folder.glob(pattern + suffix))
    return sorted(path for path in found if not path.name.startswith("."))


def missing_shards(folder: Path) -> str | None:
    """Return the weight files that are not in a folder although others say so, in words."""
    return find(folder).missing


def _indexed(folder: Path, found: Sequence[Path], indices: Sequence[Path]) -> WeightFiles | None:
    """Return the files that the indices of a folder list."""
    files: set[Path] = set()
    absent: list[str] = []
    notes: list[str] = []
    for index in indices:
        shards = _shards(index)
        lost = sorted(name for name in shards if not (folder / name).is_file())
        whole = index.with_name(index.name.removesuffix(INDEX))
        if not lost:
            files |= {folder / name for name in shards}
        elif whole.is_file():
            files.add(whole)
            notes.append(f"{index.name} is out of date and not used: {lost[0]} is not there, {whole.name} is")
        else:
            absent += lost
    if absent and not files:
        return WeightFiles(tuple(found), _first(absent))
    strays = frozenset(found) - files
    if names := sorted(path.name for path in strays):
        why = f"{indices[0].name} does not list {'them' if len(names) > 1 else 'it'}"
        notes.append(f"{_are_not_read(names)}: {why}")
    return WeightFiles(tuple(sorted(files)), None, tuple(notes), strays) if files else None


def _shards(index: Path) -> set[str]:
    what = f"{index.parent}: its index of weight files is damaged"
    with reported_as(lambda why: CheckpointError(f"{what} ({why}); download it again")):
        names = set(read_json(index).get("weight_map", {}).values())
        if not all(isinstance(name, str) and name == Path(name).name for name in names):
            raise ValueError("it names files elsewhere")
        return names


def _unindexed(found: Sequence[Path]) -> WeightFiles:
    """Return the files of a folder without an index; numbered ones must all be there."""
    whole, notes, absent = set(found), [], []
    for pieces, lost, single in _sets(found):
        if lost and single in found:
            whole -= set(pieces)
            names = [path.name for path in pieces]
            notes.append(f"{_are_not_read(names)}: {lost[0]} is missing, and {single.name} is whole")
        else:
            absent += lost
    missing = _first(absent) if absent else None
    return WeightFiles(tuple(sorted(whole)), missing, tuple(notes), frozenset(found) - whole)


def _sets(found: Iterable[Path]) -> Iterator[tuple[list[Path], list[str], Path]]:
    """Yield sets of numbered files: those that are there, names of the others, the one file for all."""
    sets: dict[tuple[str, str, str], list[Path]] = {}
    for path in found:
        if match := NUMBERED.fullmatch(path.name):
            key = (match["stem"], match["count"], match["suffix"])
            sets.setdefault(key, []).append(path)
    for (stem, count, suffix), pieces in sets.items():
        names = {path.name for path in pieces}
        every = (f"{stem}-{number:05}-of-{count}{suffix}" for number in range(1, int(count) + 1))
        yield pieces, [name for name in every if name not in names], pieces[0].with_name(stem + suffix)


def _first(absent: Sequence[str]) -> str:
    return absent[0] + (f" and {len(absent) - 1} more shards" if len(absent) > 1 else "")


def _are_not_read(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'are' if len(names) > 1 else 'is'} not read"
