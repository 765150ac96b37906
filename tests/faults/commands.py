"""Commands that make the same files in any folder, and the comparison of those files."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image
from safetensors.numpy import load_file


@dataclass
class Command:
    """A command that makes the same files, wherever ``folder`` is."""

    program: Callable[[list[str]], int]
    words: tuple
    folder: Path

    def __call__(self, *more):
        words = [str(word).replace("OUT", str(self.folder)) for word in (*self.words, *more)]
        return lambda: self.program(words)


def content(path):
    """What a file or a folder of frames shows."""
    if path.is_dir():
        return np.stack([np.asarray(Image.open(file)) for file in sorted(path.iterdir())])
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix in (".mp4", ".gif"):
        with av.open(str(path)) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    return np.asarray(Image.open(path))


def check_equal(made, whole):
    """The same files, with the same frames and tensors, made by the same plans, and nothing else."""
    assert sorted(path.name for path in made.iterdir()) == sorted(path.name for path in whole.iterdir())
    for path in whole.iterdir():
        ours = made / path.name
        if path.suffix == ".json":
            records = [json.loads(file.read_text()) for file in (ours, path)]
            assert records[0].get("plan_hash") == records[1].get("plan_hash")
        elif path.suffix == ".jsonl":
            assert _outcomes(ours) == _outcomes(path)
        elif path.suffix == ".safetensors":
            tensors, expected = load_file(ours), load_file(path)
            assert tensors.keys() == expected.keys()
            assert all(np.array_equal(tensors[name], expected[name]) for name in expected)
        elif path.suffix != ".txt":
            assert np.array_equal(content(ours), content(path)), path.name


def _outcomes(file):
    """What became of every video at last, by its index."""
    records = {record["index"]: record for record in map(json.loads, file.read_text().splitlines())}
    return {index: (record["plan_hash"], record["status"] == "failed") for index, record in records.items()}
