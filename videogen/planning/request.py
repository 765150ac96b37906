"""From what was asked to plans: merging the sources of options and deciding everything, without torch."""

import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from videogen.checkpoints import lora_source, replacements, resolve
from videogen.checkpoints.tiny_autoencoder import check_tiny_autoencoder
from videogen.errors import InputError, VideoGenError
from videogen.media.download import Fetcher
from videogen.media.inputs import AVATAR_FPS, MAX_FRAMES, InputFile, reader_of
from videogen.planning import option_rules, output_names
from videogen.planning.file_format import file_format_warnings
from videogen.planning.model_facts import FileFacts, model_facts, options_of_weights, read_files
from videogen.planning.origins import Origin
from videogen.planning.plan import Draft, Outline, Plan
from videogen.planning.request_checks import (
    check_experts,
    check_prompt,
    check_runtime,
    check_unused,
    warnings,
)
from videogen.planning.seeds import video_seeds
from videogen.prompts.roles import find_prompt_writers
from videogen.results.output_locks import OutputLocks
from videogen.results.output_paths import (
    OutputPaths,
    OverwritePolicy,
    check_pattern,
    choose_output_paths,
    earlier_seed,
    real_path,
    refuse_taken,
    reserve,
)
from videogen.results.publishing import finish_interrupted
from videogen.tasks.list_options import WHOLE, Shard
from videogen.tasks.option import typed
from videogen.tasks.option_types import DRAWN_SEEDS, MAX_SEED, Lora
from videogen.tasks.options import OPTIONS, Options, defaults, merge
from videogen.tasks.presets import preset_values
from videogen.tasks.table import check_used, find, variant
from videogen.tasks.task_spec import Files, TaskSpec

NAMED = [option.name for option in OPTIONS.values() if option.names_result]


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """Option values of one video, or of one per seed; ``label`` names it in messages.

    ``origins`` says in a word where values come from; those that are not in it are flags.
    """

    values: Mapping[str, Any]
    label: str = ""
    origins: Mapping[str, Origin] = field(default_factory=dict)

    @property
    def recorded(self) -> Collection[str]:
        """Values of an earlier result; as far as they are defaults, nobody ever asked for them."""
        return {name for name, origin in self.origins.items() if origin == Origin.METADATA}


def make_plans(
    items: Sequence[Item],
    policy: OverwritePolicy,
    workdir: Path,
    locks: OutputLocks | None = None,
    *,
    first: int = 1,
    taken: dict[Path, str] | None = None,
    shard: Shard = WHOLE,
) -> list[Outline]:
    """Check everything and decide everything, for all items, before any of them runs.

    What is returned is a ``Plan`` where the model is on this machine.

    Args:
        workdir: an existing folder for downloads, which the caller owns.
        locks: takes the locks of the results; None for a dry run, which leaves files as they are.
        first: number of the first video, where others of the run came before it.
        taken: output paths of those others, with their labels; those of these are added.
        shard: the part whose plans are returned; the others are checked as well, but for what is there.

    Raises:
        InputError, CheckpointError: the first thing that will not work.
    """
    if policy.overwrite and policy.resume:
        raise InputError("--resume", None, "not together with --overwrite", "choose one of the two")
    drawn = secrets.randbelow(DRAWN_SEEDS) if shard == WHOLE else _seed_of_list(items)
    videos = list(_videos(items, workdir, drawn))
    place = _Place(
        policy=policy,
        locks=locks,
        shard=shard,
        shared=_shared_patterns([draft for _, draft, _, _ in videos]),
        taken={} if taken is None else taken,
        stamp=time.strftime("%Y-%m-%d_%H-%M-%S"),
    )
    plans = []
    for index, (label, draft, files, seed) in enumerate(videos, start=first):
        with labelled(label):
            seed, outputs = place.choose(label, draft, seed, index)  # noqa: PLW2901
            place.taken.update(dict.fromkeys(map(real_path, outputs.paths), label))
            if not shard.holds(index):
                continue
            about = {"index": index, "videos": first - 1 + len(videos), "label": label}
            plan = draft.outline(seed=seed, outputs=outputs, **about)
            plan = plan if files is None else plan.with_files(files)
        if not (policy.resume and isinstance(plan, Plan) and plan.earlier_record()):
            with labelled(label):
                plan.resume_store.check(resume=policy.resume, overwrite=policy.overwrite)
        plans.append(plan)
    return plans


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """How the videos of a run get their seeds and output paths; see ``make_plans``."""

    policy: OverwritePolicy
    locks: OutputLocks | None
    shard: Shard
    shared: Collection[str]
    taken: dict[Path, str]
    stamp: str

    def choose(self, label: str, draft: Draft, seed: int, index: int) -> tuple[int, OutputPaths]:
        """Return the seed and the paths of a video; ``seed`` is that of its options, or the drawn one.

        Raises:
            InputError: names that do not fit the run, or what is in the way.
        """
        options, task, policy = draft.options, draft.task.name, self.policy
        fixed = "--resume" if policy.resume else "--shard" if self.shard != WHOLE else None
        check_pattern(options, NAMED, shared=self.shared, fixed=fixed)
        if not self.shard.holds(index):
            outputs = choose_output_paths(options, task=task, index=index, seed=seed, stamp=self.stamp)
            refuse_taken(outputs, options, self.taken, label)
            return seed, outputs
        if self.locks is not None and (policy.resume or policy.overwrite):
            named = seed if options.seed else "*"
            finish_interrupted(choose_output_paths(options, task=task, index=index, seed=named, stamp=""))
        kept = None if options.seed or not policy.resume else earlier_seed(options, task, index)
        seed = seed if kept is None else kept
        outputs = choose_output_paths(options, task=task, index=index, seed=seed, stamp=self.stamp)
        sources = [source.path for given in draft.inputs.values() for source in given]
        return seed, reserve(outputs, options, self.taken, policy, sources, label=label, locks=self.locks)


