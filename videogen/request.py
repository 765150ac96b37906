"""From what was asked to plans: merging the sources of options and checking every one of them, without
torch.
"""

import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from videogen.errors import InputError, VideoGenError
from videogen.geometry import Shape
from videogen.media.fetch import Fetcher
from videogen.media.image import InputImage, read_images
from videogen.models import checkpoints
from videogen.options import MAX_SEED, OPTIONS, Lora, check_used
from videogen.plan import Plan, Target, kind_of
from videogen.tasks import TaskSpec, find

Values = dict[str, Any]

# Ways of saying the same thing: what a stronger source says silences the other ways in weaker ones.
ALTERNATIVES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("resolution",), ("size",), ("height", "width")),
    (("duration",), ("num_frames",)),
    (("output",), ("output_dir",)),
    (("prompt",), ("roll_prompts",)),
)
# Pairs that contradict each other when one source says both.
CONFLICTS = (
    ("size", "height"),
    ("size", "width"),
    ("resolution", "size"),
    ("resolution", "height"),
    ("resolution", "width"),
    ("output", "output_dir"),
    ("low_vram", "use_usp"),
)
RUNTIME_DEFAULTS: Values = {
    "device": "auto",
    "dtype": "bfloat16",
    "noise_device": "cpu",
    "attention_backend": "auto",
    "vae_tiling": "auto",
    "download_timeout": 30.0,
    "lora": (),
    **dict.fromkeys(("offload", "low_vram", "use_usp", "compile"), False),
}
PNG_FILE = re.compile(r"\d{6,}\.png")
SEED_MARK, INDEX_MARK = "{seed}", "{index}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """Explicit option values of one video (or one per seed); ``label`` goes in front of what is wrong with
    it.
    """

    values: Mapping[str, Any]
    label: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Existing:
    """How outputs that exist already are met."""

    overwrite: bool = False
    resume: bool = False


def merge(*sources: Mapping[str, Any]) -> Values:
    """Values of several sources, the strongest last."""
    merged: Values = {}
    for source in sources:
        for ways in ALTERNATIVES:
            if any(name in source for way in ways for name in way):
                for way in ways:
                    if not any(name in source for name in way):
                        for name in way:
                            merged.pop(name, None)
        merged.update(source)
    return merged


def make_plans(items: Sequence[Item], existing: Existing, workdir: Path) -> list[Plan]:
    """Check everything and decide everything, for all items, before any of them runs.

    Args:
        workdir: an existing folder for downloads, which the caller owns.

    Raises:
        InputError, CheckpointError: the first thing that will not work.
    """
    if existing.overwrite and existing.resume:
        raise InputError("--resume", None, "not together with --overwrite", "choose one of the two")
    drawn, stamp = secrets.randbelow(MAX_SEED + 1), time.strftime("%Y-%m-%d_%H-%M-%S")
    drafts = []
    for item in items:
        with _labelled(item.label):
            plan = check(item.values, workdir)
            drafts += [(item.label, replace(plan, seed=seed)) for seed in plan.values["seed"] or (drawn,)]
    plans: list[Plan] = []
    for index, (label, draft) in enumerate(drafts, start=1):
        with _labelled(label):
            target = choose_target(
                replace(draft, index=index), many=len(drafts) > 1, stamp=stamp, resume=existing.resume
            )
            taken = {path for plan in plans for path in _paths(plan.target)}
            plans.append(replace(draft, index=index, target=_free(target, taken, existing, draft)))
    return plans


def check(explicit: Mapping[str, Any], workdir: Path) -> Plan:
    """One item's explicit values to a plan, still without seed, index and target."""
    task = find(explicit.get("task_type"))
    check_used(task.name, explicit)
    _check_conflicts(explicit)
    model_id = explicit.get("model_id") or task.models[0]
    values = merge(RUNTIME_DEFAULTS, task.defaults(checkpoints.tiny_name(model_id, task)), explicit)
    values["seed"] = explicit.get("seed", () if values.get("seed") is None else _as_tuple(values["seed"]))
    _check_prompt(task, values)
    _check_runtime(values)
    fetcher = Fetcher(folder=workdir, timeout=values["download_timeout"])
    inputs = {name: _read_inputs(task, name, values.get(name), fetcher) for name in task.inputs}
    shape = _shape(task, values, inputs, model_id)
    checkpoint = checkpoints.locate(model_id, values.get("revision"), task)
    return Plan(
        task=task,
        values=values,
        shape=shape,
        checkpoint=checkpoint,
        inputs=inputs,
        notes=tuple(_notes(task, values, explicit)),
    )


