"""What each task's video will be: one function per task, (option values, inputs, size tables) -> Shape."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from videogen.errors import InputError
from videogen.media.audio import AVATAR_FPS
from videogen.tasks.avatar_clips import TARGET_FRAMES, plan_clips
from videogen.tasks.forcing_schedule import count_rows, segment_lengths
from videogen.tasks.geometry import (
    HUNYUAN_GRID,
    MAX_POSITIONS,
    SIZE_UNIT,
    TIME_STRIDE,
    WAN21_GRID,
    WAN22_GRID,
    Bucket,
    Grid,
    Roll,
    Shape,
    area_size,
    choose_num_frames,
    choose_size,
    covered_size,
    crop_size,
    floor_frames,
    latent_frames,
    not_4k1,
)

Inputs = Mapping[str, Sequence[Any]]
"""Input files of a request, opened and checked (InputImage, InputVideo), by the name of their flag."""
SizeTables = Mapping[str, Sequence[Bucket]]
"""Size classes of a model, by name."""

REFERENCE_SLOTS = 4  # the network always sees four reference frames; unused ones are zero

LANDSCAPE = (16, 9)  # width, height
OVERLAP = 17  # frames; published with diffusion forcing

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
    return Shape(
        height=height,
        width=width,
        fps=values["fps"],
        rolls=(roll,),
        forwards_per_step=forwards,
        encoded_frames=1,
    )


def text_to_video(values: Mapping[str, Any], inputs: Inputs, tables: SizeTables) -> Shape:
    """Landscape unless --size or --height --width say otherwise."""
    del inputs
    return _one_roll(values, tables, LANDSCAPE)


def image_to_video(values: Mapping[str, Any], inputs: Inputs, tables: SizeTables) -> Shape:
    """Landscape or portrait as the image is."""
    shape = _one_roll(values, tables, _orientation(inputs["input_image"]))
    return replace(shape, encoded_frames=shape.num_frames)


def wan22_image_to_video(values: Mapping[str, Any], inputs: Inputs, tables: SizeTables) -> Shape:
    """Wan2.2 A14B: --size and --resolution are areas, the ratio is the image's (spec wan22 section 4)."""
    shape = _one_roll(values, tables, LANDSCAPE, fit=area_size, source=_first_frame(inputs))
    return replace(shape, encoded_frames=shape.num_frames)


def wan22_5b_text_to_video(values: Mapping[str, Any], inputs: Inputs, tables: SizeTables) -> Shape:
    """Wan2.2 5B: as --size says."""
    del inputs
    return _one_roll(values, tables, LANDSCAPE, grid=WAN22_GRID)


def wan22_5b_image_to_video(values: Mapping[str, Any], inputs: Inputs, tables: SizeTables) -> Shape:
    """Wan2.2 5B: the same with the image's ratio."""
    source = _first_frame(inputs)
    shape = _one_roll(
        values, tables, LANDSCAPE, fit=covered_size, source=source, grid=WAN22_GRID, after_image=True
    )
    return replace(shape, encoded_frames=1)


def _first_frame(inputs: Inputs) -> Any:
    """What the first frame is: an image, or the last of a video."""
    return (*inputs.get("input_image", ()), *inputs.get("input_video", ()))[0]


def _one_roll(
    values: Mapping[str, Any],
    tables: SizeTables,
    orientation: tuple[int, int],
    *,
    fit: Callable[[int, int, int], tuple[int, int]] | None = None,
    source: Any = None,
    grid: Grid = WAN21_GRID,
    after_image: bool = False,
) -> Shape:
    """One roll; where ``fit`` is given, (area, width, height) -> size in the ratio of ``source``."""
    height, width = choose_size(values, tables, orientation, grid)
    if values.get("height") is not None:
        _check_unit(height, width, grid)
    elif fit is not None:
        height, width = _fitted(fit, height * width, source, grid)
    frames = choose_num_frames(values, values["fps"], after_image=after_image)
    roll = Roll(latent_frames=latent_frames(frames), num_frames=frames)
    paired = values.get("teacache") and not values["teacache_fixed"]  # it counts calls in pairs
    scale = values["guidance_scale"]
    forwards = 1 if scale in (1, (1, 1)) and not paired else 2
    return Shape(
        height=height, width=width, fps=values["fps"], rolls=(roll,), forwards_per_step=forwards, grid=grid
    )


def _check_unit(height: int, width: int, grid: Grid) -> None:
    for flag, pixels in (("--height", height), ("--width", width)):
        if pixels % grid.unit:
            near = max(grid.unit, round(pixels / grid.unit) * grid.unit)
            raise InputError(flag, pixels, f"must be a multiple of {grid.unit}", f"nearest {near}")


def _fitted(
    fit: Callable[[int, int, int], tuple[int, int]], area: int, source: Any, grid: Grid
) -> tuple[int, int]:
    try:
        height, width = fit(area, source.width, source.height)
    except ValueError:
        height = width = 0
    if min(height, width) < grid.unit or max(height, width) > MAX_POSITIONS * grid.unit:
        what = f"is {source.width}x{source.height}, too narrow for any size"
        raise InputError(
            "input image", getattr(source, "name", None), what, "crop it, or give --height --width"
        )
    return height, width