def _shared_patterns(drafts: Sequence[Draft]) -> set[str]:
    """Return the patterns of a flag or a file that several videos have for one of their files.

    Lines of a list that have names of their own are compared by the names themselves.
    """
    named = [
        (name, getattr(draft.options, name))
        for draft in drafts
        for name in NAMED
        if draft.origins.get(name) != Origin.JOB_LIST
    ]
    return {pattern for (_, pattern), count in Counter(named).items() if pattern and count > 1}


def _seed_of_list(items: Sequence[Item]) -> int:
    """Return the seed that all shares of a list draw alike: it follows from what the list asks for."""
    asked = [{k: v for k, v in item.values.items() if OPTIONS[k].recorded} for item in items]
    text = json.dumps(asked, sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % DRAWN_SEEDS


def _videos(
    items: Sequence[Item], workdir: Path, drawn: int
) -> Iterator[tuple[str, Draft, FileFacts | None, int]]:
    """Decide every item, and yield its videos: label, what they share, the model's files, and the seed."""
    for item in items:
        with labelled(item.label):
            draft = decide(item, workdir)
            options, model = draft.options, draft.checkpoint
            here = model.folder is not None and all(lora.path.exists() for lora in options.lora)
            files = read_files(options, draft.facts, model) if here else None
            seeds = _seeds(options, drawn)
        yield from ((item.label, draft, files, seed) for seed in seeds)


def decide(item: Item, workdir: Path) -> Draft:
    """Decide what an item comes to, whatever its seeds and output paths.

    Raises:
        InputError, CheckpointError: the first thing that will not work.
    """
    asked = item.values
    # 1. The task, and the model, which decides between the task's rows.
    task = find(asked.get("task_type"))
    check_used(task.name, asked)
    option_rules.check_combination(asked)
    model, replaced = asked.get("model_id", task.default_model()), replacements.replaced_files(asked)
    checkpoint = resolve.locate(model, asked.get("revision"), task, replaced)
    task = variant(task.name, checkpoint.family)
    check_unused(task, asked)
    replacements.check(task, checkpoint, asked.get("transformer", ()))

    # 2. The options, complete.
    given, asked = asked, _with_preset(task, item)
    usual = merge(defaults(), task.defaults(checkpoint))
    options = task.resolve_defaults(Options.of(merge(usual, asked)))
    decided = options_of_weights(task, checkpoint, asked)
    options = options.replace(lora=tuple(_as_here(lora) for lora in options.lora), **decided)
    check_experts(task, options)
    check_prompt(task, options)
    check_runtime(options)
    option_rules.check(options)

    # 3. The inputs, and with them what the video will be.
    fetcher = Fetcher(folder=workdir, timeout=options.download_timeout)
    inputs = {name: _read(task.name, options, name, files, fetcher) for name, files in task.inputs.items()}
    shape = task.shape(options, inputs, task.size_tables(checkpoint))
    if (file := options.vae_preview) is not None:
        check_tiny_autoencoder(file.path, file.given, shape.latent_shape[1])

    # 4. What the user should know, and who writes the prompt.
    explicit = {k for k, v in given.items() if not (k in item.recorded and v == usual.get(k))}
    notes = [note for files in inputs.values() for file in files for note in getattr(file, "notes", ())]
    notes += warnings(task, options, explicit, inputs, shape, checkpoint)
    notes += [*file_format_warnings(options, shape.file_frames), *_about_loras(options, explicit)]
    if options.input_image or options.end_image:
        options = options.replace(prompt_enhancer=None)
    described = task.describes and options.prompt is None
    prompt_writers = find_prompt_writers(options, needed=("describer",) if described else ())
    notes += [writer.note for writer in prompt_writers.values() if writer.note]
    return Draft(
        task=task,
        options=output_names.fill(options, shape, checkpoint.name),
        shape=shape,
        checkpoint=checkpoint,
        inputs=inputs,
        facts=model_facts(task, options, shape, checkpoint),
        prompt_writers=prompt_writers,
        warnings=tuple(notes),
        origins={
            **dict.fromkeys([*task.checkpoint_defaults(checkpoint), *decided], Origin.CHECKPOINT),
            **dict.fromkeys((name for name in asked if asked[name] != given.get(name)), Origin.PRESET),
            **{name: item.origins.get(name, Origin.FLAG) for name in given if asked.get(name) == given[name]},
        },
    )


def _about_loras(options: Options, explicit: Collection[str]) -> Iterator[str]:
    """Yield what a user should know of the LoRAs before their files are looked at."""
    if options.preset and "lora" in explicit:
        yield f"--lora takes the place of the LoRAs of --preset {options.preset}"
    for lora in options.lora:
        if not lora.path.exists():
            yield f"--lora {lora.name} is to be downloaded, and was not looked at yet"


def _with_preset(task: TaskSpec, item: Item) -> Mapping[str, Any]:
    """Return what was asked for, with what a preset sets; an earlier result does not know of a new preset."""
    asked = item.values
    if (name := asked.get("preset")) is None:
        return asked
    earlier = {} if "preset" in item.recorded else {k: v for k, v in asked.items() if k in item.recorded}
    own = {k: v for k, v in asked.items() if k not in earlier}
    return merge(earlier, preset_values(name, task), own)


def _as_here(lora: Lora) -> Lora:
    """Return a LoRA with the path of its file, if that was fetched before."""
    found = lora_source.find(lora.source) if lora.source else None
    return lora if found is None else lora._replace(path=found)


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
        what = f"--num_videos counts beyond {MAX_SEED}"
        raise InputError("--seed", typed(seeds), what, "give a smaller one")
    return made


def _read(task: str, options: Options, name: str, files: Files, fetcher: Fetcher) -> list[InputFile]:
    """Open and check the files of one input flag."""
    given = getattr(options, name)
    flag, sources = OPTIONS[name].flag, [given] if isinstance(given, str) else list(given or ())
    files.check(flag, task, len(sources))
    read = reader_of(files.kind)
    if files.kind == "audio":  # what is longer than the published limit is cut, where a flag allows more
        read = partial(read, longest=max(MAX_FRAMES, options.max_frames_num) / AVATAR_FPS)
    return [read(flag, source, fetcher) for source in sources]


@contextmanager
def labelled(label: str) -> Iterator[None]:
    """Put an item's label in front of what is wrong with it."""
    try:
        yield
    except VideoGenError as error:
        if label:
            error.args = (f"{label}: {error}",)
        raise
