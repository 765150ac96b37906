"""A plan for programs and for people: what --dry_run prints."""

from dataclasses import asdict

from videogen.distributed import Degrees
from videogen.errors import brief
from videogen.planning.plan import Outline, Plan
from videogen.tasks.geometry import Shape
from videogen.tasks.step_caches import read_cache
from videogen.tasks.warnings import RATE_TOLERANCE

LISTED_SEGMENTS = 12
LISTED_LETTERS = 200  # of a prompt


def to_json(plan: Outline) -> dict[str, object]:
    """Return the plan for programs (--dry_run --json)."""
    shape, model = plan.shape, plan.checkpoint
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
        "request": plan.request,
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
        "memory_bytes": plan.memory_bytes,
        "memory_mode": plan.memory_mode,
        "output": plan.outputs.path.as_posix(),
        "plan_hash": plan.plan_hash if isinstance(plan, Plan) else None,
        "notes": list(plan.warnings),
    }


def describe(plan: Outline) -> str:
    """Return the plan for people (--dry_run)."""
    shape, model, degrees = plan.shape, plan.checkpoint, plan.facts.degrees
    where = "here" if model.folder else "to be built" if model.tiny else "to be downloaded"
    name = f"{model.name}@{model.revision}" if model.revision else model.name
    sizes = ", ".join(f"{part} {_amount(size)}" for part, size in model.sizes.items())
    cache = plan.options.cache
    skips = plan.facts.teacache or (cache is not None and read_cache(cache)[1] is not None)
    steps = f"{plan.forwards // shape.forwards_per_step} steps x {shape.forwards_per_step}"
    memory = ", ".join(
        f"{mode} {_amount(size)}" + " (chosen)" * (mode == plan.memory_mode)
        for mode, size in plan.memory_bytes.items()
    )
    rows = {
        "task": plan.task.name,
        "prompt": _prompt(plan),
        "model": f"{name} ({model.layout}, {where})",
        "files": sizes or ("tiny" if model.tiny else "sizes unknown until downloaded"),
        "video": f"{shape.width}x{shape.height}, {shape.num_frames} frames at {shape.fps} fps",
        "file": _file(plan) if shape.prepended else None,
        "rolls": _rolls(shape) if len(shape.rolls) > 1 else None,
        "latents": "x".join(map(str, shape.latent_shape)),
        "tokens": f"{shape.tokens} per forward",
        "ranks": _ranks(degrees) if degrees.size > 1 else None,
        "forwards": f"{plan.forwards} ({steps})" + (", fewer with the cache" if skips else ""),
        "seed": str(plan.seed),
        "memory": f"about {memory}" + (" on each GPU" if degrees.size > 1 else ""),
        "output": plan.outputs.path.as_posix(),
    }
    lines = [f"{name:<9} {value}" for name, value in rows.items() if value is not None]
    return "\n".join([*lines, *(f"note      {note}" for note in plan.warnings)])


def _prompt(plan: Outline) -> str:
    """Return what the video shows, cut where it is long, or who will say it."""
    options = plan.options
    if options.roll_prompts:
        return f"{len(options.roll_prompts)}, the first: {brief(options.roll_prompts[0], LISTED_LETTERS)}"
    if options.prompt is None:
        return "written by a model from the input video"
    longer = ", made longer by a model" if options.prompt_enhancer else ""
    return f"{brief(options.prompt, LISTED_LETTERS)}{longer}"


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


def _rolls(shape: Shape) -> str:
    """Return the frames of every segment; of many, the first and the last."""
    frames = [str(roll.num_frames or "0 (not shown)") for roll in shape.rolls]
    if len(frames) > LISTED_SEGMENTS:
        return f"{len(frames)} of {', '.join(frames[: LISTED_SEGMENTS - 2])}, ..., {frames[-1]} frames"
    return f"{', '.join(frames)} frames"


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size > 1e9 else f"{size / 1e6:.1f} MB"
