"""Completeness of a model's tensors, judged by names and shapes alone, before any framework is loaded.

The blocks of a network are alike, so one that lacks a tensor, or has it in another shape, is damaged. Whether
all is as the network wants it is decided by ``models/weight_loader.py``, which builds it.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from videogen.checkpoints.json_files import read_json
from videogen.checkpoints.layouts import WEIGHTLESS, Checkpoint
from videogen.checkpoints.networks import NETWORKS
from videogen.checkpoints.stored_tensors import component_shapes, transformer_entries
from videogen.checkpoints.tensor_headers import Shape, tensor_infos
from videogen.checkpoints.weight_files import INDEX, find
from videogen.errors import CheckpointError
from videogen.tasks.config import Config
from videogen.tasks.task_spec import TRANSFORMERS

LISTED = 5  # problems named in one error
# Names of the tensors of a block: those of transformers and encoders. The layers of a VAE are not alike.
BLOCK = re.compile(
    r"(?P<stack>(?:.+\.)?(?:(?:double_|single_|single_transformer_|transformer_|refiner_)?blocks"
    r"|block|blk|layers|resblocks|transformer))\.(?P<number>\d+)\.(?P<part>.+)"
)


def check(checkpoint: Checkpoint, *, replaced: bool) -> None:
    """Refuse components whose files lack tensors, or hold some of another shape.

    Args:
        checkpoint: a model on this machine, or one with files in place of components.
        replaced: check those files; otherwise the model's own folders.

    Raises:
        CheckpointError: the first such component, with its first problems.
    """
    own = [name for name in checkpoint.components if name not in checkpoint.replaced]
    names = [name for name in own if checkpoint.components[name] not in WEIGHTLESS]
    places = {checkpoint.place(name): name for name in (checkpoint.replaced if replaced else names)}
    for place, name in places.items():
        config = {} if replaced else checkpoint.component_config(name)
        shapes = component_shapes(place)
        problems = [*_different_blocks(shapes), *_odd_biases(shapes)]
        if name in TRANSFORMERS:
            problems += _lost_from_transformer(place, config)
        problems = [*_lost_from_index(place)] or problems
        if problems:
            more = f" and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
            listed = "; ".join(problems[:LISTED])
            raise CheckpointError(
                f"{place}: its tensors do not fit together: {listed}{more}; download it again"
            )


def _lost_from_index(place: Path) -> Iterator[str]:
    """Yield the tensors that the index of a folder names and its files do not hold."""
    files = find(place).files
    for index in sorted(place.glob(f"[!.]*{INDEX}")) if place.is_dir() else ():
        table = read_json(index).get("weight_map", {})
        if {place / shard for shard in table.values()} <= set(files):
            held = tensor_infos(files)
            yield from (f"missing {name}, which {index.name} names" for name in table if name not in held)


def _different_blocks(shapes: Mapping[str, Shape]) -> Iterator[str]:
    """Yield what of every stack of blocks is not as in most of its blocks."""
    stacks: dict[str, dict[int, dict[str, Shape]]] = {}
    for name, shape in shapes.items():
        if match := BLOCK.fullmatch(name):
            blocks = stacks.setdefault(match["stack"], {})
            blocks.setdefault(int(match["number"]), {})[match["part"]] = shape
    for stack, blocks in stacks.items():
        yield from (f"missing {stack}.{number}" for number in range(max(blocks)) if number not in blocks)
        owners = Counter(part for parts in blocks.values() for part in parts)
        for part, count in owners.items():
            usual = Counter(parts[part] for parts in blocks.values() if part in parts).most_common(1)[0][0]
            common = 2 * count >= len(blocks)
            for number, parts in sorted(blocks.items()):
                name = f"{stack}.{number}.{part}"
                if (part in parts) is not common:
                    yield f"{'unexpected' if part in parts else 'missing'} {name}"
                elif parts.get(part, usual) != usual:
                    yield f"{name} is {list(parts[part])}, expected {list(usual)}"


def _odd_biases(shapes: Mapping[str, Shape]) -> Iterator[str]:
    """Yield biases that are not as long as their weights have rows."""
    for name, shape in shapes.items():
        weight = shapes.get(f"{name.removesuffix('.bias')}.weight") if name.endswith(".bias") else None
        if weight is not None and shape != weight[:1]:
            yield f"{name} is {list(shape)}, expected {list(weight[:1])}"


def _lost_from_transformer(place: Path, config: Config) -> Iterator[str]:
    """Yield what a transformer lacks outside its blocks, and blocks that are fewer than its config says."""
    entries = transformer_entries(place)
    network = next((one for one in NETWORKS if any(name in entries for name in one.patch_embedding)), None)
    if network is None:  # a pickle that only torch can read
        return
    needed = [f"{layer}.{part}" for layer in network.outside for part in ("weight", "bias")]
    yield from (f"missing {name}" for name in needed if name not in entries)
    for key, stack in network.depths.items():
        numbers = {match[1] for name in entries if (match := re.match(rf"{stack}\.(\d+)\.", name))}
        if config.get(key, len(numbers)) != len(numbers):
            yield f"{len(numbers)} of the {config[key]} {stack} that {key} in its config.json says"
