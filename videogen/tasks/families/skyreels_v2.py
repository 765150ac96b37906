"""SkyReels-V2: text and image to video, and diffusion forcing."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from videogen.errors import InputError
from videogen.tasks.families import wan
from videogen.tasks.forcing_schedule import count_rows, segment_lengths
from videogen.tasks.geometry import MAX_POSITIONS, TIME_STRIDE, Roll, Shape, floor_frames, latent_frames
from videogen.tasks.options import Options
from videogen.tasks.sizes import Inputs, SizeTables, choose_num_frames, choose_size, not_4k1
from videogen.tasks.task_spec import DiffusersClasses, Files, Layout, TaskSpec
from videogen.tasks.warnings import RATE_TOLERANCE, guidance_warnings, unguided_warnings

if TYPE_CHECKING:
    from videogen.media.video_reader import InputVideo

HIGHEST_ADDNOISE = 60  # of 1000; spec skyreels_v2 section 3
OVERLAP = 17  # frames; published with diffusion forcing
LONGEST_BASE = 121  # frames of a segment; recommended for 720P


def image_to_video(options: Options, inputs: Inputs, tables: SizeTables) -> Shape:
    """Return a shape that is landscape or portrait as the image is."""
    shape = wan.one_roll(options, tables, wan.orientation_of(inputs["input_image"]))
    return replace(shape, encoded_frames=shape.num_frames)


def diffusion_forcing(options: Options, inputs: Inputs, tables: SizeTables) -> Shape:
    """Return a shape of segments of at most --base_num_frames (spec skyreels_v2 section 9)."""
    video, image, end = (inputs[name] for name in ("input_video", "input_image", "end_image"))
    _check_forcing_inputs(options, video, image, end)
    height, width = choose_size(options, tables, wan.orientation_of(video or image))
    if video and options.num_frames:
        options = options.replace(num_frames=floor_frames(options.num_frames))
    frames = choose_num_frames(options, options.fps, None)
    base, overlap = _check_window(options, frames, continued=bool(video))
    lengths = segment_lengths(latent_frames(frames), base, overlap, continued=bool(video))
    if not lengths:
        least = (options.overlap_history or 0) + TIME_STRIDE
        what = f"counts the overlap of {options.overlap_history} and leaves no new frame"
        raise InputError("--num_frames", frames, what, f"at least {least}")
    _check_blocks(options, lengths, overlap if video or len(lengths) > 1 else 0)
    rolls = []
    for index, length in enumerate(lengths):
        shared = overlap if video or index else 0
        known = shared // options.causal_block_size * options.causal_block_size or (1 if image else 0)
        if known >= length:
            what = "is the input image alone" if image else "leaves nothing to make"
            raise InputError("--num_frames", frames, what, f"at least {frames + TIME_STRIDE}")
        rows = count_rows(
            length,
            options.num_inference_steps,
            ar_step=options.ar_step,
            block=options.causal_block_size,
            ready=known,
        )
        new = TIME_STRIDE * (length - shared) if shared else TIME_STRIDE * (length - 1) + 1
        seen_besides = len(end) if index == len(lengths) - 1 else 0
        rolls.append(Roll(latent_frames=length, context_frames=seen_besides, num_frames=new, steps=rows))
    return Shape(
        height=height,
        width=width,
        fps=options.fps,
        rolls=tuple(rolls),
        forwards_per_step=2 if options.guided else 1,
        prepended=video[0].count() if video and not options.new_frames_only else 0,
        encoded_frames=(options.overlap_history or 0) if video or len(rolls) > 1 else len(image),
    )


def _check_forcing_inputs(
    options: Options, video: Sequence["InputVideo"], image: Sequence[object], end: Sequence[object]
) -> None:
    if video and (image or end):
        flag = "--input_image" if image else "--end_image"
        raise InputError(flag, None, "not together with --input_video", "choose one of the two")
    if end and not image:
        raise InputError("--end_image", _name(end), "needs a start image", "add --input_image")
    if end and options.causal_attention:
        what = "no frame would see it with --causal_attention"
        raise InputError("--end_image", _name(end), what, "leave one of the two out")
    overlap = options.overlap_history
    if not video:
        return
    if overlap is None:
        most = max(1, min(OVERLAP, options.base_num_frames - TIME_STRIDE, floor_frames(video[0].count())))
        fix = f"add --overlap_history {most}"
        raise InputError("--input_video", _name(video), "needs --overlap_history", fix)
    if (count := video[0].count()) < overlap:
        what = f"has {count} frames, fewer than --overlap_history {overlap}"
        fix = f"use --overlap_history {floor_frames(count)}" if count else "give a longer video"
        raise InputError("--input_video", _name(video), what, fix)


def _name(sources: Sequence[object]) -> str | None:
    """Return an input file's name; what Python callers give may have none."""
    return getattr(sources[0], "name", None)


def _check_window(options: Options, frames: int, *, continued: bool) -> tuple[int, int]:
    """Return (latent frames of a full segment, latent frames that segments share)."""
    base, overlap = options.base_num_frames, options.overlap_history
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
        flag = "--num_frames" if options.num_frames else "--duration"
        given = frames if options.num_frames else f"{options.duration:g} ({frames} frames)"
        most = min(OVERLAP, base - TIME_STRIDE)
        share = f"add --overlap_history {most}, or " if most > 0 else ""
        whole = (
            f"--base_num_frames {frames} (published for 720P), or " if base < frames <= LONGEST_BASE else ""
        )
        raise InputError(flag, given, what, f"{share}{whole}nearest --num_frames {base}")
    return latent_frames(base), latent_frames(overlap) if overlap is not None else 0


