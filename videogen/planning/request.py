"""From what was asked to plans: merging the sources of options and checking all of them, without torch."""

import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from videogen import distributed
from videogen.checkpoints import lora as lora_files
from videogen.checkpoints import model_features, resolve
from videogen.checkpoints.layouts import Checkpoint
from videogen.errors import InputError, VideoGenError
from videogen.media.audio import read_audio
from videogen.media.download import Fetcher
from videogen.media.image import read_image
from videogen.media.video_reader import read_video
from videogen.planning import option_rules
from videogen.planning.plan import Plan
from videogen.planning.seeds import video_seeds
from videogen.results.output_paths import (
    OverwritePolicy,
    check_pattern,
    choose_output_paths,
    earlier_seed,
    reserve,
)
from videogen.tasks.option_types import MAX_SEED, Lora
from videogen.tasks.options import OPTIONS, check_used, merge, typed
from videogen.tasks.table import TASKS, VARIANTS, Files, TaskSpec, check_scales, find, variant

Values = dict[str, Any]

# Pairs that contradict each other.
CONFLICTS = (
    *(("size", "height"), ("size", "width"), ("resolution", "size"), ("resolution", "height")),
    *(("i2v_stability", "no_i2v_stability"), ("offload", "float8_matmul")),
    *(("teacache", "cache"), ("low_vram", "float8_matmul")),
    *(("resolution", "width"), ("output", "output_dir"), ("low_vram", "use_usp"), ("prompt", "roll_prompts")),
)
RUNTIME_DEFAULTS: Values = {
    "device": "auto",
    "dtype": "bfloat16",
    "noise_device": "cpu",
    "attention_backend": "auto",
    "vae_tiling": "auto",
    "vae_dtype": "float32",
    "embedding_cache": None,
    "download_timeout": 30.0,
    "lora": (),
    **dict.fromkeys(("offload", "low_vram", "use_usp", "cfg_parallel", "compile", "float8_matmul"), False),
    **dict.fromkeys(("ulysses_degree", "ring_degree")),
    **dict.fromkeys(("teacache", "use_ret_steps", "teacache_fixed", "captioner"), False),
    "teacache_thresh": 0.2,
    **dict.fromkeys(
        ("cache", "teacache_model", "prompt_enhancer", "vlm_path", "vlm_device", "custom_prompt")
    ),
}
READERS = {"image": read_image, "video": read_video, "audio": read_audio}


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """Option values of one video, or of one per seed; ``label`` names it in messages.

    ``recorded``: those of an earlier result; as far as they are defaults, nobody ever asked for them.
    """

    values: Mapping[str, Any]
    label: str = ""
    recorded: Collection[str] = ()


def make_plans(items: Sequence[Item], policy: OverwritePolicy, workdir: Path) -> list[Plan]:
    """Check everything and decide everything, for all items, before any of them runs.

    Args:
        workdir: an existing folder for downloads, which the caller owns.

    Raises:
        InputError, CheckpointError: the first thing that will not work.
    """
    if policy.overwrite and policy.resume:
        raise InputError("--resume", None, "not together with --overwrite", "choose one of the two")
    drawn, stamp = secrets.randbelow(MAX_SEED + 1), time.strftime("%Y-%m-%d_%H-%M-%S")
    drafts: list[tuple[str, Plan]] = []
    for item in items:
        with _labelled(item.label):
            draft = check(item.values, workdir, item.recorded)
            drafts += [(item.label, replace(draft, seed=seed)) for seed in _seeds(draft.values, drawn)]
    plans: list[Plan] = []
    taken: set[Path] = set()
    for index, (label, draft) in enumerate(drafts, start=1):
        with _labelled(label):
            values, task = draft.values, draft.task.name
            check_pattern(values, many=len(drafts) > 1, resume=policy.resume)
            earlier = None if values["seed"] or not policy.resume else earlier_seed(values, task, index)
            seed = draft.seed if earlier is None else earlier
            outputs = choose_output_paths(values, task=task, index=index, seed=seed, stamp=stamp)
            sources = [source.path for files in draft.inputs.values() for source in files]
            outputs = reserve(outputs, values, taken, policy, sources)
        plan = replace(draft, index=index, seed=seed, outputs=outputs)
        known = policy.resume and plan.checkpoint.folder is not None
        if not (known and plan.earlier_record()):
            with _labelled(label):
                plan.resume_store.check(resume=policy.resume, overwrite=policy.overwrite)
        plans.append(plan)
        taken.update(outputs.paths)
    return plans


def _seeds(values: Mapping[str, Any], drawn: int) -> Sequence[int]:
    """One for every video: those given, or with --num_videos as many as that."""
    seeds, videos = values["seed"], values.get("num_videos")
    if videos is None:
        return seeds or (drawn,)
    try:
        made = video_seeds(seeds or drawn, 1, videos, lambda: drawn)
    except ValueError as error:
        fix = f"give 1 or {videos}" if videos > 1 else "leave --num_videos out, or give 1"
        raise InputError("--seed", typed(seeds), f"{error} with --num_videos {videos}", fix) from None
    if max(made) > MAX_SEED:
        raise InputError(
            "--seed", typed(seeds), f"--num_videos counts beyond {MAX_SEED}", "give a smaller one"
        )
    return made


