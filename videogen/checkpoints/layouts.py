"""Model folders: which layout one has, and the files of each component.

The layouts themselves are described by the families (``tasks/families``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from videogen.checkpoints.json_files import read_json
from videogen.checkpoints.weight_files import PICKLES, SUFFIXES, find, missing_shards, weight_files
from videogen.errors import CheckpointError, brief
from videogen.media.file_contents import UNFINISHED
from videogen.tasks.config import Config
from videogen.tasks.table import LAYOUTS

FLOAT8 = "_fp8.pt"  # file name suffix of float8 weights
SCALES = "*_map.pt"  # file name pattern of their scales
# File name patterns of a component's folder.
KINDS = ("*.json", "*.safetensors", "*.model", "*.txt", *PICKLES, SCALES)
# Components without weights -> their files, at least one of which must exist.
WEIGHTLESS = {
    "tokenizer": ("tokenizer.json", "spiece.model", "tokenizer.model"),
    "tokenizer_2": ("tokenizer.json", "vocab.json"),
    "image_processor": ("preprocessor_config.json",),
}
LIGHT = (".json", ".model", ".txt")  # suffixes of their files
# What is read of a component's config before its tensors.
COUNTS = {
    *("num_layers", "num_single_layers", "num_heads", "num_attention_heads"),
    *("base_dim", "decoder_base_dim", "block_out_channels"),
}
LARGEST_COUNT = 1 << 20
WITHOUT_CONFIG = ("transformers",)  # folders that need no config.json


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Model as found (``folder`` set) or as it will be downloaded (``folder`` None).

    ``replaced``: files in place of components.
    """

    name: str
    layout: str
    family: str
    components: Mapping[str, str]
    folder: Path | None = None
    revision: str | None = None
    tiny: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    replaced: Mapping[str, Path] = field(default_factory=dict)

    def place(self, component: str) -> Path:
        """Return the folder or file of the pipeline's ``component``; the model must be on this machine."""
        return self.replaced[component] if component in self.replaced else self.own_place(component)

    def own_place(self, component: str) -> Path:
        """Return the place of a component in the model's folder, whatever replaces it."""
        assert self.folder is not None
        return path_of(self.folder, LAYOUTS[self.layout].place(component, self.components[component]))

    def component_config(self, component: str) -> Config:
        """Return a component's config.json; empty if there is none or it is not downloaded yet."""
        file = self.own_place(component) / "config.json" if self.folder is not None else None
        if file is None or not file.is_file():
            return {}
        config = {name: value for name, value in read_json(file).items() if value is not None}
        for name in COUNTS & config.keys():
            value = config[name]
            numbers = value if isinstance(value, list) else [value]
            if not all(isinstance(number, int) and 0 <= number <= LARGEST_COUNT for number in numbers):
                what = f"{name} is {brief(value)}, which is no possible number"
                raise CheckpointError(f"{file}: {what}; download it again")
        return config


def path_of(folder: Path, place: str) -> Path:
    """Return the path of a place in a folder; a file may have another suffix of weight files."""
    path = folder / place
    if place.endswith("/") or path.exists():
        return path
    return next(filter(Path.is_file, map(path.with_suffix, SUFFIXES)), path)


def detect(folder: Path) -> str | None:
    """Return the name of the layout whose marker files are present, or None."""
    own = ((layout.name, layout.markers) for layout in LAYOUTS.values())
    shared = ((layout.name, layout.shared_markers) for layout in LAYOUTS.values())
    present = (name for name, markers in (*own, *shared) if any((folder / mark).exists() for mark in markers))
    return next(present, None)


def files(checkpoint: Checkpoint, *names: str) -> list[Path]:
    """Return the files in a model's folder of all components, or of those named, in a fixed order."""
    assert checkpoint.folder is not None
    places = places_of(checkpoint.layout, checkpoint.components)
    return [
        file
        for name, place in places.items()
        if (not names or name in names) and name not in checkpoint.replaced
        for file in _files(checkpoint.folder, place)
    ]


def places_of(layout: str, components: Mapping[str, str]) -> dict[str, str]:
    """Return the places of a pipeline's components in a layout."""
    return {name: LAYOUTS[layout].place(name, component) for name, component in components.items()}


def _files(folder: Path, place: str) -> list[Path]:
    path = path_of(folder, place)
    if not place.endswith("/"):
        return [path]
    weights = find(path)
    known = {file for kind in KINDS for file in path.glob(kind) if file.is_file()} | set(weights.files)
    return sorted(file for file in known if not file.name.startswith(".") and file not in weights.strays)


def passed_over(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield a line for every reason for which weight files in the folders of a model are not read."""
    if checkpoint.folder is not None:
        names = (name for name in checkpoint.components if name not in checkpoint.replaced)
        places = dict.fromkeys(map(checkpoint.place, names))
        yield from (f"{place.name}: {note}" for place in places for note in find(place).passed_over)


def component_sizes(found: Checkpoint) -> dict[str, int]:
    """Return the bytes of every component's files; the model must be on this machine."""
    assert found.folder is not None
    own = {
        name: sum(
            file.stat().st_size
            for file in _files(found.folder, place)
            if found.components[name] not in WEIGHTLESS or file.suffix in LIGHT
        )
        for name, place in places_of(found.layout, found.components).items()
        if name not in found.replaced
    }
    return own | {name: path.stat().st_size for name, path in found.replaced.items()}


def missing_part(folder: Path, place: str, component: str) -> str | None:
    """Return the path of a component's missing file; None if the component is complete."""
    path = path_of(folder, place)
    if not place.endswith("/"):
        unfinished = next((end for end in UNFINISHED if path.with_name(path.name + end).exists()), "")
        hint = f" ({path.name}{unfinished} is a download that did not finish)" if unfinished else ""
        return None if path.is_file() else place + hint
    if files := WEIGHTLESS.get(component):
        return None if any((path / name).is_file() for name in files) else f"{place}{files[0]}"
    if not path.is_dir():
        return place
    if not (path / "config.json").is_file() and path.name not in WITHOUT_CONFIG:
        return f"{place}config.json"
    if shards := missing_shards(path):
        return f"{place}{shards}"
    weights = weight_files(path)
    unscaled = [file for file in weights if file.name.endswith(FLOAT8) and not any(path.glob(SCALES))]
    lost = f"{unscaled[0].stem}_map.pt" if unscaled else "*.safetensors (or .pt)"
    return None if weights and not unscaled else place + lost
