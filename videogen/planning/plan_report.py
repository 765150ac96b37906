"""A plan for programs and for people: what --dry_run prints."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from videogen.distributed import Degrees
from videogen.errors import brief
from videogen.planning.measured_rates import ExpectedTime
from videogen.planning.origins import Origin
from videogen.planning.plan import Outline, Plan
from videogen.planning.resources import Download, Resources, find_resources, ram_suggestions
from videogen.results.formatting import format_bytes, format_seconds
from videogen.tasks.geometry import Shape
from videogen.tasks.option import typed
from videogen.tasks.option_types import size
from videogen.tasks.options import OPTIONS
from videogen.tasks.step_caches import read_cache
from videogen.tasks.warnings import RATE_TOLERANCE

LISTED_SEGMENTS = 12
LISTED_LETTERS = 200  # of a prompt
MODES = {"plain": "without --offload", "offload": "with --offload", "low_vram": "with --low_vram"}


def to_json(plan: Outline) -> dict[str, object]:
    """Return the plan for programs (--dry_run --json)."""
    shape, model, (here,) = plan.shape, plan.checkpoint, find_resources([plan])
    width, height = shape.file_size
    return {
        "task_type": plan.task.name,
        "model": {
            "id": model.name,
            "revision": model.revision,
            "layout": model.layout,
            "present": model.folder is not None,
            "bytes": dict(model.sizes),
        },
        "download": here.download and {"bytes": here.download.size, "free_bytes": here.download.free},
        "request": plan.request,
        "origins": {name: _origin(plan, name) for name in plan.request},
        **{name: getattr(shape, name) for name in ("width", "height", "num_frames", "fps")},
        "file": {
            **{"width": width, "height": height},
            **{"num_frames": shape.file_frames, "prepended": shape.prepended},
        },
        "seconds": round(shape.num_frames / shape.fps, 3),
        "rolls": [asdict(roll) for roll in shape.rolls],
        "latent_shape": list(shape.latent_shape),
        "tokens": shape.tokens,
        "ranks": asdict(plan.facts.degrees),
        "forwards": plan.forwards,
        "expected": here.time and asdict(here.time),
        "memory_bytes": plan.memory_bytes,
        "memory_mode": plan.memory_mode,
        "ram_bytes": here.ram,
        "ram_available_bytes": here.ram_free,
        "output": plan.outputs.path.as_posix(),
        "plan_hash": plan.plan_hash if isinstance(plan, Plan) else None,
        "notes": list(plan.warnings),
    }


def describe(*plans: Outline, advice: bool = True) -> str:
    """Return plans for people (--dry_run): the first whole, of others what is not as there.

    ``advice`` says what other options would take, for whoever can set them.
    """
    resources = find_resources(plans)
    rows = [_rows(plan, here, advice=advice) for plan, here in zip(plans, resources, strict=True)]
    blocks = []
    for number, (plan, own) in enumerate(zip(plans, rows, strict=True), start=1):
        if number > 1:
            own = {name: value for name, value in own.items() if value != rows[0][name]}  # noqa: PLW2901
            blocks.append([f"{number} of {len(plans)}, as the first but for:"])
        else:
            blocks.append([])
        known = plans[0].warnings if number > 1 else ()
        blocks[-1] += [f"{name:<9} {value or 'none'}" for name, value in own.items() if value or number > 1]
        blocks[-1] += [f"note      {note}" for note in plan.warnings if note not in known]
    times = [here.time for here in resources if here.time]
    if len(times) == len(plans) > 1:
        blocks.append([f"total     {_total(times)}"])
    return "\n\n".join("\n".join(block) for block in blocks)


def _total(times: Sequence[ExpectedTime]) -> str:
    """Say how long several videos take; every model is loaded once."""
    loads = sum(time.rate.load for time in times)
    loads -= sum({time.rate.kind: time.rate.load for time in times}.values())
    least, most = (
        format_seconds(sum(each) - loads) for each in zip(*((t.least, t.most) for t in times), strict=True)
    )
    return f"{len(times)} videos, about {least if least == most else f'{least} to {most}'}"


def _rows(plan: Outline, here: Resources, *, advice: bool) -> dict[str, str | None]:
    """Return the lines of a plan by name; None for those that it has no use for."""
    shape, degrees = plan.shape, plan.facts.degrees
    cache = plan.options.cache
    skips = plan.facts.teacache or (cache is not None and read_cache(cache)[1] is not None)
    steps = f"{plan.num_steps} steps x {shape.forwards_per_step}"
    seconds = f"{shape.num_frames / shape.fps:.3g} s"
    length = f"{shape.num_frames} frames at {shape.fps} fps, {seconds}"
    return {
        "task": plan.task.name,
        "prompt": _prompt(plan),
        "model": _model(plan),
        "files": _files(plan, here.download),
        "lora": ", ".join(_lora_names(plan)) or None,
        "video": f"{shape.width}x{shape.height}, {length}; {_values(plan, 'video')}",
        "file": _file(plan) if shape.prepended else None,
        "segments": _segments(shape) if len(shape.rolls) > 1 else None,
        "sampling": _values(plan, "sampling"),
        "seed": f"{plan.seed} ({_origin(plan, 'seed')})",
        "forwards": f"{plan.forwards} ({steps})" + (", fewer with the cache" if skips else ""),
        "tokens": f"{shape.tokens} per forward, latents {'x'.join(map(str, shape.latent_shape))}",
        "ranks": _ranks(degrees) if degrees.size > 1 else None,
        "time": _time(here.time) if here.time else None,
        "memory": _memory(plan, advice=advice),
        "RAM": _ram(plan, here, advice=advice),
        "output": plan.outputs.path.as_posix(),
    }


def _origin(plan: Outline, name: str) -> Origin:
    """Return where the value of an option comes from."""
    if OPTIONS[name].drawn and not getattr(plan.options, name):
        return Origin.DRAWN
    return plan.origins.get(name, Origin.TASK_DEFAULT)


def _values(plan: Outline, row: str) -> str:
    """Return the options of a line with their values, and in brackets where those come from."""
    said: dict[Origin, list[str]] = {}
    for name, option in OPTIONS.items():
        value = getattr(plan.options, name, None)
        if option.plan_row == row and plan.task.uses(name) and value is not None and value is not False:
            text = typed(value) or ""
            text = text.replace(",", "*") if option.parse is size else text
            said.setdefault(_origin(plan, name), []).append(f"{name} {text}".rstrip())
    return "; ".join(f"{', '.join(values)} ({origin})" for origin, values in said.items())


def _model(plan: Outline) -> str:
    model = plan.checkpoint
    where = "here" if model.folder else "to be built" if model.tiny else "to be downloaded"
    name = f"{model.name}@{model.revision}" if model.revision else model.name
    return f"{name} ({model.layout}, {where}; {_origin(plan, 'model_id')})"


def _files(plan: Outline, download: Download | None) -> str:
    """Say what the model takes on disk, and whether there is room for what is not here yet."""
    parts = {**plan.checkpoint.sizes, **(download.prompt_models if download else {})}
    sizes = ", ".join(f"{part} {format_bytes(size)}" for part, size in parts.items() if size)
    if download is None:
        return sizes or "tiny"
    free = "" if download.free is None else f"{format_bytes(download.free)} free in "
    wanted = "sizes unknown" if download.size is None else f"{format_bytes(download.size)}"
    short = "" if download.fits else " (TOO LITTLE, set HF_HOME to a larger disk)"
    return f"{wanted} to download, {free}{download.folder}{short}; {sizes}".removesuffix("; ")


def _lora_names(plan: Outline) -> Iterator[str]:
    for lora in plan.options.lora:
        expert = f", {lora.expert} noise" if lora.expert else ""
        yield f"{lora.name} (scale {lora.scale:g}{expert})"


def _prompt(plan: Outline) -> str:
    """Return what the video shows, cut where it is long, or who will say it."""
    options = plan.options
    if options.roll_prompts:
        shown = [brief(text, LISTED_LETTERS) for text in options.roll_prompts]
        more = [f"and {len(shown) - LISTED_SEGMENTS} more"] if len(shown) > LISTED_SEGMENTS else []
        return f"\n{'':<10}".join([f"{len(shown)}, one for each segment:", *shown[:LISTED_SEGMENTS], *more])
    if options.prompt is None:
        return "written by a model from the input video"
    longer = ", made longer by a model" if options.prompt_enhancer else ""
    return f"{brief(options.prompt, LISTED_LETTERS)}{longer}"


def _time(time: ExpectedTime) -> str:
    """Say how long a video will take, and how that is known."""
    rate, least, most = time.rate, format_seconds(time.least), format_seconds(time.most)
    took = f"{rate.step:.3g} s a step"
    where = f"measured on {brief(rate.date)} at {brief(rate.size)} on {brief(rate.device)}"
    return f"about {least if least == most else f'{least} to {most}'}: {took}, {where}"


def _memory(plan: Outline, *, advice: bool) -> str:
    """Say what the GPU must have free, as the options are and, as advice, as they could be."""
    sizes = dict(plan.memory_bytes)
    mode = plan.memory_mode
    chosen = format_bytes(sizes.pop(mode, 0)) + ("" if mode == "plain" else f" {MODES[mode]}")
    each = "each GPU" if plan.facts.degrees.size > 1 else "the GPU"
    others = ", ".join(f"{format_bytes(size)} {MODES[name]}" for name, size in sizes.items() if advice)
    return f"about {chosen} on {each}; {others}".removesuffix("; ")


def _ram(plan: Outline, here: Resources, *, advice: bool) -> str:
    where = "on the CPU" if here.on_cpu else "beside the GPU's"
    free = "" if here.ram_free is None else f", {format_bytes(here.ram_free)} free"
    short = here.ram_free is not None and here.ram > here.ram_free
    tries = ": TOO LITTLE" if short else ""
    tries += f"; try {ram_suggestions(plan, on_cpu=here.on_cpu)}" if short and advice else ""
    each = " for each rank" if plan.facts.degrees.size > 1 else ""
    return f"about {format_bytes(here.ram)} {where}{each}{free}{tries}"


def _file(plan: Outline) -> str:
    """Say what the file holds, where that is more than what is made."""
    (source,), shape, options = plan.inputs["input_video"], plan.shape, plan.options
    width, height = shape.file_size
    how = f" (not {source.fps:g})" if abs(source.fps - shape.fps) > RATE_TOLERANCE else ""
    if options.source_fps is not None:
        how = f" (resampled from {options.source_fps or source.fps:g})"
    sound = ", with its sound" if options.keep_audio else ""
    frames = f"{shape.prepended} of {source.name} at {shape.fps} fps{how}{sound}, then the new ones"
    return f"{width}x{height}, {shape.file_frames} frames: {frames}"


def _ranks(degrees: Degrees) -> str:
    ways = {"branches": degrees.cfg, "Ulysses": degrees.ulysses, "Ring": degrees.ring}
    return f"{degrees.size}: " + " x ".join(f"{name} {count}" for name, count in ways.items() if count > 1)


def _segments(shape: Shape) -> str:
    """Return the frames of every segment; of many, the first and the last."""
    frames = [str(roll.num_frames or "0 (not shown)") for roll in shape.rolls]
    if len(frames) > LISTED_SEGMENTS:
        return f"{len(frames)} of {', '.join(frames[: LISTED_SEGMENTS - 2])}, ..., {frames[-1]} frames"
    return f"{', '.join(frames)} frames"
