"""Chained video-to-video: every link goes on from the last frame of the one before (spec wan22 section 14).

A link is a v2v plan like any other; what is here is what links hand on, what makes a chain resumable, and the
joined film.
"""

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from videogen import files
from videogen.checkpoints import layouts, replacements, resolve
from videogen.cli import main as cli
from videogen.cli.help import Program
from videogen.cli.process_end import end
from videogen.cli.sources import Asked
from videogen.engine.outcome import Result, earlier_result, saved, skipped, start_video
from videogen.errors import CheckpointError, InputError
from videogen.media.download import Fetcher
from videogen.planning import plan_report
from videogen.planning.origins import Origin
from videogen.planning.plan import Outline
from videogen.planning.request import Item, make_plans
from videogen.results import publishing, sidecar
from videogen.results.output_locks import OutputLocks
from videogen.results.output_paths import OutputPaths, OverwritePolicy, refuse_if_locked
from videogen.results.progress import Reporter
from videogen.results.writable import check_writable
from videogen.tasks.option_types import DRAWN_SEEDS, MAX_SEED
from videogen.tasks.options import OPTIONS, Options
from videogen.tasks.table import TASKS, find

# What a chain is made of: tasks in which a model describes the video that goes on.
V2V = {name: task for name, task in TASKS.items() if task.describes}
CHOICE = " or ".join(V2V)
DEFAULT_MODELS = [task.default_model() for task in V2V.values()]
MODELS = " or ".join(DEFAULT_MODELS)
# Options of the chain itself, which its videos do not have.
OWN = [option.name for option in OPTIONS.values() if option.chain or option.chain_default is not None]
DEFAULTS = {name: OPTIONS[name].chain_default for name in OWN if OPTIONS[name].chain_default is not None}
PREFIX = "continue video"  # in front of every description
REQUIRED = (
    ("input_video", "--video", "give the video that the chain begins with"),
    ("model_id", "--ckpt_dir", f"give a folder, a hub id like {MODELS}, or 'tiny'"),
)
STATE, LOG, FILM = "chain.json", "prompts_log.txt", "continuous.mp4"
OURS = re.compile(rf"video_\d{{2,}}_\d+\.(mp4|json|png)|{STATE}|{LOG}|{FILM}|\..*\.part(\.\w+)?")
LENGTHS = ", ".join(
    f"{name} ({usual['num_frames']} frames at {usual['fps']} fps)"
    for name, usual in ((name, task.config()["defaults"]) for name, task in V2V.items())
)
PROGRAM = Program(
    name="generate_continuous.py",
    usage="generate_continuous.py --video FILE --ckpt_dir FOLDER|ID|tiny [flags]",
    description="Videos that go on from each other: each is described by a model, and continued.",
    epilog=f"""files in --output_dir: video_01_<seed>.mp4 ..., each with its .json and (lossless) last frame;
prompts_log.txt with the prompt of every video. The model decides the task:
{LENGTHS}. Video i has the seed --base_seed + i.

example:
  generate_continuous.py --video first.mp4 --ckpt_dir {DEFAULT_MODELS[0]} --num_videos 12 \\
      --base_seed 42 --custom_prompt "{PREFIX}" --sample_steps 40 --vlm_device cuda:1
""",
    chain=next(iter(V2V)),
    required=("input_video", "model_id"),
    helps={
        "task_type": f"{CHOICE}; follows from the model unless given",
        "model_id": f"a folder, a hub id like {MODELS}, or 'tiny'",
        "output_dir": f"folder of the chain (default {DEFAULTS['output_dir']})",
        "seed": "video i has the seed N + i (default: drawn once and kept)",
        "custom_prompt": f"put in front of every description (default {PREFIX})",
        "num_frames": f"length of each video in frames, 4k+1; the default follows from the task: {LENGTHS}",
        "num_videos": f"how many videos, each with the next seed (default {DEFAULTS['num_videos']})",
        "handover": "what a video begins with: the lossless last frame of the one before, or what its mp4 "
        f"holds, as published (frames, mp4) (default {DEFAULTS['handover']})",
        "color_match": "match the colours of every video to the frame it begins with",
    },
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return cli.main(argv, work=_make_chain, about=PROGRAM)


def program() -> NoReturn:
    """Run the command line as a process of its own."""
    end(main())


def _make_chain(asked: Asked, workdir: Path, reporter: Reporter) -> int:
    """Make a chain, or say what would be made."""
    with OutputLocks() as locks:
        chain, first = plan_chain(asked, workdir, None if asked.settings.dry_run else locks)
        for note in first.warnings:
            cli.logger.warning(note)
        if asked.settings.dry_run:
            plan = json.dumps(plan_report.to_json(first)) if asked.settings.json else chain.describe(first)
            cli.say([plan])
        else:
            cli.say(run_chain(chain, first, reporter, as_json=asked.settings.json))
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """A chain, checked.

    ``values`` are those of every link but for its input, seed and names; ``origins``: as in ``Item``.
    ``options`` are those of the chain itself.
    """

    values: Mapping[str, object]
    origins: Mapping[str, Origin]
    options: Options
    folder: Path
    base_seed: int
    policy: OverwritePolicy
    workdir: Path

    @property
    def num_videos(self) -> int:
        assert self.options.num_videos is not None
        return self.options.num_videos

    def link(self, index: int, previous: Result | None) -> Outline:
        """Plan a link (from 1); ``previous`` is the finished link before it."""
        seed = self.base_seed + index
        path = self.folder / f"video_{index:02d}_{seed}.mp4"
        own: dict[str, object] = {"seed": (seed,), "output": str(path)}
        if self.options.handover == "frames":
            own["save_last_frame"] = str(path.with_suffix(".png"))
        if previous is not None:
            own["input_video"] = str(previous.outputs.path)
            if previous.outputs.last_frame is not None:
                own["input_image"] = str(previous.outputs.last_frame)
        item = Item(values={**self.values, **own}, origins=self.origins)
        (plan,) = make_plans([item], self.policy, self.workdir)
        return replace(plan, index=index)

    def describe(self, first: Outline) -> str:
        """Return the chain for people (--dry_run)."""
        seeds = f"seeds {self.base_seed + 1} to {self.base_seed + self.num_videos}"
        about = f"chain     {self.num_videos} videos, {seeds}, in {self.folder}; the first:"
        return f"{about}\n{plan_report.describe(first)}"

    def settings(self, first: Outline) -> dict[str, object]:
        """Return what must be equal for the chain to be resumed."""
        identity = first.identity
        models = {role: found.title for role, found in first.prompt_writers.items()}
        kept = {name: identity.get(name) for name in ("task", "weights", "inputs", "lora")}
        return {**kept, **identity["values"], **models, "handover": self.options.handover}


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What is known of an earlier chain in a folder: its seed, and what its videos were made with."""

    base_seed: int
    settings: Mapping[str, object]

    @classmethod
    def read(cls, folder: Path) -> "State | None":
        """Return the state that a chain left in its folder; None if there is none."""
        state = sidecar.read_record(folder / STATE) or {}
        seed, settings = state.get("base_seed"), state.get("settings")
        if isinstance(seed, int) and isinstance(settings, dict):
            return cls(base_seed=seed, settings=settings)
        return None


def plan_chain(asked: Asked, workdir: Path, locks: OutputLocks | None = None) -> tuple[Chain, Outline]:
    """Check everything about a chain that can be known before its first link is made.

    Args:
        locks: takes the lock of the chain's folder; None for a dry run, which leaves files as they are.

    Returns:
        the chain, and the plan of its first link.

    Raises:
        InputError, CheckpointError: the first thing that will not work.
    """
    options = Options.of({**DEFAULTS, **asked.values})
    _check_given(asked, options)
    policy = OverwritePolicy(overwrite=asked.settings.overwrite, resume=asked.settings.resume)
    folder, source = Path(str(options.output_dir)).expanduser(), Path(str(options.input_video))
    if policy.overwrite and source.exists() and source.resolve().parent == folder.resolve():
        what, fix = "would remove the chain's own input", "use another --output_dir"
        raise InputError("--overwrite", source, what, fix)
    state = _check_folder(folder, policy, locks)
    chain = Chain(
        values=_of_links(asked.values, options),
        origins=asked.origins if options.seed else {**asked.origins, "seed": Origin.DRAWN},
        options=options,
        folder=folder,
        base_seed=_base_seed(options, state if policy.resume else None),
        policy=policy,
        workdir=workdir,
    )
    first = chain.link(1, None)
    was, now = dict(state.settings if state is not None else {}), chain.settings(first)
    if now["weights"] is None:  # a model that is yet to be fetched
        was["weights"] = None
    if state is not None and policy.resume and was != now:
        what = f"holds a chain made with {sidecar.differences(was, now)}"
        raise InputError("--resume", folder, what, "repeat those, or choose another --output_dir")
    return chain, first


def _check_given(asked: Asked, options: Options) -> None:
    for name, option in OPTIONS.items():
        given = asked.values.get(name) or getattr(asked.settings, name, None)
        if option.set_by_chain and given and given != option.default:
            raise InputError(option.flag, None, "a chain names its own files and inputs", "leave it out")
    for name, flag, fix in REQUIRED:
        if not asked.values.get(name):
            raise InputError(flag, None, "none given", fix)
    if options.handover == "latents":
        raise InputError("--handover", "latents", "must be frames or mp4", "nearest frames")
    if options.no_vlm and options.prompt is not None:
        raise InputError("--no_vlm", None, "not together with --prompt", "leave one of the two out")
    if options.no_vlm and options.custom_prompt is not None and not options.custom_prompt.strip():
        what = "must not be empty with --no_vlm"
        raise InputError("--custom_prompt", "", what, "say what the videos show")


def _of_links(values: Mapping[str, object], options: Options) -> dict[str, object]:
    """Return the options of every link: those given, the task, and what there is for a prompt."""
    task = _task(options)
    links = {name: value for name, value in values.items() if name not in (*OWN, "seed")}
    if options.no_vlm:
        unused = {name for name in links if OPTIONS[name].writes_prompt and V2V[task].uses(name)}
        prompt = links.get("custom_prompt", PREFIX)
        links = {name: value for name, value in links.items() if name not in unused} | {"prompt": prompt}
    elif options.prompt is None:
        links.setdefault("custom_prompt", PREFIX)
    if options.handover == "mp4":  # as published, with the colours of published files
        links.setdefault("video_colors", "published")
    return {**links, "task_type": task}


def _task(options: Options) -> str:
    """Return the v2v task asked for, or that of the model."""
    if asked := options.task_type:
        if asked not in V2V:
            find(asked)
            what = f"must be one of {', '.join(V2V)}"
            raise InputError("--task_type", asked, what, f"nearest {next(iter(V2V))}")
        return asked
    model, problems = str(options.model_id), []
    given = {name: getattr(options, name) for name in ("transformer", "text_encoder", "vae")}
    replaced = replacements.replaced_files(given)
    layout = layouts.detect(Path(model).expanduser()) if Path(model).expanduser().is_dir() else None
    # The task whose folders look like this one first: what is wrong with it is said about that.
    for name, task in sorted(V2V.items(), key=lambda row: layout not in row[1].layouts):
        try:
            found = resolve.locate(model, options.revision, task, replaced)
        except (CheckpointError, InputError) as error:
            problems.append(error)
            continue
        if found.folder is not None or found.tiny or task.model(model) is not None:
            return name
    if len(problems) == len(V2V):
        raise problems[0]
    raise InputError("--task_type", None, f"cannot be told from {model}", f"give {CHOICE}")


def _check_folder(folder: Path, policy: OverwritePolicy, locks: OutputLocks | None) -> State | None:
    """Lock the folder of the chain and return the state of the chain in it; None if there is none.

    Raises:
        InputError: it cannot be used, or holds a chain and nothing was said about it.
    """
    if "{" in str(folder):
        raise InputError("--output_dir", folder, "may not hold {seed} or other braces", "leave them out")
    check_writable("--output_dir", folder)
    if locks is not None:
        refuse_if_locked(locks, "--output_dir", folder / STATE, "chain")
        if policy.resume or policy.overwrite:
            publishing.finish_interrupted(OutputPaths(path=folder / "video_*.mp4", kind="mp4"))
    if not any(OURS.fullmatch(path.name) for path in folder.glob("video_*")):  # nothing was finished
        return None
    state = State.read(folder)
    if not (policy.overwrite or policy.resume):
        fix = "--resume goes on with it, --overwrite begins again"
        raise InputError("--output_dir", folder, "holds the files of a chain", fix)
    if policy.resume and state is None:
        what = f"has no readable {STATE}, so it is not known what its videos were made with"
        raise InputError("--resume", folder, what, "choose another --output_dir")
    return state


def _base_seed(options: Options, state: State | None) -> int:
    """Return the seed that link i adds i to; drawn where none is given, and then kept."""
    asked, num_videos = options.seed, options.num_videos or 0
    if len(asked) > 1:
        what = "one for the whole chain"
        raise InputError("--base_seed", ",".join(map(str, asked)), what, f"try {asked[0]}")
    if not asked:
        return state.base_seed if state is not None else secrets.randbelow(DRAWN_SEEDS)
    if state is not None and asked[0] != state.base_seed:
        raise InputError("--base_seed", asked[0], f"the chain has {state.base_seed}", "leave it out")
    if asked[0] + num_videos > MAX_SEED:
        what = "too large for the links' seeds"
        raise InputError("--base_seed", asked[0], what, f"nearest {MAX_SEED - num_videos}")
    return asked[0]


def run_chain(chain: Chain, first: Outline, reporter: Reporter, *, as_json: bool = False) -> Iterator[str]:
    """Make the links one after the other; yields a line for each: its path, or its record as JSON.

    Models are loaded once. What is finished is kept; ``--resume`` goes on behind it.
    """
    reporter.start_run(chain.num_videos)
    with reporter.stage("libraries"):
        from videogen.engine.session import Session, generate  # noqa: PLC0415 - torch, diffusers
        from videogen.runtime.parallel import init_communicator  # noqa: PLC0415

    communicator = init_communicator(wanted=first.options.use_usp)
    session = Session(keep_prompt_writers=True, communicator=communicator, reporter=reporter)
    done: list[Result] = []
    try:
        for index in range(1, chain.num_videos + 1):
            plan = session.fetch(first if index == 1 else chain.link(index, done[-1]))
            if index == 1:
                about = {"base_seed": chain.base_seed, "settings": chain.settings(plan)}
                files.write_json(chain.folder / STATE, {"schema": sidecar.SCHEMA, **about})
            if chain.policy.resume and (earlier := earlier_result(plan)) is not None:
                result = earlier
                skipped(plan, earlier, reporter)
            else:
                start_video(plan, reporter)
                result = saved(generate(session.with_prompt(plan), session), reporter)
            done.append(result)
            if index == 1 and chain.policy.overwrite:
                _remove_others(chain.folder, result)
            _save_log(chain.folder)
            yield _line(result.outputs.path, result.record, as_json=as_json)
        session.stop_workers()
        reporter.end_run()
    finally:
        session.close()
    if chain.options.concat:
        yield _line(_join(chain, done), {"links": len(done)}, as_json=as_json)


def _line(path: Path, record: Mapping[str, object], *, as_json: bool) -> str:
    return json.dumps({"path": str(path), **record}) if as_json else str(path)


def _remove_others(folder: Path, first: Result) -> None:
    """Remove what is left of the chain that is overwritten, once the new one has begun."""
    ours = [path for path in folder.iterdir() if OURS.fullmatch(path.name)]
    others = [path for path in ours if path not in (folder / STATE, *first.outputs.paths)]
    for path in others:
        path.unlink()
    cli.logger.info("removed %d files of the earlier chain", len(others))


def _save_log(folder: Path) -> None:
    """Write a line for every video of the chain: its file and its prompt."""
    lines = []
    for file in sorted(folder.glob("video_*.json")):
        record = sidecar.read_record(file) if OURS.fullmatch(file.name) else None
        if record is not None:
            prompt = " ".join(str(record["request"].get("prompt", "")).split())
            lines.append(f"{record['output']}: {prompt}\n")
    files.write_text(folder / LOG, "".join(lines))


def _join(chain: Chain, done: Sequence[Result]) -> Path:
    """Join all links to one film, without the first frame of a link, which repeats the last before it."""
    from videogen.engine.generate import encoding_of, fit  # noqa: PLC0415
    from videogen.media.video_reader import read_video  # noqa: PLC0415
    from videogen.media.video_writer import open_writer  # noqa: PLC0415

    videos = [read_video("video", str(result.outputs.path), Fetcher(folder=chain.workdir)) for result in done]
    size = (videos[0].width, videos[0].height)
    frames = sum(video.num_frames for video in videos) - len(videos) + 1
    target = chain.folder / FILM
    encoding, fps = encoding_of(chain.options), round(videos[0].fps)
    with open_writer(target, "mp4", size=size, fps=fps, num_frames=frames, encoding=encoding) as film:
        for number, video in enumerate(videos):
            for index, frame in enumerate(video.frames()):
                if number == 0 or index > 0:
                    film.write(fit(frame[None], size))
        film.finish()
        return film.publish()