def _orientation(sources: Sequence[Any]) -> tuple[int, int]:
    """(width, height) of 16:9, upright where the source is higher than wide (spec skyreels_v2 section 1)."""
    upright = any(source.height > source.width for source in sources)
    return (LANDSCAPE[1], LANDSCAPE[0]) if upright else LANDSCAPE


def diffusion_forcing(values: Mapping[str, Any], inputs: Inputs, tables: SizeTables) -> Shape:
    """Segments of at most --base_num_frames (spec skyreels_v2 section 9)."""
    video, image, end = (inputs[name] for name in ("input_video", "input_image", "end_image"))
    _check_forcing_inputs(values, video, image, end)
    height, width = choose_size(values, tables, _orientation(video or image))
    if video and values.get("num_frames"):
        values = {**values, "num_frames": floor_frames(values["num_frames"])}
    frames = choose_num_frames(values, values["fps"], None)
    base, overlap = _check_window(values, frames, continued=bool(video))
    lengths = segment_lengths(latent_frames(frames), base, overlap, continued=bool(video))
    if not lengths:
        least = values["overlap_history"] + TIME_STRIDE
        what = f"counts the overlap of {values['overlap_history']} and leaves no new frame"
        raise InputError("--num_frames", frames, what, f"at least {least}")
    _check_blocks(values, lengths, overlap if video or len(lengths) > 1 else 0)
    rolls = []
    for index, length in enumerate(lengths):
        shared = overlap if video or index else 0
        known = shared // values["causal_block_size"] * values["causal_block_size"] or (1 if image else 0)
        if known >= length:
            what = "is the input image alone" if image else "leaves nothing to make"
            raise InputError("--num_frames", frames, what, f"at least {frames + TIME_STRIDE}")
        rows = count_rows(
            length,
            values["num_inference_steps"],
            ar_step=values["ar_step"],
            block=values["causal_block_size"],
            ready=known,
        )
        new = TIME_STRIDE * (length - shared) if shared else TIME_STRIDE * (length - 1) + 1
        seen_besides = len(end) if index == len(lengths) - 1 else 0
        rolls.append(Roll(latent_frames=length, context_frames=seen_besides, num_frames=new, steps=rows))
    return Shape(
        height=height,
        width=width,
        fps=values["fps"],
        rolls=tuple(rolls),
        forwards_per_step=2 if values["guidance_scale"] > 1 else 1,
        prepended=video[0].count() if video and not values["new_frames_only"] else 0,
        encoded_frames=_encoded_by_forcing(values, rolls, video=bool(video), image=bool(image)),
    )


def _encoded_by_forcing(values: Mapping[str, Any], rolls: Sequence[Roll], *, video: bool, image: bool) -> int:
    """Return the frames that are encoded in one piece: an overlap, or an image."""
    return values["overlap_history"] if video or len(rolls) > 1 else int(image)


def _check_forcing_inputs(
    values: Mapping[str, Any], video: Sequence[Any], image: Sequence[Any], end: Sequence[Any]
) -> None:
    if video and (image or end):
        flag = "--input_image" if image else "--end_image"
        raise InputError(flag, None, "not together with --input_video", "choose one of the two")
    if end and not image:
        raise InputError("--end_image", _name(end), "needs a start image", "add --input_image")
    if end and values["causal_attention"]:
        what = "no frame would see it with --causal_attention"
        raise InputError("--end_image", _name(end), what, "leave one of the two out")
    if values["new_frames_only"] and not video:
        raise InputError("--new_frames_only", None, "needs --input_video", "leave it out")
    overlap = values["overlap_history"]
    if not video:
        return
    if overlap is None:
        most = max(1, min(OVERLAP, values["base_num_frames"] - TIME_STRIDE, floor_frames(video[0].count())))
        fix = f"add --overlap_history {most}"
        raise InputError("--input_video", _name(video), "needs --overlap_history", fix)
    if (count := video[0].count()) < overlap:
        what = f"has {count} frames, fewer than --overlap_history {overlap}"
        fix = f"use --overlap_history {floor_frames(count)}" if count else "give a longer video"
        raise InputError("--input_video", _name(video), what, fix)


def _name(sources: Sequence[Any]) -> str | None:
    """Of an input file; what Python callers hand over may have none."""
    return getattr(sources[0], "name", None)