def _as_tuple(seed: int | Sequence[int]) -> tuple[int, ...]:
    return (seed,) if isinstance(seed, int) else tuple(seed)


def _check_conflicts(explicit: Mapping[str, Any]) -> None:
    for one, other in CONFLICTS:
        if explicit.get(one) and explicit.get(other):
            raise InputError(OPTIONS[one].flag, None, f"not together with --{other}", "choose one of the two")


def _check_prompt(task: TaskSpec, values: Mapping[str, Any]) -> None:
    prompt = values.get("prompt")
    if prompt is None:
        raise InputError("--prompt", None, f"required by {task.name}", "say what the video shows")
    if not prompt.strip():
        raise InputError("--prompt", "''", "must not be empty", "say what the video shows")


def _check_runtime(values: Mapping[str, Any]) -> None:
    if values["use_usp"]:
        raise InputError("--use_usp", None, "several GPUs are not part of this version", "leave it out")
    device = str(values["device"])
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdigit())):
        raise InputError("--device", device, "must be auto, cpu, cuda, cuda:N or mps", "try auto")
    for flag, package, needed in (
        ("--low_vram", "torchao", values["low_vram"]),
        ("--lora", "peft", values["lora"]),
    ):
        if needed and find_spec(package) is None:
            raise InputError(flag, None, f"needs the package {package}", f"pip install {package}")
    for lora in values["lora"]:
        _check_lora(lora)


def _check_lora(lora: Lora) -> None:
    if lora.expert is not None:
        raise InputError(
            "--lora", lora.path, f"':{lora.expert}' is for models with two experts", "leave it out"
        )
    found = (
        lora.path.suffix == ".safetensors" if lora.path.is_file() else any(lora.path.glob("*.safetensors"))
    )
    if not found:
        raise InputError(
            "--lora", lora.path, "no such .safetensors file", "give the file, or a folder that holds one"
        )


def _read_inputs(task: TaskSpec, name: str, given: Any, fetcher: Fetcher) -> list[InputImage]:
    fewest, most = task.inputs[name]
    sources = () if given is None else (given,) if isinstance(given, str) else tuple(given)
    allowed = f"{task.name} takes {fewest}" + (f" to {most} images" if most > fewest else " image")
    if len(sources) < fewest:
        raise InputError(OPTIONS[name].flag, None, f"none given; {allowed}", "for example ref_imgs/robot.png")
    if len(sources) > most:
        raise InputError(
            OPTIONS[name].flag, f"({len(sources)} images)", allowed, f"leave out {len(sources) - most}"
        )
    return read_images(OPTIONS[name].flag, sources, fetcher)


def _shape(
    task: TaskSpec, values: Values, inputs: Mapping[str, Sequence[InputImage]], model_id: str
) -> Shape:
    return task.shape(values, inputs, task.size_tables(checkpoints.tiny_name(model_id, task)))


def _notes(task: TaskSpec, values: Mapping[str, Any], explicit: Mapping[str, Any]) -> Iterator[str]:
    guided = values["guidance_scale"] > 1
    for name in ("guidance_scale_img", "negative_prompt"):
        if not guided and explicit.get(name) and OPTIONS[name].used_by(task.name):
            yield f"--{name} has no effect while --guidance_scale is 1 or less"
    if "resolution" in explicit and task.defaults().get("resolution") is None:
        yield "--resolution has no effect"


@contextmanager
def _labelled(label: str) -> Iterator[None]:
    try:
        yield
    except VideoGenError as error:
        if label:
            error.args = (f"{label}: {error}",)
        raise


