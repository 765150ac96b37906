"""Speeds measured on this machine: what videos took, kept in the cache folder for the plans of the next ones.

A speed belongs to a GPU, a task, a model and the options that change it. Between sizes it is scaled only as
far as arithmetic holds: the time of a forward grows with the tokens at least linearly, and at most with their
square.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from videogen.files import Record, cache_root, parse_json, read_text, write_json
from videogen.planning.local_devices import cpu_name, gpu_names, is_on_cpu
from videogen.planning.plan import Outline
from videogen.results.run_summary import seconds_per_step
from videogen.tasks.options import OPTIONS

logger = logging.getLogger(__name__)

MAX_RATES = 200  # speeds that are kept, the newest first
LARGEST_FILE = 1_000_000  # bytes
MAX_TOKEN_RATIO = 2.0  # ratio of the tokens of two videos between which a speed is scaled
MAX_SECONDS = 1e8  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """What one video took.

    Args:
        device: name of the GPU, or of the CPU.
        settings: options that change the speed, where they are not the default, and how ranks share it.
        size: of the video, for people.
        pixels: of all its frames.
        step: seconds, one of the later steps.
        load: seconds until the model was loaded.
        other: seconds besides: text, VAE, writing, and what the first step takes longer.
    """

    device: str
    task: str
    model: str
    settings: Mapping[str, object]
    forwards_per_step: int
    tokens: int
    size: str
    pixels: int
    step: float
    load: float
    other: float
    date: str

    @property
    def key(self) -> tuple:
        """Return what it was measured for; a newer one for the same takes its place."""
        return (*self.kind, self.device, self.forwards_per_step, self.tokens, self.pixels)

    @property
    def kind(self) -> tuple:
        """Return what must be equal for it to say anything about another video."""
        return self.task, self.model, json.dumps(self.settings, sort_keys=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedTime:
    """Seconds that a video will take, the fewest and the most, and the measurement behind it."""

    least: float
    most: float
    rate: Rate


def expected_time(plan: Outline) -> ExpectedTime | None:
    """Return how long a video will take, if one like it was measured on this machine."""
    wanted, gpus = _rate(plan), gpu_names()
    on_cpu = is_on_cpu(plan.options.device)
    known = [
        rate
        for rate in read_rates()
        if rate.kind == wanted.kind
        and (rate.device == cpu_name() if on_cpu else _is_gpu(rate.device, gpus))
        and _scales(plan, rate, wanted)
    ]
    if not known:
        return None
    rate = min(known, key=lambda rate: abs(rate.tokens - wanted.tokens))  # of equal ones the newest
    tokens = wanted.tokens / rate.tokens
    steps = plan.num_steps * rate.step * wanted.forwards_per_step / rate.forwards_per_step
    rest = rate.load + rate.other * wanted.pixels / rate.pixels
    least, most = sorted((steps * tokens, steps * tokens**2))
    return ExpectedTime(least=least + rest, most=most + rest, rate=rate)


def _is_gpu(device: str, gpus: set[str]) -> bool:
    return device in gpus if gpus else not device.startswith("cpu")


def _scales(plan: Outline, rate: Rate, wanted: Rate) -> bool:
    """Return whether a speed tells that of another video."""
    if (rate.tokens, rate.forwards_per_step) == (wanted.tokens, wanted.forwards_per_step):
        return True
    options = plan.options  # forwards left out, and copies of weights, do not depend on the tokens
    irregular = options.teacache or options.cache or options.low_vram or plan.facts.degrees.size > 1
    return not irregular and 1 / MAX_TOKEN_RATIO <= wanted.tokens / rate.tokens <= MAX_TOKEN_RATIO


def _rate(plan: Outline) -> Rate:
    """Return the speed of a plan's video, before it is measured."""
    shape, options = plan.shape, plan.options
    changed = [option for option in OPTIONS.values() if option.sets_speed and plan.task.uses(option.name)]
    values = {option.name: (option, getattr(options, option.name)) for option in changed}
    settings = {
        name: option.record(value) for name, (option, value) in values.items() if value != option.default
    }
    settings |= {"loras": len(options.lora)} if options.lora else {}
    settings |= asdict(plan.facts.degrees) if plan.facts.degrees.size > 1 else {}
    return Rate(
        device="",
        task=plan.task.name,
        model=plan.checkpoint.name,
        settings=json.loads(json.dumps(settings, default=str)),
        forwards_per_step=shape.forwards_per_step,
        tokens=shape.tokens,
        size=f"{shape.width}x{shape.height}, {shape.num_frames} frames",
        pixels=shape.width * shape.height * shape.num_frames,
        step=0.0,
        load=0.0,
        other=0.0,
        date=time.strftime("%Y-%m-%d"),
    )


def store(plan: Outline, record: Record, *, loaded: bool) -> None:
    """Store the speed of a finished video; nothing of one that was resumed, whose steps are not all there.

    Args:
        record: of its result.
        loaded: whether its model was loaded for it; else an earlier video knows how long that takes.
    """
    seconds, steps = record["seconds"], record["step_seconds"]
    if len(steps) != plan.num_steps or not steps:
        return
    step = seconds_per_step(steps)
    name = record["device"]
    made = replace(
        _rate(plan),
        device=cpu_name() if name == "cpu" else name,
        step=round(step, 4),
        load=seconds["load"],
        other=round(max(0.0, seconds["total"] - seconds["load"] - step * len(steps)), 3),
    )
    earlier = read_rates()
    if not loaded:
        loads = [rate.load for rate in earlier if (rate.kind, rate.device) == (made.kind, made.device)]
        made = replace(made, load=max(loads[:1], default=0.0))
    kept = [made, *(rate for rate in earlier if rate.key != made.key)][:MAX_RATES]
    try:
        write_json(_file(), {"rates": [asdict(rate) for rate in kept]})
    except OSError as error:
        logger.debug("%s: not written (%s)", _file(), error)


def read_rates() -> list[Rate]:
    """Return the speeds on record, the newest first; none where the file cannot be read."""
    try:
        state = _file().stat()
    except OSError:
        return []
    return _parsed(_file(), state.st_mtime_ns, state.st_size)


@cache
def _parsed(file: Path, *_state: int) -> list[Rate]:
    return parse_rates(file)


def parse_rates(file: Path) -> list[Rate]:
    """Return the speeds in a file, as far as they can be read."""
    try:
        content = parse_json(read_text(file, LARGEST_FILE))
    except ValueError:  # TextError is one
        return []
    rows = content.get("rates") if isinstance(content, dict) else None
    return [rate for row in rows if (rate := _read(row))] if isinstance(rows, list) else []


def _read(row: object) -> Rate | None:
    try:
        rate = Rate(**row) if isinstance(row, dict) else None
    except TypeError:  # fields of another version
        return None
    if rate is None or not isinstance(rate.settings, dict):
        return None
    counts = (rate.forwards_per_step, rate.tokens, rate.pixels)
    whole = all(isinstance(count, int) and count > 0 for count in counts)
    times = (rate.step, rate.load, rate.other)
    real = all(isinstance(value, int | float) and 0 <= value < MAX_SECONDS for value in times)
    text = all(isinstance(value, str) for value in (rate.device, rate.task, rate.model, rate.size, rate.date))
    return rate if whole and real and text else None


def _file() -> Path:
    return cache_root() / "measured_rates.json"
