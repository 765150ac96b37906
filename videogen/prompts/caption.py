"""Structural captions of videos, field by field, and captions in prose. Spec skyreels_v2 section 11."""

import json
import random
from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from videogen.errors import VideoGenError, brief
from videogen.prompts.chat import Chat
from videogen.prompts.questions import Question
from videogen.tasks import config

NUM_FRAMES = 16
MAX_TOKENS = 2048
MAX_FUSED_TOKENS = 512
DROP = 0.1  # the chance that a detail is left out of a fused caption

# Video input of Qwen2.5-VL, as in transformers' Qwen2VLVideoProcessor.
PATCH, MERGE, STEP = 14, 2, 2  # pixels, patches per side that share a token, frames that share a patch
MIN_PIXELS, MAX_PIXELS = 128 * 28 * 28, 768 * 28 * 28
FPS = 2.0  # assumed by Qwen2.5-VL's processor where a video comes without its rate, as from vLLM

SHOTS = ("shot_type", "shot_angle", "shot_position")
SCENE = ("camera_motion", "environment", "lighting")
SUBJECT = ("appearance", "action", "expression", "position")

Facts = dict[str, object]
"""A caption, or what it says of a subject: JSON."""
Variant = Literal["t2v", "i2v"]


def sample_indices(count: int) -> list[int]:
    """Return the 16 of ``count`` frames that the captioner sees; the last frame is not among them."""
    return [round(i * (count - 1) / NUM_FRAMES) for i in range(NUM_FRAMES)]


def question(frames: np.ndarray, model: Chat) -> Question[Facts]:
    """Return what a model is asked for the structural caption of a video (``parse``).

    Args:
        frames: uint8 RGB [16, 420, 360, 3], those of ``sample_indices``, resized.
        model: a Qwen2.5-VL model. Its reply is refused, if it is not the JSON that was asked for.
    """
    content = [{"type": "video"}, {"type": "text", "text": config.read("prompts")["caption"]}]
    inputs = model.inputs([{"role": "user", "content": content}], video_inputs(frames))
    return Question(inputs=inputs, options={"max_new_tokens": MAX_TOKENS, "temperature": 0.05}, read=parse)


def parse(reply: str) -> Facts:
    """Parse the JSON in a reply: ``subjects`` and the fields of shot and scene; missing fields are empty.

    Raises:
        VideoGenError: there is none, or a field has the wrong type.
    """
    found = _json_object(reply)
    subjects = found.get("subjects") if found else None
    if found is None or not isinstance(subjects, list) or not all(isinstance(s, dict) for s in subjects):
        raise _bad_reply("is not the JSON asked for", reply)
    return {
        "subjects": [_subject(subject, reply) for subject in subjects],
        **_texts(found, (*SHOTS, *SCENE), reply),
    }


def _json_object(reply: str) -> Facts | None:
    """Return the first complete JSON object with subjects, whatever text is around it."""
    decoder = json.JSONDecoder(strict=False)  # line breaks inside of strings
    start = reply.find("{")
    while start >= 0:
        try:
            found, _ = decoder.raw_decode(reply, start)
            if "subjects" in found:
                return found
        except (ValueError, RecursionError):
            pass
        start = reply.find("{", start + 1)
    return None


def _subject(subject: Facts, reply: str) -> Facts:
    types, is_main = subject.get("TYPES") or {}, subject.get("is_main_subject") or False
    if not isinstance(types, dict) or not isinstance(is_main, bool):
        what = "TYPES that is no object, or an is_main_subject that is not true or false"
        raise _bad_reply(f"has a {what}", reply)
    kinds = _texts(types, ("type", "sub_type"), reply)
    return {**_texts(subject, SUBJECT, reply), "TYPES": kinds, "is_main_subject": is_main}


def _texts(values: Facts, names: Sequence[str], reply: str) -> dict[str, str]:
    for name in names:
        if not isinstance(values.get(name), str | None):
            raise _bad_reply(f"has a {name} that is not text", reply)
    return {name: str(values.get(name) or "").strip() for name in names}