# -- outputs
# -----------------------------------------------------------------------------------------------------


def choose_target(plan: Plan, *, many: bool, stamp: str, resume: bool) -> Target:
    """Where a plan's result goes, from --output, --output_dir or the default name.

    Raises:
        InputError: an unknown suffix, several videos for one name.
    """
    output, folder, latents = (plan.values.get(name) for name in ("output", "output_dir", "save_latents"))
    if resume and not (output or folder):
        raise InputError("--resume", None, "needs names that stay the same", "give --output or --output_dir")
    for flag, pattern in (("--output", output), ("--save_latents", latents)):
        if pattern and many and SEED_MARK not in pattern and INDEX_MARK not in pattern:
            raise InputError(
                flag, pattern, "several videos need {seed} or {index} in it", "or give --output_dir"
            )
    if latents and Path(latents).suffix != ".safetensors":
        raise InputError(
            "--save_latents", latents, "must end in .safetensors", f"try {Path(latents).stem}.safetensors"
        )
    if output:
        kind = kind_of(output)
        if kind is None:
            stem = Path(output).with_suffix("")
            raise InputError("--output", output, "must be .mp4, .gif, .npy or a folder", f"try {stem}.mp4")
        path = Path(_filled(output, plan)).expanduser()
    else:
        name = f"{plan.index}_{plan.seed}" if folder else f"{plan.seed}_{stamp}"
        kind, path = "mp4", Path(folder or f"result/{plan.task.name}").expanduser() / f"{name}.mp4"
    return Target(
        path=path, kind=kind, latents=Path(_filled(latents, plan)).expanduser() if latents else None
    )


def _filled(pattern: str, plan: Plan) -> str:
    return pattern.replace(SEED_MARK, str(plan.seed)).replace(INDEX_MARK, str(plan.index))


def _paths(target: Target | None) -> list[Path]:
    if target is None:
        return []
    return [target.path, target.sidecar, *([target.latents] if target.latents else [])]


def _free(target: Target, taken: set[Path], existing: Existing, plan: Plan) -> Target:
    """The target, or for default names the next free one.

    Raises:
        InputError: the output exists, two videos would share it, or its folder cannot be written.
    """
    if not (plan.values.get("output") or plan.values.get("output_dir")):
        first, number = target, 1
        while any(path in taken or path.exists() for path in (target.path, target.sidecar)):
            number += 1
            target = replace(
                first, path=first.path.with_name(f"{first.path.stem}_{number}{first.path.suffix}")
            )
    flag = "--output" if plan.values.get("output") else "--output_dir"
    for path in _paths(target):
        if path in taken:
            raise InputError(
                flag, path, "two videos would get this name", "use {seed} and {index}, or --output_dir"
            )
        if path.exists() and not (existing.overwrite or existing.resume):
            raise InputError(flag, path, "exists already", "add --overwrite, or choose another name")
        if path.is_dir() and not (path == target.path and target.kind == "png" and _only_frames(path)):
            raise InputError(flag, path, "is a folder with other files in it", "choose another name")
        if not path.is_dir() and path.exists() and path == target.path and target.kind == "png":
            raise InputError(
                flag, path, "is a file; without a suffix a folder of PNGs is meant", f"try {path}.mp4"
            )
        check_writable("--save_latents" if path == target.latents else flag, path.parent)
    return target


def _only_frames(folder: Path) -> bool:
    return all(PNG_FILE.fullmatch(entry.name) for entry in folder.iterdir())


def check_writable(flag: str, folder: Path) -> None:
    """Make sure that files can be made in ``folder``, or that it can be made; leaves nothing behind.

    Raises:
        InputError: it cannot.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    problem = None
    if not there.is_dir():
        problem = f"{there} is a file"
    elif not there.stat().st_mode & 0o222 or not os.access(
        there, os.W_OK
    ):  # root may write, but was asked not to
        problem = "is not writable"
    else:
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            problem = f"is not writable ({error.strerror})"
    if problem:
        raise InputError(flag, folder, problem, "choose another folder")
