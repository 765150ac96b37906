"""SkyReels-V3: reference to video, extensions, and the talking avatar."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from videogen.errors import InputError
from videogen.media.inputs import AVATAR_FPS
from videogen.media.output_formats import WITH_SOUND, has_sound
from videogen.tasks.avatar_clips import TARGET_FRAMES, plan_clips
from videogen.tasks.families import wan
from videogen.tasks.geometry import SIZE_UNIT, TIME_STRIDE, Roll, Shape, floor_frames, latent_frames
from videogen.tasks.options import Options, Size
from videogen.tasks.sizes import Inputs, Picture, SizeTables, choose_num_frames, choose_size
from videogen.tasks.task_spec import Files, Layout, TaskSpec
from videogen.tasks.warnings import RATE_TOLERANCE, guidance_warnings

if TYPE_CHECKING:
    from videogen.media.video_reader import InputVideo


REFERENCE_SLOTS = 4  # the network always sees four reference frames; unused ones are zero
# Both extensions (spec skyreels_v3 sections 7 and 8).
EXTENSION_FPS = 24
LATENTS_PER_SECOND = 6
LONGEST_ROLL = 5  # seconds
CONDITION_FRAMES = 25
LATENT_UNIT = 8  # a roll's latent frames, condition included, are a multiple of it
SHOT_CONDITION_FRAMES = {2: 9, 3: 17, 4: 25, 5: 33}  # by seconds


def reference_to_video(options: Options, inputs: Inputs, tables: SizeTables) -> Shape:
    """Return the shape of the first reference; guidance takes three forwards (spec skyreels_v3 section 9)."""
    first = inputs["ref_imgs"][0]
    height, width = choose_size(options, tables, (first.width, first.height))
    frames = choose_num_frames(options, options.fps, REFERENCE_SLOTS)
    roll = Roll(latent_frames=latent_frames(frames), context_frames=REFERENCE_SLOTS, num_frames=frames)
    forwards = 3 if options.guided else 1
    return Shape(
        height=height,
        width=width,
        fps=options.fps,
        rolls=(roll,),
        forwards_per_step=forwards,
        encoded_frames=1,
    )


def talking_avatar(options: Options, inputs: Inputs, tables: SizeTables) -> Shape:
    """Return the portrait's shape, as long as the sound: a hidden segment, then those that are seen."""
    (image,), (audio,) = inputs["input_image"], inputs["input_audio"]
    height, width = choose_size(options, tables, (image.width, image.height))
    _check_ratio(image, height, width)
    motion, drop = options.motion_frame, options.drop_frame
    clip = choose_num_frames(Size(num_frames=options.num_frames), AVATAR_FPS)
    if motion + max(drop, TARGET_FRAMES) >= clip:
        ends = f"--drop_frame {drop}" if drop > TARGET_FRAMES else f"the {TARGET_FRAMES} that show the target"
        least = floor_frames(motion + max(drop, TARGET_FRAMES)) + TIME_STRIDE
        what = f"leaves nothing of a clip of {clip} frames beside {ends}"
        raise InputError("--motion_frame", motion, what, f"smaller ones, or --num_frames {least} at least")
    rows = min(options.max_frames_num, audio.num_frames)
    seen = [found.stop - found.first for found in plan_clips(rows, clip, motion=motion, drop=drop).clips]
    frames = [0, *seen] if seen else [rows]
    return Shape(
        height=height,
        width=width,
        fps=AVATAR_FPS,
        rolls=tuple(Roll(latent_frames=latent_frames(clip), num_frames=count) for count in frames),
        forwards_per_step=1 + options.guided + (options.guidance_scale_audio > 1),
        encoded_frames=clip,
    )


def _check_ratio(image: Picture, height: int, width: int) -> None:
    """Refuse a portrait of which more than half would be cut off."""
    ratio = (image.width / image.height) / (width / height)
    if max(ratio, 1 / ratio) > 2:
        what = f"is {image.width}x{image.height}, and more than half is cut off for {width}x{height}"
        raise InputError("--input_image", getattr(image, "name", None), what, "crop it")


def single_shot_extension(options: Options, inputs: Inputs, tables: SizeTables) -> Shape:
    """Return the source's shape, in segments of up to five seconds."""
    seconds = _seconds(options, range(1, 31))
    return _extension(options, inputs, tables, single_shot_rolls(seconds), CONDITION_FRAMES)


def shot_switching_extension(options: Options, inputs: Inputs, tables: SizeTables) -> Shape:
    """Return the source's shape, one segment of two to five seconds."""
    seconds = _seconds(options, SHOT_CONDITION_FRAMES)
    condition, frames = SHOT_CONDITION_FRAMES[seconds], EXTENSION_FPS * seconds + 1
    roll = Roll(
        latent_frames=latent_frames(frames), context_frames=latent_frames(condition), num_frames=frames
    )
    return _extension(options, inputs, tables, (roll,), condition)


