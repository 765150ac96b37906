"""What each task's video will be: one function per task, (option values, inputs, size tables) -> Shape."""

from collections.abc import Mapping, Sequence
from typing import Any

from videogen.errors import InputError
from videogen.geometry import (
    SIZE_UNIT,
    Bucket,
    Roll,
    Shape,
    choose_num_frames,
    choose_size,
    latent_frames,
)

Inputs = Mapping[str, Sequence[Any]]
"""Input files of a request, opened and checked (InputImage, InputVideo), by the name of their flag."""
SizeTables = Mapping[str, Sequence[Bucket]]
"""Size classes of a model, by name."""

REFERENCE_SLOTS = 4  # the network always sees four reference frames; unused ones are zero

# Both extensions (spec skyreels_v3 sections 7 and 8).
EXTENSION_FPS = 24
LATENTS_PER_SECOND = 6
LONGEST_ROLL = 5  # seconds
CONDITION_FRAMES = 25
LATENT_UNIT = 8  # a roll's latent frames, condition included, are a multiple of it
SHOT_CONDITION_FRAMES = {2: 9, 3: 17, 4: 25, 5: 33}  # by seconds


def reference_to_video(values: Mapping[str, Any], inputs: Inputs, tables: SizeTables) -> Shape:
    """Size from the first reference; three forwards per step with guidance (spec skyreels_v3 section 9)."""
    first = inputs["ref_imgs"][0]
    height, width = choose_size(values, tables, (first.width, first.height))
    frames = choose_num_frames(values, values["fps"], REFERENCE_SLOTS)
    roll = Roll(latent_frames=latent_frames(frames), context_frames=REFERENCE_SLOTS, num_frames=frames)
    forwards = 3 if values["guidance_scale"] > 1 else 1
    return Shape(height=height, width=width, fps=values["fps"], rolls=(roll,), forwards_per_step=forwards)


def single_shot_extension(values: Mapping[str, Any], inputs: Inputs, tables: SizeTables) -> Shape:
    """Size from the source; rolls of up to five seconds."""
    seconds = _seconds(values, range(1, 31))
    return _extension(values, inputs, tables, single_shot_rolls(seconds), CONDITION_FRAMES)


def shot_switching_extension(values: Mapping[str, Any], inputs: Inputs, tables: SizeTables) -> Shape:
    """Size from the source; one roll of two to five seconds."""
    seconds = _seconds(values, SHOT_CONDITION_FRAMES)
    condition, frames = SHOT_CONDITION_FRAMES[seconds], EXTENSION_FPS * seconds + 1
    roll = Roll(
        latent_frames=latent_frames(frames), context_frames=latent_frames(condition), num_frames=frames
    )
    return _extension(values, inputs, tables, (roll,), condition)


def single_shot_rolls(seconds: int) -> tuple[Roll, ...]:
    """Rolls whose latent frames, condition included, are multiples of eight.

    What a roll makes beyond its seconds to get there, later ones give back (spec skyreels_v3 section 7).
    """
    condition, surplus, rolls = latent_frames(CONDITION_FRAMES), 0, []
    for start in range(0, seconds, LONGEST_ROLL):
        latents = LATENTS_PER_SECOND * min(LONGEST_ROLL, seconds - start)
        beyond = (latents + condition) % LATENT_UNIT
        change = LATENT_UNIT - beyond if beyond > surplus else -beyond
        latents, surplus = latents + change, surplus + change
        rolls.append(Roll(latent_frames=latents, context_frames=condition, num_frames=4 * latents))
    return tuple(rolls)


def _seconds(values: Mapping[str, Any], allowed: Sequence[int] | Mapping[int, int]) -> int:
    """Whole seconds in the task's range."""
    given = values["duration"]
    if given not in allowed:
        near = min(allowed, key=lambda seconds: abs(seconds - given))
        text = f"must be whole seconds from {min(allowed)} to {max(allowed)}"
        raise InputError("--duration", f"{given:g}", text, f"nearest {near}")
    return int(given)


def _extension(
    values: Mapping[str, Any], inputs: Inputs, tables: SizeTables, rolls: tuple[Roll, ...], condition: int
) -> Shape:
    """What both extensions have in common."""
    (source,) = inputs["input_video"]
    if min(source.width, source.height) < SIZE_UNIT:
        size = f"is {source.width}x{source.height} pixels, and {SIZE_UNIT}x{SIZE_UNIT} are the least"
        raise InputError("--input_video", source.name, size, "give a larger video")
    frames = source.count(source_fps=values["source_fps"], fps=EXTENSION_FPS)
    if frames < condition:
        rated = "" if values["source_fps"] is None else f" at {EXTENSION_FPS} fps"
        what = f"has {frames} frames{rated}, and {condition} are needed to continue it"
        raise InputError("--input_video", source.name, what, "give a longer video")
    height, width = choose_size(values, tables, (source.width, source.height))
    whole = values["prepend_input"]
    return Shape(
        height=height,
        width=width,
        fps=EXTENSION_FPS,
        rolls=rolls,
        forwards_per_step=2 if values["guidance_scale"] > 1 else 1,
        prepended=frames if whole else 0,
        canvas=(source.width // 2 * 2, source.height // 2 * 2) if whole else None,
    )