def check(explicit: Mapping[str, Any], workdir: Path, recorded: Collection[str] = ()) -> Plan:
    """One item's explicit values to a plan, still without seed, index and outputs (``recorded``: see Item).

    Raises:
        InputError, CheckpointError: the first thing that will not work.
    """
    task = find(explicit.get("task_type"))
    check_used(task.name, explicit, TASKS)
    _check_conflicts(explicit)
    checkpoint = resolve.locate(explicit.get("model_id", task.default_model), explicit.get("revision"), task)
    task = variant(task.name, checkpoint.family)
    check_unused(task, explicit)
    general = {name: value for name, value in RUNTIME_DEFAULTS.items() if task.uses(name)}
    defaults = {**general, **task.defaults(checkpoint)}
    values = task.settle(merge({"seed": ()}, defaults, explicit))
    values |= _as_the_weights_are(task, checkpoint, explicit)
    _check_prompt(task, values)
    check_runtime(values)
    option_rules.check(values)
    if values.get("prompt_enhancer") and (values.get("input_image") or values.get("end_image")):
        values["prompt_enhancer"] = None  # as published
    fetcher = Fetcher(folder=workdir, timeout=values["download_timeout"])
    inputs = {
        name: _read(task, name, values.get(name), files, fetcher) for name, files in task.inputs.items()
    }
    shape = task.shape(values, inputs, task.size_tables(checkpoint))
    asked = {k: v for k, v in explicit.items() if not (k in recorded and v == defaults.get(k))}
    notes = [*task.notes(values, asked, inputs), *_other_tasks_model(task, checkpoint)]
    notes += option_rules.notes(values)
    if prompts := values.get("roll_prompts"):
        notes += _check_roll_prompts(prompts, len(shape.rolls))
    if values.get("revision") and checkpoint.folder is not None and not checkpoint.revision:
        notes.append("--revision has no effect on a folder or a tiny model")
    notes += _without_effect(task, values, asked)
    if checkpoint.folder is not None:
        notes += [note for lora in values["lora"] if (note := lora_files.check(lora.path, checkpoint))]
    plan = Plan(
        task=task, values=values, shape=shape, checkpoint=checkpoint, inputs=inputs, notes=tuple(notes)
    )
    if checkpoint.folder is not None or checkpoint.sizes or checkpoint.tiny:
        _ = plan.teacache_table, plan.mag_ratios  # or an error, while it is early
    _ = plan.degrees  # likewise
    to_fetch = tuple(note for found in plan.writers.values() if (note := found.note))
    return replace(plan, notes=(*plan.notes, *to_fetch))


def _without_effect(task: TaskSpec, values: Values, asked: Values) -> Iterator[str]:
    """Options that mean nothing without others."""
    if asked.get("prompt_enhancer") and not values["prompt_enhancer"]:
        yield "--prompt_enhancer is not used with an image, as published"
    if not values.get("teacache"):
        useless = [name for name in asked if name.startswith("teacache_") or name == "use_ret_steps"]
        changed = [name for name in useless if asked[name] != RUNTIME_DEFAULTS[name]]
        yield from (f"--{name} has no effect without --teacache" for name in changed)
    if asked.get("vlm_path") and not (values.get("captioner") or task.describes):
        yield "--vlm_path has no effect without --captioner"
    if task.describes and values.get("prompt") is not None:
        unused = [name for name in ("vlm_path", "vlm_device", "custom_prompt") if asked.get(name)]
        yield from (f"--{name} has no effect with a --prompt" for name in unused)


def check_unused(task: TaskSpec, explicit: Mapping[str, Any]) -> None:
    """Refuse options that the models found have no use for.

    Raises:
        InputError: the first one.
    """
    for name in task.unused:
        if name in explicit:
            what = f"not used by {task.name} with {task.family} models"
            raise InputError(OPTIONS[name].flag, typed(explicit[name]), what, "leave it out")
    check_scales(task, explicit)
    for lora in explicit.get("lora", ()):
        if lora.expert is not None and task.network.get("experts") != 2:
            what = f"':{lora.expert}' is for models with two experts"
            raise InputError("--lora", lora.path, what, "leave it out")