def single_shot_rolls(seconds: int) -> tuple[Roll, ...]:
    """Return rolls whose latent frames, condition included, are multiples of eight.

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


def _seconds(options: Options, allowed: Sequence[int] | Mapping[int, int]) -> int:
    """Return whole seconds in the task's range."""
    given = options.duration or 0
    if given not in allowed:
        near = min(allowed, key=lambda seconds: abs(seconds - given))
        text = f"must be whole seconds from {min(allowed)} to {max(allowed)}"
        raise InputError("--duration", f"{given:g}", text, f"nearest {near}")
    return int(given)


def _extension(
    options: Options, inputs: Inputs, tables: SizeTables, rolls: tuple[Roll, ...], condition: int
) -> Shape:
    """Return the shape of either extension."""
    (source,) = inputs["input_video"]
    if min(source.width, source.height) < SIZE_UNIT:
        size = f"is {source.width}x{source.height} pixels, and {SIZE_UNIT}x{SIZE_UNIT} are the least"
        raise InputError("--input_video", source.name, size, "give a larger video")
    frames = source.count(source_fps=options.source_fps, fps=EXTENSION_FPS)
    if frames < condition:
        rated = "" if options.source_fps is None else f" at {EXTENSION_FPS} fps"
        what = f"has {frames} frames{rated}, and {condition} are needed to continue it"
        raise InputError("--input_video", source.name, what, "give a longer video")
    height, width = choose_size(options, tables, (source.width, source.height))
    whole = options.prepend_input
    return Shape(
        height=height,
        width=width,
        fps=EXTENSION_FPS,
        rolls=rolls,
        forwards_per_step=2 if options.guided else 1,
        prepended=frames if whole else 0,
        canvas=(source.width // 2 * 2, source.height // 2 * 2) if whole else None,
        encoded_frames=condition,
    )


def extension_warnings(options: Options, asked: Collection[str], inputs: Inputs) -> Iterator[str]:
    """Warn of missing guidance and of the source's frame rate; refuse sound that cannot be kept."""
    yield from guidance_warnings(options, asked, inputs)
    if options.handover == "mp4":
        raise InputError("--handover", "mp4", "is for generate_continuous.py", "nearest frames")
    (source,) = inputs["input_video"]
    if options.prepend_input and (source.width % 2 or source.height % 2):
        yield f"{source.name} is {source.width}x{source.height}; a film needs even sizes, so it loses a line"
    if options.keep_audio:
        _check_audio(options, source)
    if options.source_fps is None and abs(source.fps - EXTENSION_FPS) > RATE_TOLERANCE:
        yield (
            f"{source.name} has {source.fps:g} frames a second and is continued as if it had "
            f"{EXTENSION_FPS}, as published; --source_fps auto resamples it"
        )


def _check_audio(options: Options, source: "InputVideo") -> None:
    if not source.has_audio:
        raise InputError("--keep_audio", None, f"{source.name} has no sound", "leave it out")
    if options.output and not has_sound(options.output):
        what = f"only {', '.join(WITH_SOUND)} hold sound"
        raise InputError("--keep_audio", None, what, "give --output an .mp4")
    given = options.source_fps
    played = EXTENSION_FPS if given is None else given or source.fps
    if abs(source.fps - played) > RATE_TOLERANCE:
        what = f"the sound would not fit {source.fps:g} frames a second played as {played:g}"
        raise InputError("--keep_audio", None, what, "add --source_fps auto")


def avatar_warnings(options: Options, asked: Collection[str], inputs: Inputs) -> Iterator[str]:
    """Warn of sound that says nothing, and of a prompt that little follows from."""
    if not options.guided and "negative_prompt" in asked and options.negative_prompt:
        yield "--negative_prompt has no effect while --guidance_scale is 1 or less"
    (audio,) = inputs["input_audio"]
    if audio.silent:
        cancelled = ", or its channels cancel each other" if audio.channels > 1 else ""
        yield f"{audio.name} is silent{cancelled}; the portrait will hardly speak"
    if audio.num_frames > options.max_frames_num:
        yield f"{audio.name} lasts {audio.num_frames} frames, cut to {options.max_frames_num}"
    if options.output and not has_sound(options.output):
        yield f"only {', '.join(WITH_SOUND)} hold sound"
    if min(audio.num_frames, options.max_frames_num) < (options.num_frames or 0):
        if "connection_prompt" in asked:
            yield "--connection_prompt has no effect: there is but one clip, which follows --prompt"
    elif "connection_prompt" not in asked and options.prompt != options.connection_prompt:
        yield f"what is seen follows --connection_prompt '{options.connection_prompt}', as published"


TAKEN_OVER: dict[str, str] = {}
LAYOUTS = (
    Layout(
        name="SkyReels-V3 extension",
        markers=("shot_transformer",),
        shared_markers=("transformer",),
        places={**wan.PLACES, "transformer": "transformer/", "shot_transformer": "shot_transformer/"},
    ),
    Layout(
        name="SkyReels-V3 avatar",
        markers=("chinese-wav2vec2-base",),
        places={**wan.PLACES, "audio_encoder": "chinese-wav2vec2-base/"},
    ),
)
REFERENCE = TaskSpec(
    name="reference_to_video",
    family="SkyReels-V3",
    summary="a video of the subjects in 1-4 reference images",
    pipeline="videogen.pipelines.reference_to_video:ReferenceToVideoPipeline",
    layouts=("diffusers",),
    components=wan.COMPONENTS,
    tiny={"skyreels-v3-r2v": "skyreels-v3-r2v", "miniature": "miniature"},
    inputs={"ref_imgs": Files("image", 1, REFERENCE_SLOTS)},
    arguments=(
        *("prompt", "negative_prompt", "height", "width", "num_frames", "num_inference_steps"),
        *("shift", "sample_solver", "guidance_scale", "guidance_scale_img"),
    ),
    options=(*wan.SIZE_AND_LENGTH, *wan.TEACACHE),
    shape=reference_to_video,
    network=wan.TEXT_ONLY,
    warnings=guidance_warnings,
    memory=wan.MEMORY,
    text=wan.TEXT,
)
EXTENSION_ARGUMENTS = (
    *("prompt", "negative_prompt", "height", "width", "rolls", "num_inference_steps", "shift"),
    *("sample_solver", "guidance_scale", "source_fps", "color_match"),
)
EXTENSION = replace(
    REFERENCE,
    name="single_shot_extension",
    summary="a video goes on in the same shot, 1-30 s",
    pipeline="videogen.pipelines.single_shot_extension:SingleShotExtensionPipeline",
    layouts=("SkyReels-V3 extension", "diffusers"),
    tiny={"skyreels-v3-v2v": "skyreels-v3-v2v", "miniature": "miniature"},
    inputs={"input_video": Files("video", 1, 1)},
    helps={
        "handover": "what one segment passes to the next: 8-bit frames, as published, or latents "
        "(frames, latents)"
    },
    arguments=(*EXTENSION_ARGUMENTS, "handover"),
    options=("duration", "roll_prompts", "prepend_input", "keep_audio", *wan.TEACACHE),
    shape=single_shot_extension,
    warnings=extension_warnings,
)
TASKS = (
    REFERENCE,
    EXTENSION,
    replace(
        EXTENSION,
        name="shot_switching_extension",
        summary="a video goes on with a cut to another shot, 2-5 s",
        pipeline="videogen.pipelines.shot_switching_extension:ShotSwitchingExtensionPipeline",
        components=wan.COMPONENTS | {"transformer": "shot_transformer"},
        helps={},
        arguments=EXTENSION_ARGUMENTS,
        shape=shot_switching_extension,
    ),
    replace(
        REFERENCE,
        name="talking_avatar",
        summary="a portrait speaks",
        helps={
            "prompt": "what a hidden first clip shows, and the only one of a short video",
            "num_frames": "frames of a clip, 4k+1; the sound decides how many clips there are",
            "input_image": "the portrait",
            "input_audio": "the speech, 0.4 s or more: a sound file, or a video's sound",
        },
        pipeline="videogen.pipelines.talking_avatar:TalkingAvatarPipeline",
        layouts=("SkyReels-V3 avatar", "diffusers"),
        components=wan.COMPONENTS | {"image_encoder": "image_encoder", "audio_encoder": "audio_encoder"},
        tiny={"skyreels-v3-avatar": "skyreels-v3-avatar", "miniature": "miniature-with-image"},
        inputs={"input_image": Files("image", 1, 1), "input_audio": Files("audio", 1, 1)},
        arguments=(
            *("prompt", "negative_prompt", "height", "width", "num_inference_steps", "shift"),
            *("guidance_scale", "guidance_scale_audio", "connection_prompt", "motion_frame", "drop_frame"),
            *("max_frames_num", "clip_frames"),
        ),
        options=("num_frames", "audio_track"),
        shape=talking_avatar,
        network=replace(wan.WITH_IMAGE, audio=True),
        warnings=avatar_warnings,
    ),
)
