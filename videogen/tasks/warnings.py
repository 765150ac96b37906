"""What a user should know about a plan, and what its options contradict: one function per kind of task.

(option values, those given explicitly, inputs) -> warnings, one line each.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from videogen.errors import InputError
from videogen.tasks.geometry import TIME_STRIDE, floor_frames
from videogen.tasks.sizes import EXTENSION_FPS, Inputs

if TYPE_CHECKING:
    from videogen.media.video_reader import InputVideo

RATE_TOLERANCE = 0.01  # frames a second
LAST_PLAIN = 192  # frames; spec hunyuan section 6
HIGHEST_ADDNOISE = 60  # of 1000; spec skyreels_v2 section 3


def guidance_notes(values: Mapping[str, Any], explicit: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """Options that have no effect without guidance."""
    del inputs
    if values["guidance_scale"] <= 1:
        for name in ("guidance_scale_img", "negative_prompt"):
            if explicit.get(name) not in (None, "", 1.0):
                yield f"--{name} has no effect while --guidance_scale is 1 or less"


def unguided_notes(values: Mapping[str, Any], explicit: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """The same for tasks that are unguided only at a scale of exactly 1."""
    if values["guidance_scale"] in (1, (1, 1)):
        yield from guidance_notes({**values, "guidance_scale": 1}, explicit, inputs)


def forcing_notes(values: Mapping[str, Any], explicit: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """Diffusion forcing: what the model was not made for, and how a source is taken."""
    yield from guidance_notes(values, explicit, inputs)
    if values["causal_attention"]:
        yield "--causal_attention: the released weights were not trained for it; expect worse video"
    if values["addnoise_condition"] > HIGHEST_ADDNOISE:
        yield f"--addnoise_condition above {HIGHEST_ADDNOISE} blurs the transition; 20 is published"
    for source in inputs["input_video"]:
        if (given := values.get("num_frames")) and given % TIME_STRIDE != 1:
            yield f"--num_frames {given} counts the overlap and is rounded down to {floor_frames(given)}"
        other_rate = abs(source.fps - values["fps"]) > RATE_TOLERANCE and "fps" not in explicit
        if not values["new_frames_only"] and other_rate:
            yield (
                f"{source.name} has {source.fps:g} frames a second and the file will have {values['fps']}, "
                "as published; --fps changes it"
            )


def extension_notes(values: Mapping[str, Any], explicit: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """Also: what happens to the source's frame rate, and whether its sound can be kept."""
    yield from guidance_notes(values, explicit, inputs)
    if values.get("handover") == "mp4":
        raise InputError("--handover", "mp4", "is for generate_continuous.py", "nearest frames")
    (source,) = inputs["input_video"]
    if values["prepend_input"] and (source.width % 2 or source.height % 2):
        yield f"{source.name} is {source.width}x{source.height}; a film needs even sizes, so it loses a line"
    if values["keep_audio"]:
        _check_audio(values, source)
    if values["source_fps"] is None and abs(source.fps - EXTENSION_FPS) > RATE_TOLERANCE:
        yield (
            f"{source.name} has {source.fps:g} frames a second and is continued as if it had "
            f"{EXTENSION_FPS}, as published; --source_fps auto resamples it"
        )


def _check_audio(values: Mapping[str, Any], source: "InputVideo") -> None:
    if not values["prepend_input"]:
        raise InputError("--keep_audio", None, "the new frames have no sound", "add --prepend_input")
    if not source.has_audio:
        raise InputError("--keep_audio", None, f"{source.name} has no sound", "leave it out")
    if values.get("output") and not values["output"].lower().endswith(".mp4"):
        raise InputError("--keep_audio", None, "only an .mp4 has sound", "give --output an .mp4")
    given = values["source_fps"]
    played = EXTENSION_FPS if given is None else given or source.fps
    if abs(source.fps - played) > RATE_TOLERANCE:
        what = f"the sound would not fit {source.fps:g} frames a second played as {played:g}"
        raise InputError("--keep_audio", None, what, "add --source_fps auto")


def hunyuan_notes(values: Mapping[str, Any], explicit: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """Also: positions that are for long videos."""
    yield from guidance_notes(values, explicit, inputs)
    if explicit.get("no_riflex") and (values.get("num_frames") or 0) <= LAST_PLAIN:
        yield f"--no_riflex has no effect on videos of {LAST_PLAIN} frames or less"


def concat_notes(values: Mapping[str, Any], explicit: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """Also: frames that are not shown."""
    yield from hunyuan_notes(values, explicit, inputs)
    yield "the first 4 frames stand for the image and are left out, as published"


def avatar_notes(values: Mapping[str, Any], explicit: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """Sound that says nothing, and a prompt that little follows from."""
    if values["guidance_scale"] <= 1 and explicit.get("negative_prompt"):
        yield "--negative_prompt has no effect while --guidance_scale is 1 or less"
    (audio,) = inputs["input_audio"]
    if audio.silent:
        cancelled = ", or its channels cancel each other" if audio.channels > 1 else ""
        yield f"{audio.name} is silent{cancelled}; the portrait will hardly speak"
    if audio.num_frames > values["max_frames_num"]:
        yield f"{audio.name} lasts {audio.num_frames} frames, cut to {values['max_frames_num']}"
    if (output := values.get("output")) and not output.lower().endswith(".mp4"):
        yield "only an .mp4 has sound"
    if min(audio.num_frames, values["max_frames_num"]) < values["num_frames"]:
        if "connection_prompt" in explicit:
            yield "--connection_prompt has no effect: there is but one clip, which follows --prompt"
    elif "connection_prompt" not in explicit:
        yield f"what is seen follows --connection_prompt '{values['connection_prompt']}', as published"
