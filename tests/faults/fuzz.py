"""A seeded fuzzer: damages files of every kind, and reads each in a child with limits on memory and time.

``python -m tests.faults.fuzz FOLDER --mutants 50`` prints a JSON object: kind -> what became of its mutants.
That is "read" or "refused", or what should not happen, with examples: "intact" (the first one, which is not
damaged, was refused), "foreign", "large", "slow", "hang" or "crash". Before them come the files of
``tests/faults/hostile.py``.
"""

import argparse
import gc
import json
import os
import random
import resource
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.faults import hostile, samples
from videogen import files
from videogen.checkpoints import lora, model_features, resolve, tensor_headers
from videogen.cli import captions, jobs, sources
from videogen.errors import VideoGenError
from videogen.media.audio import read_audio
from videogen.media.download import Fetcher
from videogen.media.image import read_image
from videogen.media.probe import read_comment
from videogen.media.video_reader import read_video
from videogen.planning.measured_rates import parse_rates
from videogen.prompts.chat_models import find_model
from videogen.results import bundle, sidecar
from videogen.results.resume_store import ResumeStore
from videogen.tasks.option_types import Reject, prompts
from videogen.tasks.step_caches import read_ratios
from videogen.tasks.table import TASKS

TASK = TASKS["reference_to_video"]
FETCHER = Fetcher(folder=Path())
CPU_SECONDS = 10  # for one file
SECONDS = 60  # without any progress, on a machine that has other things to do
ADDRESS_SPACE = 4 << 30
GROWTH = 600 << 10  # KiB that one child may grow by
ODD = (
    *("null", "true", "-1", "0", "1e999", "NaN", "9" * 30, "9" * 5000, "[]", "{}", '""', '"\\ud800"'),
    *("[[[]]]", '{"a": 1}', '"x"', "1.5", "[1, 2]", "[" * 2000 + "]" * 2000, '"\\u0000"'),
)


@dataclass(frozen=True)
class Kind:
    """A kind of file: the intact one, and what reads it."""

    file: str
    read: Callable[[Path], object]
    text: bool = False


def _video(path: Path) -> None:
    video = read_video("--input_video", str(path), FETCHER)
    for _, frame in zip(range(40), video.frames(source_fps=0, fps=12), strict=False):
        assert frame.shape == (video.height, video.width, 3)
    video.tail(1)


def _model(path: Path) -> None:
    folder = path.parent.parent if path.parent.name in ("transformer", "vae") else path.parent
    found = resolve.inspect(folder, TASK, name="m")
    model_features.read_features(found)
    model_features.heads(found, TASK)
    model_features.parameters(found, TASK)
    for component in ("transformer", "vae"):
        config = found.component_config(component)
        TASK.memory.vae_width(config)
        TASK.memory.cached_outputs(config)


def _lora(path: Path) -> None:
    found = resolve.inspect(path.parent / "model", TASK, name="m")
    lora.check(path, found)


def _store(path: Path) -> None:
    store = ResumeStore(folder=path.parent, plan_hash="h", request={"seed": 1})
    store.check(resume=True, overwrite=False)
    store.num_finished()
    store.stored_request()
    store.stored_settings()
    for index in range(store.num_intact()):
        sum(frames.sum() for frames in store.frames(index))
        store.latents(index)
        store.state(index)


def _record(path: Path) -> None:
    sidecar.read_record(path)
    sidecar.changed_inputs(str(path), {})
    sources.from_metadata(str(path), {})


def _bundle(path: Path) -> None:
    with files.work_folder() as folder:
        bundle.read("--from_metadata", path, folder, ["input_image"])


def _captions(path: Path) -> None:
    captions.known_rows(path, (captions.VIDEO, *captions.COLUMNS["describer"]))


