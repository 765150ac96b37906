"""Prompts that models write for plans: captions of input videos, and short prompts made longer.

All of it happens before the video model is loaded, with one writing model on the device at a time.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from videogen.prompts.chat import TEXT_CHAT, VIDEO_CHAT, Chat, FoundModel, find_model

if TYPE_CHECKING:
    from videogen.media.reader import InputVideo
    from videogen.plan import Plan

logger = logging.getLogger(__name__)

SEED = 0  # a prompt is written once, whatever the seeds of its videos
CAPTION_SIZE = (360, 420)  # width, height of the frames a captioner sees; spec skyreels_v2 section 11


def find_writers(values: Mapping[str, Any], *, describe: bool = False) -> dict[str, FoundModel]:
    """The models that a request needs to have its prompt written: 'captioner', 'enhancer', both or none.

    Raises:
        CheckpointError: one that is not a model of the right kind.
    """
    found = {}
    if values.get("captioner") or describe:
        found["captioner"] = find_model(
            "--vlm_path", values.get("vlm_path") or VIDEO_CHAT.default, VIDEO_CHAT
        )
    if values.get("captioner") or values.get("prompt_enhancer"):
        enhancer = values.get("prompt_enhancer") or TEXT_CHAT.default
        found["enhancer"] = find_model("--prompt_enhancer", enhancer)
    return found


def write_prompts(plans: "Sequence[Plan]") -> "list[Plan]":
    """The plans with their prompts written, where that is asked for and has not been done.

    Raises:
        VideoGenError: a model that cannot be loaded, or replies with nothing of use.
    """
    wanted = [plan for plan in plans if not plan.written and _is_asked(plan)]
    captions = _captions([plan for plan in wanted if plan.values.get("captioner")])
    prompts = _prompts(wanted, captions)
    return [replace(plan, written=prompts[plan.index]) if plan.index in prompts else plan for plan in plans]


def _is_asked(plan: "Plan") -> bool:
    """With an image the published code leaves the prompt as it is."""
    image = any(plan.inputs.get(name) for name in ("input_image", "end_image"))
    return bool(plan.values.get("captioner") or (plan.values.get("prompt_enhancer") and not image))


def _captions(plans: "Sequence[Plan]") -> dict[int, dict[str, Any]]:
    """What is in the input video of every plan, by its index."""
    captions: dict[int, dict[str, Any]] = {}
    seen: dict[tuple, dict[str, Any]] = {}
    for plan in plans:
        (source,) = plan.inputs["input_video"]
        key = (source.sha256, plan.values["vlm_path"])
        if key not in seen:
            with _model("captioner", plan.values) as model:
                seen[key] = describe_video(source, model)
        captions[plan.index] = seen[key]
    return captions


def _prompts(plans: "Sequence[Plan]", captions: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """What takes the place of every plan's prompt, by its index; one model serves all that name it."""
    from videogen.prompts import caption, enhance  # noqa: PLC0415 - not before a prompt is written

    written: dict[int, dict[str, Any]] = {}
    for name in dict.fromkeys(plan.values["prompt_enhancer"] for plan in plans):
        mine = [plan for plan in plans if plan.values["prompt_enhancer"] == name]
        known: dict[str, str] = {}
        with _model("enhancer", mine[0].values) as model:
            for plan in mine:
                if (described := captions.get(plan.index)) is not None:
                    prompt = caption.fuse(described, "t2v", model, seed=SEED)
                    logger.info("prompt: %s", prompt)
                    written[plan.index] = {"prompt": prompt, "structural_caption": described}
                    continue
                given = plan.values.get("roll_prompts") or (plan.values["prompt"],)
                for text in given:
                    if text not in known:
                        known[text] = enhance.enhance(text, model, seed=SEED)
                        logger.info("prompt: %s", known[text])
                texts = tuple(known[text] for text in given)
                several = plan.values.get("roll_prompts")
                written[plan.index] = {"roll_prompts": texts} if several else {"prompt": texts[0]}
    return written


def describe_video(source: "InputVideo", model: Chat) -> dict[str, Any]:
    """A video field by field (``caption.parse``), from 16 of its frames; they are read one at a time."""
    import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

    from videogen.prompts import caption  # noqa: PLC0415 - not before a prompt is written

    indices = caption.sample_indices(source.count())
    pictures: dict[int, np.ndarray] = {}
    for index, frame in enumerate(source.frames(size=CAPTION_SIZE)):
        if index in indices:
            pictures[index] = frame
    return caption.describe(np.stack([pictures[index] for index in indices]), model, seed=SEED)


def write_only(values: Mapping[str, Any], source: "InputVideo | None") -> dict[str, Any]:
    """What --caption_only prints: the description of a video and, with a chat model, its captions in prose;
    or a prompt made longer."""
    from videogen.prompts import caption, enhance  # noqa: PLC0415 - not before a prompt is written

    said: dict[str, Any] = {}
    if source is not None:
        with _model("captioner", values) as model:
            said = {"input_video": source.name, "structural_caption": describe_video(source, model)}
    if values.get("prompt_enhancer"):
        with _model("enhancer", values) as model:
            if source is not None:
                for variant in ("t2v", "i2v"):
                    fused = caption.fuse(said["structural_caption"], variant, model, seed=SEED)
                    said[f"{variant}_fusion_caption"] = fused
            if values.get("prompt"):
                said["prompt"] = values["prompt"]
                said["enhanced_prompt"] = enhance.enhance(values["prompt"], model, seed=SEED)
    return said


def _model(role: str, values: Mapping[str, Any]) -> Chat:
    from videogen.runtime.device import choose_device  # noqa: PLC0415 - needs torch

    found = find_writers(values, describe=role == "captioner")[role]
    device = choose_device(values.get("vlm_device") or values.get("device") or "auto")
    logger.info("loading %s", found.title)
    return Chat(found, device, timeout=values.get("download_timeout"))