def _bad_reply(what: str, reply: str) -> VideoGenError:
    return VideoGenError(f"--vlm_path: the reply {what} ({brief(reply, 200)}); give another model")


def video_inputs(frames: np.ndarray) -> dict[str, Tensor]:
    """Return Qwen2.5-VL's patches of a video, without the processor that needs torchvision.

    Args:
        frames: uint8 RGB [T, H, W, 3], T even.

    Returns:
        ``pixel_values_videos`` float32 [t*h*w, 3*2*14*14], ``video_grid_thw`` int64 [1, 3] in patches, and
        ``second_per_grid_ts`` float32 [1], the seconds of one step of t.
    """
    assert frames.dtype == np.uint8 and frames.ndim == 4 and len(frames) % STEP == 0
    height, width = smart_resize(*frames.shape[1:3], PATCH * MERGE, MIN_PIXELS, MAX_PIXELS)
    images = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).float() / 255
    pixels = (pixels - torch.tensor(OPENAI_CLIP_MEAN)) / torch.tensor(OPENAI_CLIP_STD)
    patches = rearrange(  # the patches of one token one after another
        pixels,
        "(t step) (h my py) (w mx px) c -> (t h w my mx) (c step py px)",
        **{"step": STEP, "my": MERGE, "mx": MERGE, "py": PATCH, "px": PATCH},
    )
    grid = (len(frames) // STEP, height // PATCH, width // PATCH)
    return {
        "pixel_values_videos": patches,
        "video_grid_thw": torch.tensor([grid]),
        "second_per_grid_ts": torch.tensor([STEP / FPS]),
    }


def clean(caption: Facts, variant: Variant, rng: random.Random) -> Facts | None:
    """Return the parts of a structural caption that a caption in prose is written from; None without subject.

    t2v draws from ``rng`` for the appearance and the position of each subject in turn, then for the lighting;
    i2v, which keeps only actions and expressions, does not draw.
    """
    described = cast("list[Facts]", caption["subjects"])
    subjects = [_clean_subject(subject, variant, rng) for subject in described]
    if variant == "i2v":
        subjects = [subject for subject in subjects if subject["action"] or subject["expression"]]
    if not subjects:
        return None
    if variant == "i2v":
        return {"subjects": subjects}
    kept = [*SHOTS, "environment"] + ([] if rng.random() < DROP else ["lighting"])
    return {"subjects": subjects, **{name: caption[name] for name in kept}}


def _clean_subject(subject: Facts, variant: Variant, rng: random.Random) -> Facts:
    types = cast("dict[str, str]", subject["TYPES"])
    kind, name = types["type"], types["sub_type"]
    accessory = kind == "Human" and name in ("Accessory", "Accessories")
    has_face = kind in ("Human", "Animal") and not accessory
    kept = {"name": name, "action": subject["action"]}
    kept["expression"] = subject["expression"] if has_face else ""
    if variant == "t2v":
        kept |= {part: subject[part] for part in ("appearance", "position") if rng.random() >= DROP}
    return kept


def fusion(caption: Facts, variant: Variant, model: Chat, *, seed: int) -> Question[str] | str:
    """Return what a model is asked for a caption in prose of a structural one; '-' without subject.

    Args:
        variant: for text- or image-to-video.
        model: a chat model. Its reply is refused, if it is empty.
        seed: of the details that are left out.
    """
    facts = clean(caption, variant, random.Random(seed))
    if facts is None:
        return "-"
    motion = str(caption["camera_motion"]).rstrip(". ").capitalize()

    def read(text: str) -> str:
        if not text:
            raise VideoGenError(f"{model.found.label}: replied with nothing; try another seed")
        return f"{text} {motion}." if motion else text

    system = f"{config.read('prompts')[variant]}\n{json.dumps(facts, ensure_ascii=False, indent=2)}"
    return Question(
        inputs=model.inputs([{"role": "system", "content": system}]),
        options={"max_new_tokens": MAX_FUSED_TOKENS, "temperature": 0.1, "stop": "\n\n"},
        read=read,
    )