IN_MODEL = {
    "model index": "model/model_index.json",
    "network config": "model/transformer/config.json",
    "shard index": "model/transformer/diffusion_pytorch_model.safetensors.index.json",
    "VAE config": "model/vae/config.json",
}
KINDS = {
    **{f"video {s}": Kind(f"video{s}", _video) for s in samples.CODECS},
    **{
        f"sound {s}": Kind(f"sound{s}", lambda path: read_audio("--input_audio", str(path), FETCHER))
        for s in (*samples.SOUNDS, ".wav", ".flac", ".ogg")
    },
    **{
        f"image {s}": Kind(f"image.{s}", lambda path: read_image("--input_image", str(path), FETCHER))
        for s in samples.IMAGES
    },
    **{
        f"image {name}": Kind(name, lambda path: read_image("--input_image", str(path), FETCHER))
        for name in ("image.heic", "image_16.png", "image_float.tiff", "image_profile.png")
    },
    **{f"video {name}": Kind(name, _video) for name in ("video_hdr.mov", "video_fields.mp4", "frames.npy")},
    "comment": Kind("video.mp4", lambda path: (read_comment(path), sidecar.read_record(path))),
    "config": Kind("config.yaml", lambda path: sources.from_config(str(path)), text=True),
    "prompts of jobs": Kind("jobs.txt", lambda path: jobs.read_jobs(str(path), {}, {}), text=True),
    "jobs": Kind("jobs.jsonl", lambda path: jobs.read_jobs(str(path), {}, {}), text=True),
    "prompts": Kind("prompts.txt", lambda path: prompts(str(path)), text=True),
    "record": Kind("record.json", _record, text=True),
    "bundle": Kind("bundle.zip", _bundle),
    "captions": Kind("captions.csv", _captions, text=True),
    "ratios": Kind("ratios.json", read_ratios, text=True),
    "measured rates": Kind("rates.json", parse_rates, text=True),
    "stored state": Kind("a.parts/state.json", _store, text=True),
    "stored frames": Kind("a.parts/001.npy", _store),
    "stored latents": Kind("a.parts/001.safetensors", _store),
    "safetensors": Kind("w.safetensors", lambda path: tensor_headers.tensor_shapes([path])),
    "pickle": Kind(
        "weights.pth", lambda path: (tensor_headers.check(path), tensor_headers.tensor_shapes([path]))
    ),
    "LoRA": Kind("lora.safetensors", _lora),
    "chat config": Kind(
        "chat/config.json", lambda path: find_model("--vlm_path", str(path.parent)), text=True
    ),
    "chat index": Kind(
        "chat/model.safetensors.index.json",
        lambda path: find_model("--vlm_path", str(path.parent)),
        text=True,
    ),
    **{name: Kind(file, _model, text=True) for name, file in IN_MODEL.items()},
}


def mutated(content: bytes, rng: random.Random, *, text: bool) -> bytes:
    """Return a damaged copy."""
    if text and rng.random() < 0.6:
        return _odd_value(content, rng)
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        # Headers are at either end; most of the rest is data.
        span = rng.choice((64, 512, len(damaged) or 1))
        place = min(len(damaged), rng.randrange(span))
        place = place if rng.random() < 0.7 else len(damaged) - place
        part = bytes(damaged[place : place + rng.choice((1, 4, 64))])
        match rng.randrange(8):
            case 0 if damaged and place < len(damaged):
                damaged[place] ^= 1 << rng.randrange(8)
            case 1:
                damaged[place : place + 4] = rng.randbytes(4)
            case 2:
                number = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000))
                damaged[place : place + 4] = number.to_bytes(4, rng.choice(("big", "little")))
            case 3:
                del damaged[place:]
            case 4:
                del damaged[place : place + len(part)]
            case 5:
                damaged[place:place] = part * rng.choice((1, 2, 50))
            case 6:
                damaged[place:place] = rng.randbytes(rng.choice((1, 8, 64)))
            case 7:
                damaged[place : place + 8] = b"\xff" * 8
    return bytes(damaged)


