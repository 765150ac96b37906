"""From what was asked to plans: merging the sources of options and checking all of them, without torch."""

import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from videogen.checkpoints import lora as lora_files
from videogen.checkpoints import model_features, resolve, tensor_headers
from videogen.checkpoints.layouts import Checkpoint
from videogen.errors import CheckpointError, InputError, VideoGenError
from videogen.media.audio import read_audio
from videogen.media.download import Fetcher
from videogen.media.image import read_image
from videogen.media.video_reader import read_video
from videogen.planning import option_rules, parallelism
from videogen.planning.model_facts import inspect_model
from videogen.planning.plan import Plan
from videogen.planning.seeds import video_seeds
from videogen.prompts.roles import find_prompt_writers
from videogen.results.output_paths import (
    OverwritePolicy,
    check_pattern,
    check_writable,
    choose_output_paths,
    earlier_seed,
    reserve,
)
from videogen.tasks.option import typed
from videogen.tasks.option_types import MAX_SEED
from videogen.tasks.options import OPTIONS, Options, check_conflicts, defaults, merge
from videogen.tasks.table import VARIANTS, check_used, find, variant
from videogen.tasks.task_spec import Files, TaskSpec, check_scales

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
            drafts += [(item.label, replace(draft, seed=seed)) for seed in _seeds(draft.options, drawn)]
    plans: list[Plan] = []
    taken: set[Path] = set()
    for index, (label, draft) in enumerate(drafts, start=1):
        with _labelled(label):
            options, task = draft.options, draft.task.name
            check_pattern(options, many=len(drafts) > 1, resume=policy.resume)
            earlier = None if options.seed or not policy.resume else earlier_seed(options, task, index)
            seed = draft.seed if earlier is None else earlier
            outputs = choose_output_paths(options, task=task, index=index, seed=seed, stamp=stamp)
            sources = [source.path for files in draft.inputs.values() for source in files]
            outputs = reserve(outputs, options, taken, policy, sources)
        plan = replace(draft, index=index, seed=seed, outputs=outputs)
        known = policy.resume and plan.checkpoint.folder is not None
        if not (known and plan.earlier_record()):
            with _labelled(label):
                plan.resume_store.check(resume=policy.resume, overwrite=policy.overwrite)
        plans.append(plan)
        taken.update(outputs.paths)
    return plans


def _seeds(asked: Options, drawn: int) -> Sequence[int]:
    """Return a seed for every video: those given, or with --num_videos as many as that."""
    seeds, videos = asked.seed, asked.num_videos
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
    """Plan one item, still without seed, index and outputs (``recorded``: see Item).

    Raises:
        InputError, CheckpointError: the first thing that will not work.
    """
    task = find(explicit.get("task_type"))
    check_used(task.name, explicit)
    check_conflicts(explicit)
    checkpoint = resolve.locate(
        explicit.get("model_id", task.default_model()), explicit.get("revision"), task
    )
    task = variant(task.name, checkpoint.family)
    check_unused(task, explicit)
    usual = merge(defaults(), task.defaults(checkpoint))
    options = task.resolve_defaults(Options.of(merge(usual, explicit))).but(
        **_as_the_weights_are(task, checkpoint, explicit)
    )
    _check_prompt(task, options)
    check_runtime(options)
    option_rules.check(options)
    fetcher = Fetcher(folder=workdir, timeout=options.download_timeout)
    inputs = {
        name: _read(task, name, getattr(options, name), files, fetcher) for name, files in task.inputs.items()
    }
    shape = task.shape(options, inputs, task.size_tables(checkpoint))
    asked = {k for k, v in explicit.items() if not (k in recorded and v == usual.get(k))}
    warnings = [*task.warnings(options, asked, inputs), *_other_tasks_model(task, checkpoint)]
    warnings += option_rules.warnings(options)
    if options.roll_prompts:
        warnings += _check_roll_prompts(options.roll_prompts, len(shape.rolls))
    if options.revision and checkpoint.folder is not None and not checkpoint.revision:
        warnings.append("--revision has no effect on a folder or a tiny model")
    if options.prompt_enhancer and (options.input_image or options.end_image):
        options = options.but(prompt_enhancer=None)
        if "prompt_enhancer" in asked:
            warnings.append("--prompt_enhancer is not used with an image, as published")
    warnings += _without_effect(task, options, asked)
    if checkpoint.folder is not None:
        warnings += [note for lora in options.lora if (note := lora_files.check(lora.path, checkpoint))]
    described = task.describes and options.prompt is None
    prompt_writers = find_prompt_writers(options, needed=("describer",) if described else ())
    return Plan(
        task=task,
        options=options,
        shape=shape,
        checkpoint=checkpoint,
        inputs=inputs,
        facts=inspect_model(task, options, shape, checkpoint),
        prompt_writers=prompt_writers,
        warnings=(*warnings, *(note for found in prompt_writers.values() if (note := found.note))),
    )


def _without_effect(task: TaskSpec, options: Options, asked: Collection[str]) -> Iterator[str]:
    """Options that mean nothing without others."""
    given = [name for name in OPTIONS if name in asked and getattr(options, name) != OPTIONS[name].neutral]
    if not options.teacache:
        useless = [name for name in given if name.startswith("teacache_") or name == "use_ret_steps"]
        yield from (f"--{name} has no effect without --teacache" for name in useless)
    if "vlm_path" in given and not (options.captioner or task.describes):
        yield "--vlm_path has no effect without --captioner"
    if task.describes and options.prompt is not None:
        unused = [name for name in ("vlm_path", "vlm_device", "custom_prompt") if name in given]
        yield from (f"--{name} has no effect with a --prompt" for name in unused)


