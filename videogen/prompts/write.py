"""Prompts that models write for plans: captions of input videos, and short prompts made longer.

All of it happens before the video model is loaded, with one writing model on the device at a time.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from videogen.errors import CheckpointError, OutOfMemoryError, VideoGenError
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
        flag = "--prompt_enhancer" if values.get("prompt_enhancer") else "--captioner"
        found["enhancer"] = find_model(flag, enhancer)
    return found


def write_prompts(plans: "Sequence[Plan]") -> "tuple[list[Plan], dict[int, VideoGenError]]":
    """The plans with their prompts written, where that is asked for and has not been done; and what went
    wrong with single ones, by index.

    Raises:
        CheckpointError, OutOfMemoryError: a model that cannot be loaded.
    """
    wanted = [plan for plan in plans if not plan.written and _is_asked(plan)]
    written: dict[int, dict[str, Any]] = {plan.index: {} for plan in wanted}
    errors: dict[int, VideoGenError] = {}
    known: dict[tuple, dict[str, Any]] = {}
    for role, write in (("captioner", _caption), ("enhancer", _prompt)):
        concerned = [plan for plan in wanted if role == "enhancer" or plan.values.get("captioner")]
        for mine in _by_model(role, concerned):
            with _model(role, mine[0].values) as model:
                for plan in mine:
                    try:
                        if plan.index not in errors:
                            key = (role, _asked(plan))  # seeds of one prompt share what is written
                            known[key] = known.get(key) or write(plan, written[plan.index], model)
                            written[plan.index] = known[key]
                    except (CheckpointError, OutOfMemoryError):
                        raise
                    except VideoGenError as error:
                        errors[plan.index] = error
    return [replace(plan, written=written.get(plan.index, plan.written)) for plan in plans], errors


def _is_asked(plan: "Plan") -> bool:
    return bool(plan.values.get("captioner") or plan.values.get("prompt_enhancer"))


def _asked(plan: "Plan") -> tuple:
    videos = tuple(source.sha256 for source in plan.inputs.get("input_video", ()))
    return plan.values.get("prompt"), plan.values.get("roll_prompts"), videos


def _by_model(role: str, plans: "Sequence[Plan]") -> "list[list[Plan]]":
    """Plans grouped by the model they need."""
    groups: dict[tuple, list[Plan]] = {}
    for plan in plans:
        key = (find_writers(plan.values)[role].name, plan.values["vlm_device"], plan.values["device"])
        groups.setdefault(key, []).append(plan)
    return list(groups.values())


def _caption(plan: "Plan", written: Mapping[str, Any], model: Chat) -> dict[str, Any]:
    """What is in the plan's input video."""
    (source,) = plan.inputs["input_video"]
    return {**written, "structural_caption": describe_video(source, model)}


def _prompt(plan: "Plan", written: Mapping[str, Any], model: Chat) -> dict[str, Any]:
    """What takes the place of the plan's prompt: its video's caption in prose, or the prompt made longer."""
    from videogen.prompts import caption, enhance  # noqa: PLC0415 - not before a prompt is written

    if described := written.get("structural_caption"):
        texts: tuple[str, ...] = (caption.fuse(described, "t2v", model, seed=SEED),)
        if texts == ("-",):
            raise VideoGenError("--captioner: saw no subject in the video; give a --prompt")
    else:
        given = plan.values.get("roll_prompts") or (plan.values["prompt"],)
        texts = tuple(enhance.enhance(text, model, seed=SEED) for text in given)
    for text in texts:
        logger.info("prompt: %s", text)
    several = plan.values.get("roll_prompts")
    return {**written, **({"roll_prompts": texts} if several else {"prompt": texts[0]})}


def describe_video(source: "InputVideo", model: Chat) -> dict[str, Any]:
    """A video field by field (``caption.parse``), from 16 of its frames; they are read one at a time."""
    import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

    from videogen.media.reader import scaled  # noqa: PLC0415
    from videogen.prompts import caption  # noqa: PLC0415 - not before a prompt is written

    indices = caption.sample_indices(source.count())
    pictures = {
        index: scaled(frame, CAPTION_SIZE)
        for index, frame in enumerate(islice(source.frames(), indices[-1] + 1))
        if index in indices
    }
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
    own = values.get("vlm_device")
    device = choose_device(own or values.get("device") or "auto", "--vlm_device" if own else "--device")
    logger.info("loading %s", found.title)
    return Chat(found, device, timeout=values.get("download_timeout"))