def _odd_value(content: bytes, rng: random.Random) -> bytes:
    """Return a copy in which one value of a text is another."""
    words = [(i, j) for i in range(len(content)) for j in (_end(content, i),) if j > i]
    start, end = rng.choice(words)
    return content[:start] + rng.choice(ODD).encode() + content[end:]


def _end(content: bytes, start: int) -> int:
    """Return where the value that begins at ``start`` ends; ``start`` if none does."""
    if start and content[start - 1 : start] not in (b" ", b"[", b",", b"\n"):
        return start
    for close in range(start + 1, min(len(content), start + 400)):
        if content[close : close + 1] in (b",", b"\n", b"}", b"]"):
            return close
    return start


def outcome(kind: Kind, path: Path) -> str:
    """Read a file, and say what came of it."""
    try:
        kind.read(path)
    except Reject:
        return "refused"
    except VideoGenError as error:
        told = str(error)
        fine = error.exit_code in (2, 3) and len(told) < 1000
        return "refused" if fine else f"foreign: exit {error.exit_code}, {told[:200]}"
    except BaseException as error:
        return f"foreign: {type(error).__name__}: {str(error)[:160]}"
    return "read"


def _child(kind: Kind, path: Path, contents: Sequence[Callable[[], bytes]], out: int) -> None:
    """Read the contents one after another; a line for each, after a dot at its start."""
    gc.freeze()  # what the parent made may wait for its threads when it is freed
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    for content in contents:
        path.write_bytes(content())
        os.write(out, b".")
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        said = outcome(kind, path)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if grown > GROWTH:
            said = f"large: {grown >> 10} MiB, {said}"
        if (spent := time.process_time() - started) > CPU_SECONDS:
            said = f"slow: {spent:.0f} s, {said}"
        os.write(out, f"{' '.join(said.split())}\n".encode("utf-8", "replace"))
    os._exit(0)


def read_all(kind: Kind, path: Path, contents: Sequence[Callable[[], bytes]]) -> list[str]:
    """Return what came of each content, read at a path of a kind."""
    intact = path.read_bytes()
    results: list[str] = []
    while len(results) < len(contents):
        reading, writing = os.pipe()
        if not (child := os.fork()):
            try:
                _child(kind, path, contents[len(results) :], writing)
            finally:
                os._exit(1)
        os.close(writing)
        got, why = b"", "crash"
        while True:
            if not select.select([reading], [], [], SECONDS)[0]:
                os.kill(child, signal.SIGKILL)
                why = "hang"
                break
            if not (part := os.read(reading, 65536)):
                break
            got += part
        os.close(reading)
        os.waitpid(child, 0)
        results += [line.lstrip(".") for line in got.decode("utf-8", "replace").split("\n")[:-1]]
        if len(results) < len(contents):
            results.append(f"{why}: number {len(results)}")
    path.write_bytes(intact)
    return results


def fuzz(name: str, folder: Path, count: int, seed: int) -> dict[str, object]:
    """Return what came of the hostile files and the mutants of a kind: counts, and what is wrong."""
    kind = KINDS[name]
    path = folder / kind.file
    intact = path.read_bytes()

    def mutant(index: int) -> bytes:
        return mutated(intact, random.Random(f"{seed} {name} {index}"), text=kind.text) if index else intact

    made = hostile.CONTENTS.get(name, {})
    results = read_all(kind, path, [*made.values(), *(partial(mutant, index) for index in range(count))])
    bad = [f"{what}: {said}" for what, said in zip(made, results, strict=False) if said != "refused"]
    mutants = results[len(made) :]
    bad += [] if mutants[0] == "read" else [f"intact: {mutants[0]}"]
    bad += sorted({said for said in mutants if said not in ("read", "refused")})
    return {**Counter(said.partition(":")[0] for said in results), "examples": bad[:9]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mutants", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    given = parser.parse_args()
    report = {}
    for name in given.kinds:
        report[name] = fuzz(name, given.folder, given.mutants, given.seed)
        sys.stderr.write(f"{name} {report[name]}\n")
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