def _as_the_weights_are(task: TaskSpec, checkpoint: Checkpoint, explicit: Mapping[str, Any]) -> Values:
    """Options that the weights decide, and None for those that they have no place for.

    Raises:
        InputError: something else was asked for.
    """
    known = checkpoint.folder is not None or checkpoint.tiny or task.model(checkpoint.name)
    for name, value in task.decided.items() if known else ():
        if explicit.get(name, value) != value:
            channels = task.network["in_channels"]
            what = f"the weights of {checkpoint.name} have {channels} input channels, which are {value}"
            raise InputError(OPTIONS[name].flag, explicit[name], what, f"nearest {value}")
    if not task.needs or checkpoint.folder is None:
        return dict(task.decided)
    found = model_features.traits(checkpoint)
    useless = [name for name, trait in task.needs.items() if not found[trait]]
    for name in useless:
        if name in explicit:
            what = "this model has no embedding for it"
            raise InputError(OPTIONS[name].flag, typed(explicit[name]), what, "leave it out")
    return {**task.decided, **dict.fromkeys(useless)}


def _other_tasks_model(task: TaskSpec, checkpoint: Checkpoint) -> Iterator[str]:
    """Models that only their name tells apart from this task's.

    Raises:
        InputError: a published model that is not even here.
    """
    name = checkpoint.name
    if checkpoint.tiny or any(row.model(name) is not None for row in VARIANTS[task.name]):
        return
    for other in (row for rows in VARIANTS.values() for row in rows):
        if (model := other.model(name)) is None or other.name == task.name:
            continue
        alike = [
            own for own in task.models if own.weights == model.weights and own.defaults == model.defaults
        ]
        use = f"{task.name} uses {(alike or task.models)[0].names[0]}"
        if checkpoint.folder is None and name in model.names:
            raise InputError("--model_id", name, f"is published for {other.name}", use)
        yield f"{name} is published for {other.name}; {use}"
        return


def _check_conflicts(explicit: Mapping[str, Any]) -> None:
    for one, other in CONFLICTS:
        if explicit.get(one) and explicit.get(other):
            raise InputError(OPTIONS[one].flag, None, f"not together with --{other}", "choose one of the two")


def _check_prompt(task: TaskSpec, values: Mapping[str, Any]) -> None:
    prompt = values.get("prompt")
    if values.get("captioner"):
        if prompt is not None or values.get("roll_prompts"):
            raise InputError("--captioner", None, "writes the prompt itself", "leave the prompt out")
        if not values.get("input_video"):
            raise InputError("--captioner", None, "needs --input_video", "give a video, or a --prompt")
        return
    if values.get("roll_prompts") or (prompt is None and task.describes):
        return
    if prompt is None:
        raise InputError("--prompt", None, f"required by {task.name}", "say what the video shows")
    if not prompt.strip():
        raise InputError("--prompt", "", "must not be empty", "say what the video shows")


def _check_roll_prompts(prompts: Sequence[str], rolls: int) -> list[str]:
    """One prompt per roll; the last goes on when there are fewer, which is worth a warning."""
    if len(prompts) > rolls:
        what = f"has {len(prompts)} prompts, and there are {rolls} rolls"
        raise InputError("--roll_prompts", None, what, f"leave out {len(prompts) - rolls}")
    few = f"--roll_prompts has {len(prompts)} prompts for {rolls} rolls; the last one is used to the end"
    return [few] if len(prompts) < rolls else []


def check_runtime(values: Mapping[str, Any]) -> None:
    """Refuse devices and LoRA files that cannot be.

    Raises:
        InputError: the first one.
    """
    distributed.check_launch(values)
    for name in ("device", "vlm_device"):
        device = str(values.get(name) or "auto")
        kind, _, number = device.partition(":")
        if kind not in ("auto", "cpu", "cuda", "mps") or (
            number and not (kind == "cuda" and number.isdigit())
        ):
            raise InputError(f"--{name}", device, "must be auto, cpu, cuda, cuda:N or mps", "try auto")
    if (folder := values["embedding_cache"]) and Path(folder).exists() and not Path(folder).is_dir():
        raise InputError("--embedding_cache", folder, "is not a folder", "give a folder, or a new name")
    for lora in values["lora"]:
        _check_lora(lora)


def _check_lora(lora: Lora) -> None:
    path = lora.path
    files = [path] if path.is_file() and path.suffix == ".safetensors" else sorted(path.glob("*.safetensors"))
    if not files:
        raise InputError("--lora", path, "no such .safetensors file", "give the file, or the folder it is in")
    if len(files) > 1:
        what = f"holds {len(files)} .safetensors files"
        raise InputError("--lora", path, what, f"give one, for example {files[0]}")
    for file in files:
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise InputError(
                "--lora", file, f"is not a .safetensors file ({error})", "download it again"
            ) from None


def _read(task: TaskSpec, name: str, given: Any, files: Files, fetcher: Fetcher) -> list[Any]:
    """The files of one input flag, opened and checked."""
    flag, sources = OPTIONS[name].flag, [given] if isinstance(given, str) else list(given or ())
    files.check(flag, task.name, len(sources))
    return [READERS[files.kind](flag, source, fetcher) for source in sources]


@contextmanager
def _labelled(label: str) -> Iterator[None]:
    """Put an item's label in front of what is wrong with it."""
    try:
        yield
    except VideoGenError as error:
        if label:
            error.args = (f"{label}: {error}",)
        raise