def _check_window(values: Mapping[str, Any], frames: int, *, continued: bool) -> tuple[int, int]:
    """(latent frames of a full segment, latent frames that segments share)."""
    base, overlap = values["base_num_frames"], values["overlap_history"]
    if base % TIME_STRIDE != 1:
        raise not_4k1("--base_num_frames", base)
    if overlap is not None and base == 1:
        raise InputError("--base_num_frames", base, "leaves nothing to make beside an overlap", "at least 5")
    if latent_frames(base) >= MAX_POSITIONS:
        most = TIME_STRIDE * (MAX_POSITIONS - 2) + 1
        raise InputError("--base_num_frames", base, f"at most {most}", f"nearest {most}")
    if overlap is not None and overlap % TIME_STRIDE != 1:
        raise not_4k1("--overlap_history", overlap)
    if overlap is not None and overlap >= base:
        what = f"must be less than --base_num_frames {base}"
        raise InputError("--overlap_history", overlap, what, f"nearest {base - TIME_STRIDE}")
    if overlap is None and not continued and frames > base:
        what = f"more than --base_num_frames {base} needs --overlap_history"
        flag = "--num_frames" if values.get("num_frames") else "--duration"
        given = frames if values.get("num_frames") else f"{values['duration']:g} ({frames} frames)"
        most = min(OVERLAP, base - TIME_STRIDE)
        share = f"add --overlap_history {most}, or " if most > 0 else ""
        raise InputError(flag, given, what, f"{share}nearest --num_frames {base}")
    return latent_frames(base), latent_frames(overlap) if overlap is not None else 0


def _check_blocks(values: Mapping[str, Any], lengths: Sequence[int], overlap: int) -> None:
    """Every segment, and at least one block of what segments share, must be whole blocks."""
    block, common = values["causal_block_size"], math.gcd(*lengths)
    if common % block:
        sizes = [size for size in range(1, common + 1) if common % size == 0]
        latents = " and ".join(str(length) for length in sorted(set(lengths)))
        what = f"does not divide the segments of {latents} latent frames"
        near = min(sizes, key=lambda size: abs(size - block))
        fix = f"sizes that do: {', '.join(map(str, sizes))}; nearest {near}"
        raise InputError("--causal_block_size", block, what, fix)
    if 0 < overlap < block:
        least = TIME_STRIDE * (block - 1) + 1
        what = f"holds no whole block of {block} latent frames"
        raise InputError("--overlap_history", values["overlap_history"], what, f"at least {least}")


def talking_avatar(values: Mapping[str, Any], inputs: Inputs, tables: SizeTables) -> Shape:
    """Size from the portrait, length from the sound: a hidden clip, then those that are seen."""
    (image,), (audio,) = inputs["input_image"], inputs["input_audio"]
    height, width = choose_size(values, tables, (image.width, image.height))
    _check_ratio(image, height, width)
    clip, motion, drop = (values[name] for name in ("num_frames", "motion_frame", "drop_frame"))
    choose_num_frames({"num_frames": clip}, AVATAR_FPS)
    if motion + max(drop, TARGET_FRAMES) >= clip:
        ends = f"--drop_frame {drop}" if drop > TARGET_FRAMES else f"the {TARGET_FRAMES} that show the target"
        least = floor_frames(motion + max(drop, TARGET_FRAMES)) + TIME_STRIDE
        what = f"leaves nothing of a clip of {clip} frames beside {ends}"
        raise InputError("--motion_frame", motion, what, f"smaller ones, or --num_frames {least} at least")
    rows = min(values["max_frames_num"], audio.num_frames)
    seen = [found.stop - found.first for found in plan_clips(rows, clip, motion=motion, drop=drop).clips]
    frames = [0, *seen] if seen else [rows]
    return Shape(
        height=height,
        width=width,
        fps=AVATAR_FPS,
        rolls=tuple(Roll(latent_frames=latent_frames(clip), num_frames=count) for count in frames),
        forwards_per_step=1 + (values["guidance_scale"] > 1) + (values["guidance_scale_audio"] > 1),
        encoded_frames=clip,
    )


def hunyuan_token_replace(values: Mapping[str, Any], inputs: Inputs, tables: SizeTables) -> Shape:
    """HunyuanVideo-I2V whose first latent frame is the image (spec hunyuan section 3)."""
    return _hunyuan(values, inputs, tables, dropped=0)


def hunyuan_latent_concat(values: Mapping[str, Any], inputs: Inputs, tables: SizeTables) -> Shape:
    """HunyuanVideo-I2V with the image beside the noise: what becomes of its latent frame is not shown."""
    return _hunyuan(values, inputs, tables, dropped=TIME_STRIDE)


def _hunyuan(values: Mapping[str, Any], inputs: Inputs, tables: SizeTables, *, dropped: int) -> Shape:
    (image,) = inputs["input_image"]
    source = (image.width, image.height)
    height, width = choose_size(values, tables, source, HUNYUAN_GRID, crop_size)
    _check_unit(height, width, HUNYUAN_GRID)
    frames = choose_num_frames(values, values["fps"], after_image=True)
    return Shape(
        height=height,
        width=width,
        fps=values["fps"],
        rolls=(Roll(latent_frames=latent_frames(frames), num_frames=frames - dropped),),
        forwards_per_step=2 if values["guidance_scale"] > 1 else 1,
        grid=HUNYUAN_GRID,
        encoded_frames=1,
        known_first=not dropped,
    )


def _check_ratio(image: Any, height: int, width: int) -> None:
    """Refuse a portrait of which more than half would be cut off."""
    ratio = (image.width / image.height) / (width / height)
    if max(ratio, 1 / ratio) > 2:
        what = f"is {image.width}x{image.height}, and more than half is cut off for {width}x{height}"
        raise InputError("--input_image", getattr(image, "name", None), what, "crop it")


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
        encoded_frames=condition,
    )