def check_unused(task: TaskSpec, explicit: Mapping[str, Any]) -> None:
    """Refuse options that the models found have no use for.

    Raises:
        InputError: the first one.
    """
    for name in explicit:
        if not task.uses(name):
            what = f"not used by {task.name} with {task.family} models"
            raise InputError(OPTIONS[name].flag, typed(explicit[name]), what, "leave it out")
    check_scales(task, explicit.get("guidance_scale"))
    for lora in explicit.get("lora", ()):
        if lora.expert is not None and task.network.experts != 2:
            what = f"':{lora.expert}' is for models with two experts"
            raise InputError("--lora", lora.path, what, "leave it out")


def _as_the_weights_are(
    task: TaskSpec, checkpoint: Checkpoint, explicit: Mapping[str, Any]
) -> dict[str, Any]:
    """Options that the weights decide, and None for those that they have no place for.

    Raises:
        InputError: something else was asked for.
    """
    known = checkpoint.folder is not None or checkpoint.tiny or task.model(checkpoint.name)
    for name, value in task.fixed_options.items() if known else ():
        if explicit.get(name, value) != value:
            channels = task.network.in_channels
            what = f"the weights of {checkpoint.name} have {channels} input channels, which are {value}"
            raise InputError(OPTIONS[name].flag, explicit[name], what, f"nearest {value}")
    if not task.requires or checkpoint.folder is None:
        return {
            name: value if known else explicit.get(name, value) for name, value in task.fixed_options.items()
        }
    found = model_features.read_features(checkpoint).traits
    useless = [name for name, trait in task.requires.items() if not getattr(found, trait)]
    for name in useless:
        if name in explicit:
            what = "this model has no embedding for it"
            raise InputError(OPTIONS[name].flag, typed(explicit[name]), what, "leave it out")
    return {**task.fixed_options, **dict.fromkeys(useless)}


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
            own for own in task.models() if own.weights == model.weights and own.defaults == model.defaults
        ]
        use = f"{task.name} uses {(alike or task.models())[0].names[0]}"
        if checkpoint.folder is None and name in model.names:
            raise InputError("--model_id", name, f"is published for {other.name}", use)
        yield f"{name} is published for {other.name}; {use}"
        return


def _check_prompt(task: TaskSpec, options: Options) -> None:
    prompt = options.prompt
    if options.captioner:
        if prompt is not None or options.roll_prompts:
            raise InputError("--captioner", None, "writes the prompt itself", "leave the prompt out")
        if not options.input_video:
            raise InputError("--captioner", None, "needs --input_video", "give a video, or a --prompt")
        return
    if options.roll_prompts or (prompt is None and task.describes):
        return
    if prompt is None:
        raise InputError("--prompt", None, f"required by {task.name}", "say what the video shows")
    if not prompt.strip():
        raise InputError("--prompt", "", "must not be empty", "say what the video shows")


def _check_roll_prompts(prompts: Sequence[str], rolls: int) -> list[str]:
    """Return a warning if there are fewer prompts than segments; the last one is then repeated."""
    if len(prompts) > rolls:
        what = f"has {len(prompts)} prompts, and there are {rolls} rolls"
        raise InputError("--roll_prompts", None, what, f"leave out {len(prompts) - rolls}")
    few = f"--roll_prompts has {len(prompts)} prompts for {rolls} rolls; the last one is used to the end"
    return [few] if len(prompts) < rolls else []


def check_runtime(options: Options) -> None:
    """Refuse devices and LoRA files that cannot be.

    Raises:
        InputError: the first one.
    """
    parallelism.check_launch(options)
    for name in ("device", "vlm_device"):
        device = str(getattr(options, name) or "auto")
        kind, _, number = device.partition(":")
        if kind not in ("auto", "cpu", "cuda", "mps") or (
            number and not (kind == "cuda" and number.isdigit())
        ):
            raise InputError(f"--{name}", device, "must be auto, cpu, cuda, cuda:N or mps", "try auto")
    if (folder := options.embedding_cache) and Path(folder).exists() and not Path(folder).is_dir():
        raise InputError("--embedding_cache", folder, "is not a folder", "give a folder, or a new name")
    if folder:
        check_writable("--embedding_cache", Path(folder))
    for lora in options.lora:
        _check_lora(lora.path)


def _check_lora(path: Path) -> None:
    if not (path.is_dir() or (path.is_file() and path.suffix in lora_files.SUFFIXES)):
        kinds = ", ".join(lora_files.SUFFIXES)
        fix = f"give the file ({kinds}), or the folder it is in"
        raise InputError("--lora", path, "no such .safetensors file", fix)
    try:
        file = lora_files.file_of(path)
        tensor_headers.check(file)
    except CheckpointError as error:
        raise InputError("--lora", path, str(error).partition(": ")[2], "give one whole file") from None


def _read(task: TaskSpec, name: str, given: Any, files: Files, fetcher: Fetcher) -> list[Any]:
    """Open and check the files of one input flag."""
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
