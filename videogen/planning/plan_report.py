"""A plan for programs and for people: what --dry_run prints."""

from dataclasses import asdict
from typing import Any

from videogen.distributed import Degrees
from videogen.planning.option_rules import is_calibration
from videogen.planning.plan import Outline, Plan
from videogen.tasks.geometry import Shape
from videogen.tasks.warnings import RATE_TOLERANCE

LISTED_ROLLS = 12


def to_json(plan: Outline) -> dict[str, Any]:
    """Return the plan for programs (--dry_run --json)."""
    shape, memory = plan.shape, plan.facts.memory
    return {
        "task_type": plan.task.name,
        "model": {
            "id": plan.checkpoint.name,
            "revision": plan.checkpoint.revision,
            "layout": plan.checkpoint.layout,
            "present": plan.checkpoint.folder is not None,
            "bytes": dict(plan.checkpoint.sizes),
        },
        "request": plan.request,
        "width": shape.width,
        "height": shape.height,
        "num_frames": shape.num_frames,
        "fps": shape.fps,
        "file": {
            "width": shape.file_size[0],
            "height": shape.file_size[1],
            "num_frames": shape.file_frames,
            "prepended": shape.prepended,
        },
        "seconds": round(shape.num_frames / shape.fps, 3),
        "rolls": [asdict(roll) for roll in shape.rolls],
        "latent_shape": list(shape.latent_shape),
        "tokens": shape.tokens,
        "ranks": asdict(plan.facts.degrees),
        "forwards": plan.forwards,
        "memory_bytes": {
            "plain": memory.peak(tiled=plan.tiled),
            "offload": memory.peak(offload=True, tiled=plan.tiled),
            **({} if plan.facts.degrees.size > 1 else {"low_vram": memory.peak(low_vram=True)}),
        },
        "memory_mode": plan.memory_mode,
        "output": plan.outputs.path.as_posix(),
        "plan_hash": plan.plan_hash if isinstance(plan, Plan) else None,
        "notes": list(plan.warnings),
    }


def _file(plan: Outline) -> str:
    """Say what the file holds, where that is more than what is made."""
    (source,), shape = plan.inputs["input_video"], plan.shape
    width, height = shape.file_size
    rate = plan.options.source_fps
    how = f" (not {source.fps:g})" if abs(source.fps - shape.fps) > RATE_TOLERANCE else ""
    if rate is not None:
        how = f" (resampled from {rate or source.fps:g})"
    sound = ", with its sound" if plan.options.keep_audio else ""
    return (
        f"{width}x{height}, {shape.file_frames} frames: {shape.prepended} of {source.name} "
        f"at {shape.fps} fps{how}{sound}, then the new ones"
    )


def describe(plan: Outline) -> str:
    """Return the plan for people (--dry_run)."""
    content, shape, model = to_json(plan), plan.shape, plan.checkpoint
    where = "here" if model.folder else "to be built" if model.tiny else "to be downloaded"
    name = f"{model.name}@{model.revision}" if model.revision else model.name
    sizes = ", ".join(f"{part} {_amount(size)}" for part, size in model.sizes.items())
    skips = plan.options.cache and not is_calibration(plan.options.cache)
    steps = f"{plan.forwards // shape.forwards_per_step} steps x {shape.forwards_per_step}"
    memory = ", ".join(
        f"{mode} {_amount(size)}" + " (chosen)" * (mode == plan.memory_mode)
        for mode, size in content["memory_bytes"].items()
    )
    rows = {
        "task": plan.task.name,
        "model": f"{name} ({model.layout}, {where})",
        "files": sizes or ("tiny" if model.tiny else "sizes unknown until downloaded"),
        "video": f"{shape.width}x{shape.height}, {shape.num_frames} frames at {shape.fps} fps",
        **({"file": _file(plan)} if shape.prepended else {}),
        **({"rolls": _rolls(shape)} if len(shape.rolls) > 1 else {}),
        "latents": "x".join(map(str, shape.latent_shape)),
        "tokens": f"{shape.tokens} per forward",
        **({"ranks": _ranks(plan.facts.degrees)} if plan.facts.degrees.size > 1 else {}),
        "forwards": f"{plan.forwards} ({steps})"
        + (", fewer with the cache" if plan.facts.teacache or skips else ""),
        "seed": str(plan.seed),
        "memory": f"about {memory}" + (" on each GPU" if plan.facts.degrees.size > 1 else ""),
        "output": content["output"],
    }
    lines = [f"{name:<9} {value}" for name, value in rows.items()]
    return "\n".join([*lines, *(f"note      {note}" for note in plan.warnings)])


def _ranks(degrees: Degrees) -> str:
    ways = {"branches": degrees.cfg, "Ulysses": degrees.ulysses, "Ring": degrees.ring}
    return f"{degrees.size}: " + " x ".join(f"{name} {count}" for name, count in ways.items() if count > 1)


def _rolls(shape: Shape) -> str:
    """Frames of every roll; of many, the first and the last."""
    frames = [str(roll.num_frames or "0 (not shown)") for roll in shape.rolls]
    if len(frames) > LISTED_ROLLS:
        return f"{len(frames)} of {', '.join(frames[: LISTED_ROLLS - 2])}, ..., {frames[-1]} frames"
    return f"{', '.join(frames)} frames"


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size > 1e9 else f"{size / 1e6:.1f} MB"
