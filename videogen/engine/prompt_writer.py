"""Prompts that models write for plans: captions of input videos, and short prompts made longer.

All of it happens before the video model is loaded, with one writing model on the device at a time.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from videogen.errors import CheckpointError, OutOfMemoryError, VideoGenError
from videogen.prompts.chat import Chat, FoundModel
from videogen.prompts.roles import find_writers

if TYPE_CHECKING:
    from videogen.media.video_reader import InputVideo
    from videogen.planning.plan import Plan

logger = logging.getLogger(__name__)

SEED = 0  # a prompt is written once, whatever the seeds of its videos
CAPTION_SIZE = (360, 420)  # width, height of the frames a captioner sees; spec skyreels_v2 section 11


class Writers:
    """Models that write prompts: loaded when they are needed, and off the device again right after.

    Args:
        keep: hold them for the next prompt, in RAM where they share the video model's GPU.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.keep, self.kept = keep, ExitStack()
        self.chats: dict[tuple[str, str], Chat] = {}

    @contextmanager
    def model(self, role: str, plan: "Plan") -> Iterator[Chat]:
        """The model that a plan needs for a role, on its device."""
        chat = _chat(plan.writers[role], plan.values)
        if not self.keep:
            with chat:
                yield chat
            return
        key = (chat.found.name, str(chat.device))
        if key not in self.chats:
            self.chats[key] = self.kept.enter_context(chat)
        chat = self.chats[key]
        chat.wake()
        try:
            yield chat
        finally:
            if shares_device(plan):
                chat.park()

    def close(self) -> None:
        """Drop the models."""
        self.chats.clear()
        self.kept.close()


def shares_device(plan: "Plan") -> bool:
    """Whether the models that write work where the video model does."""
    own, other = (_device(plan.values.get(name) or "auto") for name in ("vlm_device", "device"))
    same = own.type == other.type and (own.index or 0) == (other.index or 0)
    return plan.values.get("vlm_device") is None or same


def write_prompts(
    plans: "Sequence[Plan]", writers: Writers | None = None
) -> "tuple[list[Plan], dict[int, VideoGenError]]":
    """The plans with their prompts written, where that is asked for and has not been done; and what went
    wrong with single ones, by index.

    Raises:
        CheckpointError, OutOfMemoryError: a model that cannot be loaded.
    """
    writers = writers or Writers()
    wanted = [plan for plan in plans if not plan.written and plan.writers]
    written: dict[int, dict[str, Any]] = {plan.index: {} for plan in wanted}
    errors: dict[int, VideoGenError] = {}
    known: dict[tuple, dict[str, Any]] = {}
    for role, write in (("captioner", _caption), ("describer", _describe), ("enhancer", _prompt)):
        for mine in _by_model(role, [plan for plan in wanted if role in plan.writers]):
            with writers.model(role, mine[0]) as model:
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


def _asked(plan: "Plan") -> tuple:
    videos = tuple(source.sha256 for source in plan.inputs.get("input_video", ()))
    names = ("prompt", "roll_prompts", "custom_prompt")
    return (*(plan.values.get(name) for name in names), videos)


def _by_model(role: str, plans: "Sequence[Plan]") -> "list[list[Plan]]":
    """Plans grouped by the model they need."""
    groups: dict[tuple, list[Plan]] = {}
    for plan in plans:
        key = (plan.writers[role].name, plan.values["vlm_device"], plan.values["device"])
        groups.setdefault(key, []).append(plan)
    return list(groups.values())


def _caption(plan: "Plan", written: Mapping[str, Any], model: Chat) -> dict[str, Any]:
    """What is in the plan's input video."""
    (source,) = plan.inputs["input_video"]
    return {**written, "structural_caption": describe_video(source, model)}


def _describe(plan: "Plan", written: Mapping[str, Any], model: Chat) -> dict[str, Any]:
    """The plan's input video in prose, behind what the user puts first."""
    from videogen.prompts import internvl  # noqa: PLC0415 - not before a prompt is written

    (source,) = plan.inputs["input_video"]
    text = internvl.describe(source, model, seed=SEED)
    logger.info("description: %s", text)
    first = plan.values.get("custom_prompt")
    return {**written, "description": text, "prompt": f"{first}, {text}" if first else text}


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

    from videogen.media.frames import frames_at  # noqa: PLC0415
    from videogen.media.video_reader import scaled  # noqa: PLC0415
    from videogen.prompts import caption  # noqa: PLC0415 - not before a prompt is written

    frames = frames_at(source, caption.sample_indices(source.count()))
    return caption.describe(np.stack([scaled(frame, CAPTION_SIZE) for frame in frames]), model, seed=SEED)


def write_only(values: Mapping[str, Any], source: "InputVideo | None", role: str) -> dict[str, Any]:
    """What --caption_only prints: the description of a video and, with a chat model, its captions in prose;
    or a prompt made longer. ``role``: who describes, 'captioner' or 'describer'."""
    from videogen.prompts import caption, enhance, internvl  # noqa: PLC0415 - not before a prompt is written

    found = find_writers(values, needed=() if source is None else (role,))
    said: dict[str, Any] = {}
    if source is not None:
        with _chat(found[role], values) as model:
            said["input_video"] = source.name
            if role == "describer":
                said["description"] = internvl.describe(source, model, seed=SEED)
            else:
                said["structural_caption"] = describe_video(source, model)
    if values.get("prompt_enhancer"):
        with _chat(found["enhancer"], values) as model:
            for variant in ("t2v", "i2v") if "structural_caption" in said else ():
                fused = caption.fuse(said["structural_caption"], variant, model, seed=SEED)
                said[f"{variant}_fusion_caption"] = fused
            if values.get("prompt"):
                said["prompt"] = values["prompt"]
                said["enhanced_prompt"] = enhance.enhance(values["prompt"], model, seed=SEED)
    return said


def _chat(found: FoundModel, values: Mapping[str, Any]) -> Chat:
    own = values.get("vlm_device")
    device = _device(own or values.get("device") or "auto", "--vlm_device" if own else "--device")
    logger.info("using %s", found.title)
    return Chat(found, device, timeout=values.get("download_timeout"))


def _device(name: str, flag: str = "--device") -> Any:
    from videogen.runtime.device import choose_device  # noqa: PLC0415 - needs torch

    return choose_device(name, flag)