def _check_blocks(options: Options, lengths: Sequence[int], overlap: int) -> None:
    """Refuse blocks that do not divide every segment, or that are longer than what segments share."""
    block, common = options.causal_block_size, math.gcd(*lengths)
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
        raise InputError("--overlap_history", options.overlap_history, what, f"at least {least}")


def forcing_warnings(options: Options, asked: Collection[str], inputs: Inputs) -> Iterator[str]:
    """Warn of what the model was not made for, and say how a source is taken."""
    yield from guidance_warnings(options, asked, inputs)
    if options.causal_attention:
        yield "--causal_attention: the released weights were not trained for it; expect worse video"
    if options.addnoise_condition > HIGHEST_ADDNOISE:
        yield f"--addnoise_condition above {HIGHEST_ADDNOISE} blurs the transition; 20 is published"
    for source in inputs["input_video"]:
        if (given := options.num_frames) and given % TIME_STRIDE != 1:
            yield f"--num_frames {given} counts the overlap and is rounded down to {floor_frames(given)}"
        other_rate = abs(source.fps - options.fps) > RATE_TOLERANCE and "fps" not in asked
        if not options.new_frames_only and other_rate:
            yield (
                f"{source.name} has {source.fps:g} frames a second and the file will have {options.fps}, "
                "as published; --fps changes it"
            )


TRANSFORMER = "SkyReelsV2Transformer3DModel"
TAKEN_OVER = {TRANSFORMER: "transformer"}
LAYOUTS = (
    Layout(name="SkyReels-V2", shared_markers=("Wan2.1_VAE.pth", "config.json"), places=wan.PLACES),
    wan.MINIATURE_WITH_IMAGE,
)
V2_OPTIONS = (*wan.SIZE_AND_LENGTH, *wan.TEACACHE, "teacache_fixed", "prompt_enhancer", "vlm_device")
TEXT_TO_VIDEO = TaskSpec(
    name="text_to_video",
    family="SkyReels-V2",
    summary="a video from a text",
    pipeline="videogen.pipelines.text_to_video:TextToVideoPipeline",
    layouts=("SkyReels-V2", "diffusers"),
    components=wan.COMPONENTS,
    tiny={"skyreels-v2-t2v": "skyreels-v2-t2v", "miniature": "miniature"},
    arguments=wan.ARGUMENTS,
    options=V2_OPTIONS,
    shape=wan.text_to_video,
    network=replace(wan.TEXT_ONLY, fps=False),
    warnings=unguided_warnings,
    memory=wan.MEMORY,
    text=wan.TEXT,
    diffusers=DiffusersClasses("SkyReelsV2Pipeline", TRANSFORMER),
)
TASKS = (
    TEXT_TO_VIDEO,
    replace(
        TEXT_TO_VIDEO,
        name="image_to_video",
        summary="a video that begins with an image",
        pipeline="videogen.pipelines.image_to_video:ImageToVideoPipeline",
        components=wan.COMPONENTS | {"image_encoder": "image_encoder"},
        tiny={"skyreels-v2-i2v": "skyreels-v2-i2v", "miniature": "miniature-with-image"},
        inputs={"input_image": Files("image", 1, 1), "end_image": Files("image", 0, 1, from_python=True)},
        shape=image_to_video,
        network=wan.WITH_IMAGE,
        diffusers=DiffusersClasses("SkyReelsV2ImageToVideoPipeline", TRANSFORMER),
    ),
    replace(
        TEXT_TO_VIDEO,
        name="diffusion_forcing",
        summary="a long video from a text, an image, two images or a video",
        helps={
            "prompt": "what the video shows; not needed with --roll_prompts or --captioner",
            "fps": "frames per second of the file; the model is told",
            "end_image": "what comes right after the last frame, with --input_image",
            "vlm_path": "model that describes the input video, with --captioner "
            "(default Skywork/SkyCaptioner-V1)",
        },
        pipeline="videogen.pipelines.diffusion_forcing:DiffusionForcingPipeline",
        tiny={"skyreels-v2-df": "skyreels-v2-df", "miniature": "miniature"},
        inputs={
            "input_image": Files("image", 0, 1),
            "end_image": Files("image", 0, 1),
            "input_video": Files("video", 0, 1),
        },
        arguments=(
            *("prompt", "negative_prompt", "height", "width", "rolls", "fps", "num_inference_steps", "shift"),
            *("sample_solver", "guidance_scale", "ar_step", "causal_block_size", "causal_attention"),
            *("base_num_frames", "overlap_history", "addnoise_condition"),
        ),
        options=(
            *V2_OPTIONS,
            *("num_frames", "roll_prompts", "captioner", "vlm_path", "new_frames_only"),
        ),
        shape=diffusion_forcing,
        network=wan.TEXT_ONLY,
        warnings=forcing_warnings,
        diffusers=DiffusersClasses("SkyReelsV2DiffusionForcingPipeline", TRANSFORMER),
    ),
)
