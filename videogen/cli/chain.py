"""Chained video-to-video: every link goes on from the last frame of the one before (spec wan22 section 14).

A link is a v2v plan like any other; what is here is what links hand on, what makes a chain resumable, and the
joined film.
"""

import json
import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from videogen import __version__, files
from videogen.checkpoints import layouts, resolve
from videogen.cli import main as cli
from videogen.cli.parser import Program, help_text, parse
from videogen.cli.process_end import end
from videogen.errors import CheckpointError, InputError
from videogen.planning import plan_report
from videogen.planning.plan import Plan
from videogen.planning.request import Item, make_plans
from videogen.results import publishing, sidecar
from videogen.results.output_locks import OutputLocks
from videogen.results.output_paths import OutputPaths, OverwritePolicy, check_writable, refuse_if_locked
from videogen.tasks.option_types import MAX_SEED
from videogen.tasks.options import OPTIONS
from videogen.tasks.table import TASKS, find

if TYPE_CHECKING:
    from videogen.engine.generate import Result

# What a chain is made of: tasks in which a model describes the video that goes on.
V2V = tuple(name for name, task in TASKS.items() if task.describes)
# Options of the chain itself, and what they are unless given.
OWN: dict[str, Any] = {
    "num_videos": 12,
    "output_dir": "./continuous_outputs",
    "concat": False,
    "no_vlm": False,
    "handover": "frames",
}
PREFIX = "continue video"  # in front of every description
REQUIRED = (
    ("input_video", "--video", "give the video that the chain begins with"),
    ("model_id", "--ckpt_dir", "give a Wan2.2 I2V-A14B or TI2V-5B folder, a hub id or 'tiny'"),
)
STATE, LOG, FILM = "chain.json", "prompts_log.txt", "continuous.mp4"
OURS = re.compile(rf"video_\d{{2,}}_\d+\.(mp4|json|png)|{STATE}|{LOG}|{FILM}|\..*\.part(\.\w+)?")
# Options whose names a chain gives itself, or that speak of one video.
NAMED_BY_THE_CHAIN = ("output", "save_latents", "save_last_frame", "input_image", "jobs", "caption_only")
PROGRAM = Program(
    name="generate_continuous.py",
    usage="generate_continuous.py --video FILE --ckpt_dir FOLDER|ID|tiny [flags]",
    description="Videos that go on from each other: each is described by a model and continued with Wan2.2.",
    epilog="""files in --output_dir: video_01_<seed>.mp4 ..., each with its .json and (lossless) last frame;
prompts_log.txt with the prompt of every video. The model decides between v2v-14B (81 frames at 16 fps) and
v2v-5B (121 at 24). Video i has the seed --base_seed + i.

example:
  generate_continuous.py --video first.mp4 --ckpt_dir ./Wan2.2-I2V-A14B --num_videos 12 --base_seed 42 \\
      --custom_prompt "continue video" --sample_steps 40 --sample_guide_scale 5.0 --vlm_device cuda:1
""",
    chain=True,
    hidden=NAMED_BY_THE_CHAIN,
    helps={
        "task_type": "v2v-14B or v2v-5B; follows from the model unless given",
        "model_id": "Wan2.2 I2V-A14B or TI2V-5B: a folder, a hub id, or 'tiny'",
        "output_dir": "folder of the chain (default './continuous_outputs')",
        "seed": "video i has the seed N + i (default: drawn once and kept)",
        "custom_prompt": f"put in front of every description (default '{PREFIX}')",
        "num_frames": "length of each video in frames, 4k+1 (default 81; 5B: 121)",
        "num_videos": "how many videos, each with the next seed (default 12)",
        "handover": "what a video begins with: the lossless last frame of the one before, or what its mp4 "
        "holds, as published (frames, mp4) (default 'frames')",
        "color_match": "match the colours of every video to the frame it begins with",
    },
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return cli.main(argv, command=_command)


def program() -> NoReturn:
    """Run the command line as a process of its own."""
    end(main())


def _command(arguments: list[str]) -> int:
    given, wants_help = parse(arguments)
    if wants_help:
        cli.say(help_text("v2v-14B", PROGRAM).rstrip())
        return 0
    if given.get("version"):
        cli.say(__version__)
        return 0
    values, settings, recorded = cli.gather(given)
    cli.set_up_logging(settings)
    cli.quieten_libraries(settings)
    with files.work_folder() as workdir, OutputLocks() as locks:
        locks_taken = None if settings.get("dry_run") else locks
        chain, first = plan_chain(values, settings, workdir, recorded, locks=locks_taken)
        for note in first.warnings:
            cli.logger.warning(note)
        if settings.get("dry_run"):
            cli.say(json.dumps(plan_report.to_json(first)) if settings.get("json") else chain.describe(first))
            return 0
        for line in run_chain(chain, first, as_json=settings.get("json", False)):
            cli.say(line)
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """A chain, checked: ``values`` are those of every link but for its input, seed and names.

    ``recorded``: as in ``Item``.
    """

    values: Mapping[str, Any]
    recorded: Collection[str]
    num_videos: int
    folder: Path
    base_seed: int
    handover: str
    concat: bool
    policy: OverwritePolicy
    workdir: Path

    def link(self, index: int, previous: "Result | None") -> Plan:
        """Plan a link (from 1); ``previous`` is the finished link before it."""
        seed = self.base_seed + index
        name = f"video_{index:02d}_{seed}"
        own = {"seed": (seed,), "output": str(self.folder / f"{name}.mp4")}
        if self.handover == "frames":
            own["save_last_frame"] = str(self.folder / f"{name}.png")
        if previous is not None:
            own["input_video"] = str(previous.outputs.path)
            if previous.outputs.last_frame is not None:
                own["input_image"] = str(previous.outputs.last_frame)
        item = Item(values={**self.values, **own}, recorded=self.recorded)
        (plan,) = make_plans([item], self.policy, self.workdir)
        return replace(plan, index=index)

    def describe(self, first: Plan) -> str:
        """Return the chain for people (--dry_run)."""
        seeds = f"seeds {self.base_seed + 1} to {self.base_seed + self.num_videos}"
        about = f"chain     {self.num_videos} videos, {seeds}, in {self.folder}; the first:"
        return f"{about}\n{plan_report.describe(first)}"


def plan_chain(
    values: Mapping[str, Any],
    settings: Mapping[str, Any],
    workdir: Path,
    recorded: Collection[str] = (),
    *,
    locks: OutputLocks | None = None,
) -> tuple[Chain, Plan]:
    """Check everything about a chain that can be known before its first link is made.

    Args:
        locks: takes the lock of the chain's folder; None for a dry run, which leaves files as they are.

    Returns:
        the chain, and the plan of its first link.

    Raises:
        InputError, CheckpointError: the first thing that will not work.
    """
    _check_given(values, settings)
    own = {name: values.get(name, default) for name, default in OWN.items()}
    policy = OverwritePolicy(overwrite=settings.get("overwrite", False), resume=settings.get("resume", False))
    folder = Path(own["output_dir"]).expanduser()
    source = Path(values["input_video"])
    if policy.overwrite and source.exists() and source.resolve().parent == folder.resolve():
        what, fix = "would remove the chain's own input", "use another --output_dir"
        raise InputError("--overwrite", source, what, fix)
    state = _check_folder(folder, policy, locks)
    seed = _base_seed(values.get("seed", ()), own["num_videos"], state if policy.resume else None)
    chain = Chain(
        values=_of_links(values, no_vlm=own["no_vlm"]),
        recorded=recorded,
        num_videos=own["num_videos"],
        folder=folder,
        base_seed=seed,
        handover=own["handover"],
        concat=own["concat"],
        policy=policy,
        workdir=workdir,
    )
    first = chain.link(1, None)
    was, now = (state or {}).get("settings", {}), _settings(chain, first)
    if now["weights"] is None:  # a model that is yet to be fetched
        was = {**was, "weights": None}
    if state is not None and policy.resume and was != now:
        what = f"holds a chain made with {sidecar.differences(was, now)}"
        raise InputError("--resume", folder, what, "repeat those, or choose another --output_dir")
    return chain, first


def _check_given(values: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    for name in NAMED_BY_THE_CHAIN:
        if values.get(name) or settings.get(name):
            what = "a chain names its own files and inputs"
            raise InputError(OPTIONS[name].flag, None, what, "leave it out")
    for name, flag, fix in REQUIRED:
        if not values.get(name):
            raise InputError(flag, None, "none given", fix)
    if values.get("handover") == "latents":
        raise InputError("--handover", "latents", "must be frames or mp4", "nearest frames")
    if values.get("no_vlm") and values.get("prompt") is not None:
        raise InputError("--no_vlm", None, "not together with --prompt", "leave one of the two out")
    if values.get("no_vlm") and not values.get("custom_prompt", PREFIX).strip():
        fix = "say what the videos show"
        raise InputError("--custom_prompt", "", "must not be empty with --no_vlm", fix)


def _of_links(values: Mapping[str, Any], *, no_vlm: bool) -> dict[str, Any]:
    """Options of every link: those given, the task, and what there is for a prompt."""
    links = {name: value for name, value in values.items() if name not in (*OWN, "seed")}
    if no_vlm:
        links["prompt"] = links.get("custom_prompt", PREFIX)
        for name in ("custom_prompt", "vlm_path", "vlm_device"):
            links.pop(name, None)
    elif links.get("prompt") is None:
        links.setdefault("custom_prompt", PREFIX)
    return {**links, "task_type": _task(links)}


def _settings(chain: Chain, first: Plan) -> dict[str, Any]:
    """Return what must be equal for a chain to be resumed."""
    identity = first.identity
    models = {role: found.title for role, found in first.writers.items()}
    kept = {name: identity[name] for name in ("task", "weights", "inputs", "lora")}
    return {**kept, **identity["values"], **models, "handover": chain.handover}


def _task(values: Mapping[str, Any]) -> str:
    """Return the v2v task asked for, or that of the model."""
    if asked := values.get("task_type"):
        if asked not in V2V:
            find(asked)
            raise InputError("--task_type", asked, f"must be one of {', '.join(V2V)}", f"nearest {V2V[0]}")
        return asked
    model, problems = str(values["model_id"]), []
    layout = layouts.detect(Path(model).expanduser()) if Path(model).expanduser().is_dir() else None
    # The task whose folders look like this one first: what is wrong with it is said about that.
    for name in sorted(V2V, key=lambda name: layout not in TASKS[name].layouts):
        try:
            found = resolve.locate(model, values.get("revision"), TASKS[name])
        except (CheckpointError, InputError) as error:
            problems.append(error)
            continue
        if found.folder is not None or found.tiny or TASKS[name].model(model) is not None:
            return name
    if len(problems) == len(V2V):
        raise problems[0]
    raise InputError(
        "--task_type", None, f"cannot be told from {values['model_id']}", f"give {' or '.join(V2V)}"
    )


def _check_folder(folder: Path, policy: OverwritePolicy, locks: OutputLocks | None) -> files.Record | None:
    """Lock the folder of the chain and return the state of the chain in it; None if there is none.

    Raises:
        InputError: it cannot be used, or holds a chain and nothing was said about it.
    """
    check_writable("--output_dir", folder)
    if locks is not None:
        refuse_if_locked(locks, "--output_dir", folder / STATE, "chain")
        if policy.resume or policy.overwrite:
            publishing.finish_interrupted(OutputPaths(path=folder / "video_*.mp4", kind="mp4"))
    there = [path.name for path in folder.glob("video_*") if OURS.fullmatch(path.name)]
    if not there:  # nothing was finished
        return None
    state = sidecar.read_record(folder / STATE)
    if state is not None and not (isinstance(state.get("base_seed"), int) and "settings" in state):
        state = None
    if "{seed}" in str(folder) or "{index}" in str(folder):
        raise InputError("--output_dir", folder, "may not hold {seed} or {index}", "leave them out")
    if there and not (policy.overwrite or policy.resume):
        fix = "--resume goes on with it, --overwrite begins again"
        raise InputError("--output_dir", folder, "holds the files of a chain", fix)
    if there and policy.resume and state is None:
        what = f"has no readable {STATE}, so it is not known what its videos were made with"
        raise InputError("--resume", folder, what, "choose another --output_dir")
    return state


def _base_seed(asked: Sequence[int], num_videos: int, state: Mapping[str, Any] | None) -> int:
    """Link i has the seed base + i; drawn where none is given, and then kept."""
    if len(asked) > 1:
        raise InputError(
            "--base_seed", ",".join(map(str, asked)), "one for the whole chain", f"try {asked[0]}"
        )
    if not asked:
        return state["base_seed"] if state is not None else secrets.randbelow(2**32)
    if state is not None and asked[0] != state["base_seed"]:
        raise InputError("--base_seed", asked[0], f"the chain has {state['base_seed']}", "leave it out")
    if asked[0] + num_videos > MAX_SEED:
        raise InputError(
            "--base_seed", asked[0], "too large for the links' seeds", f"nearest {MAX_SEED - num_videos}"
        )
    return asked[0]


def run_chain(chain: Chain, first: Plan, *, as_json: bool = False) -> Iterator[str]:
    """Make the links one after the other; yields a line for each: its path, or its record as JSON.

    Models are loaded once. What is finished is kept; ``--resume`` goes on behind it.
    """
    from videogen.engine.session import Session, earlier_result, generate  # noqa: PLC0415 - torch, diffusers
    from videogen.runtime.parallel import init_communicator  # noqa: PLC0415

    chain.folder.mkdir(parents=True, exist_ok=True)
    session = Session(keep_writers=True, communicator=init_communicator(wanted=first.options.use_usp))
    done: list[Result] = []
    try:
        for index in range(1, chain.num_videos + 1):
            plan = session.fetch(first if index == 1 else chain.link(index, done[-1]))
            if index == 1:
                _save_state(chain, plan)
            result = earlier_result(plan) if chain.policy.resume else None
            if result is None:
                cli.logger.info("video %d of %d: seed %d", index, chain.num_videos, plan.seed)
                result = generate(session.with_prompt(plan), session, show_progress=cli.wants_bars())
            done.append(result)
            if index == 1 and chain.policy.overwrite:
                _remove_others(chain.folder, result)
            _save_log(chain.folder)
            yield _line(result.outputs.path, result.record, as_json=as_json)
        session.stop_workers()
    finally:
        session.close()
    if chain.concat:
        yield _line(_join(chain, done), {"links": len(done)}, as_json=as_json)


def _line(path: Path, record: Mapping[str, Any], *, as_json: bool) -> str:
    return json.dumps({"path": str(path), **record}) if as_json else str(path)


def _save_state(chain: Chain, first: Plan) -> None:
    settings = _settings(chain, first)
    content = {"schema": sidecar.SCHEMA, "base_seed": chain.base_seed, "settings": settings}
    files.write_json(chain.folder / STATE, content)


def _remove_others(folder: Path, first: "Result") -> None:
    """Remove what is left of the chain that is overwritten, once the new one has begun."""
    others = [path for path in folder.iterdir() if OURS.fullmatch(path.name) and path.name != STATE]
    others = [path for path in others if path not in first.outputs.paths]
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


def _join(chain: Chain, done: "Sequence[Result]") -> Path:
    """All links as one film, without the first frame of a link, which repeats the last before it."""
    from videogen.engine.generate import fit  # noqa: PLC0415
    from videogen.media.download import Fetcher  # noqa: PLC0415
    from videogen.media.video_reader import read_video  # noqa: PLC0415
    from videogen.media.video_writer import open_writer  # noqa: PLC0415

    videos = [read_video("video", str(result.outputs.path), Fetcher(folder=chain.workdir)) for result in done]
    size = (videos[0].width, videos[0].height)
    frames = sum(video.num_frames for video in videos) - len(videos) + 1
    target = chain.folder / FILM
    with open_writer(target, "mp4", size=size, fps=round(videos[0].fps), num_frames=frames) as film:
        for number, video in enumerate(videos):
            for index, frame in enumerate(video.frames()):
                if number == 0 or index > 0:
                    film.write(fit(frame[None], size))
        film.finish()
        return film.publish(may_replace=True)
