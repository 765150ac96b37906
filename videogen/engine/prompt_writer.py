"""Writing prompts for plans with chat models: captions of input videos, and enhanced prompts.

Prompts are written before the video model is loaded, with one chat model on the device at a time.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from videogen.errors import VideoGenError, or_error
from videogen.prompts.chat_models import FoundModel
from videogen.prompts.roles import find_prompt_writers
from videogen.tasks.options import Options

if TYPE_CHECKING:
    import torch

    from videogen.media.stored_frames import StoredFrames
    from videogen.media.video_reader import InputVideo
    from videogen.planning.plan import Plan
    from videogen.prompts.caption import Variant
    from videogen.prompts.chat import Chat
    from videogen.prompts.questions import Question

logger = logging.getLogger(__name__)

TURN = 16  # videos that a model describes before another takes its place on the device
SEED = 0  # a prompt is written once, whatever the seeds of its videos
SAID_BY = {"captioner": "structural_caption", "describer": "description"}
VARIANTS: "tuple[Variant, ...]" = ("t2v", "i2v")  # of captions in prose
CAPTION_SIZE = (360, 420)  # width, height of the frames a captioner sees; spec skyreels_v2 section 11


Facts = dict[str, object]
"""What models say of a video, or of a prompt: JSON."""


class PromptWriters:
    """Chat models that write prompts: loaded when needed, and freed right after.

    Args:
        keep: keep them for the next prompt, in RAM if they share the video model's GPU.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.keep, self.stack = keep, ExitStack()
        self.chats: dict[tuple[str, str], Chat] = {}

    @contextmanager
    def model(self, found: FoundModel, options: Options) -> "Iterator[Chat]":
        """Load a model to the device that the options say."""
        chat = _chat(found, options)
        if not self.keep:
            with chat:
                yield chat
            return
        key = (chat.found.name, str(chat.device))
        if key not in self.chats:
            self.chats[key] = self.stack.enter_context(chat)
        chat = self.chats[key]
        chat.onload()
        try:
            yield chat
        finally:
            if shares_device(options):
                chat.offload()

    def close(self) -> None:
        """Free the models."""
        self.chats.clear()
        self.stack.close()


def shares_device(options: Options) -> bool:
    """Return whether chat models and video model use the same device."""
    own, other = (_device(name or "auto") for name in (options.vlm_device, options.device))
    same = own.type == other.type and (own.index or 0) == (other.index or 0)
    return options.vlm_device is None or same


def write_prompts(
    plans: "Sequence[Plan]", prompt_writers: PromptWriters | None = None
) -> "tuple[list[Plan], dict[int, VideoGenError]]":
    """Return the plans with the prompts that models are to write, and the errors of single plans, by index.

    Raises:
        CheckpointError, OutOfMemoryError: a model that cannot be loaded.
    """
    prompt_writers = prompt_writers or PromptWriters()
    wanted = [plan for plan in plans if not plan.written and plan.prompt_writers]
    written: dict[int, Facts] = {plan.index: {} for plan in wanted}
    errors: dict[int, VideoGenError] = {}
    cache: dict[tuple, Facts] = {}
    for role, write in (("captioner", _caption), ("describer", _describe), ("enhancer", _prompt)):
        for mine in _group_by_model(role, [plan for plan in wanted if role in plan.prompt_writers]):
            with prompt_writers.model(mine[0].prompt_writers[role], mine[0].options) as model:
                for plan in (plan for plan in mine if plan.index not in errors):
                    # Plans that differ only in the seed share a prompt.
                    key = (role, *(found.name for found in plan.prompt_writers.values()), _prompt_key(plan))
                    said = (
                        cache[key]
                        if key in cache
                        else or_error(partial(write, plan, written[plan.index], model))
                    )
                    if isinstance(said, VideoGenError):
                        errors[plan.index] = said
                    else:
                        written[plan.index] = cache[key] = said
    return [replace(plan, written=written.get(plan.index, plan.written)) for plan in plans], errors


def _prompt_key(plan: "Plan") -> tuple:
    """Return what a written prompt depends on."""
    videos = tuple(source.sha256 for source in plan.inputs.get("input_video", ()))
    options = plan.options
    return options.prompt, options.roll_prompts, options.custom_prompt, videos


def _group_by_model(role: str, plans: "Sequence[Plan]") -> "list[list[Plan]]":
    """Group plans by the model and the device they need."""
    groups: dict[tuple, list[Plan]] = {}
    for plan in plans:
        key = (plan.prompt_writers[role].name, plan.options.vlm_device, plan.options.device)
        groups.setdefault(key, []).append(plan)
    return list(groups.values())


def _caption(plan: "Plan", written: Facts, model: "Chat") -> Facts:
    """Add the structural caption of the plan's input video."""
    (source,) = plan.inputs["input_video"]
    return written | _said_of(source, "captioner", model)


def _describe(plan: "Plan", written: Facts, model: "Chat") -> Facts:
    """Add a description of the plan's input video, with the user's prefix before it."""
    (source,) = plan.inputs["input_video"]
    said = _said_of(source, "describer", model)
    text, first = said["description"], plan.options.custom_prompt
    logger.info("description: %s", text)
    return {**written, **said, "prompt": f"{first}, {text}" if first else text}


def _prompt(plan: "Plan", written: Facts, model: "Chat") -> Facts:
    """Add the new prompt: the caption of the plan's video in prose, or its enhanced prompt."""
    from videogen.prompts import caption, enhance  # noqa: PLC0415 - not before a prompt is written
    from videogen.prompts.questions import Question, ask  # noqa: PLC0415

    texts: tuple[str, ...]
    described = written.get("structural_caption")
    if isinstance(described, dict):
        asked = caption.fusion(described, "t2v", model, seed=SEED)
        texts = (ask(asked, model, seed=SEED) if isinstance(asked, Question) else asked,)
        if texts == ("-",):
            raise VideoGenError("--captioner: saw no subject in the video; give a --prompt")
    else:
        given = plan.options.roll_prompts or (plan.options.prompt or "",)
        texts = tuple(enhance.enhance(text, model, seed=SEED) for text in given)
    for text in texts:
        logger.info("prompt: %s", text)
    several = plan.options.roll_prompts
    return {**written, **({"roll_prompts": texts} if several else {"prompt": texts[0]})}


def write_captions(
    options: Options, sources: "Sequence[InputVideo | StoredFrames | None]", role: str, *, batch: int = 1
) -> "Iterator[Facts | VideoGenError]":
    """Yield what --caption_only says of each video: captions, or without a video an enhanced prompt.

    Each model is loaded once. Where there are two, they take turns, with at least ``TURN`` videos for each.

    Args:
        role: of the model that describes the videos, 'captioner' or 'describer'.
        batch: questions that a model is asked together.

    Raises:
        CheckpointError, OutOfMemoryError: a model that cannot be loaded.
    """
    found = find_prompt_writers(options, needed=() if None in sources else (role,))
    turn = max(TURN, batch) if len(found) > 1 else len(sources)
    with closing(PromptWriters(keep=len(sources) > turn)) as writers:
        for first in range(0, len(sources), turn):
            said = _in_turns(options, sources[first : first + turn], role, found, writers, batch)
            yield from said


def _in_turns(
    options: Options,
    sources: "Sequence[InputVideo | StoredFrames | None]",
    role: str,
    found: Mapping[str, FoundModel],
    writers: PromptWriters,
    batch: int,
) -> "Iterator[Facts | VideoGenError]":
    """Yield what the models say of some videos, the last of them as soon as it has said it."""
    described: Iterator[Facts | VideoGenError] = iter([{} for _ in sources])
    if role in found:
        described = _described(options, sources, role, found[role], writers, batch)
    if "enhancer" not in found:
        yield from described
        return
    waiting = list(described)
    with writers.model(found["enhancer"], options) as model:
        yield from _with_prose(options, waiting, model, batch)


def _described(
    options: Options,
    sources: "Sequence[InputVideo | StoredFrames | None]",
    role: str,
    found: FoundModel,
    writers: PromptWriters,
    batch: int,
) -> "Iterator[Facts | VideoGenError]":
    from videogen.prompts.questions import ask_in_batches  # noqa: PLC0415 - not before a prompt is written

    with writers.model(found, options) as model:
        questions = [partial(_question, source, role, model) for source in sources if source is not None]
        answers = ask_in_batches(questions, model, size=batch, seed=SEED)
        for source, said in zip(sources, answers, strict=True):
            assert source is not None
            if isinstance(said, VideoGenError):
                yield said
            else:
                yield {"input_video": source.name, SAID_BY[role]: said}


def _question(source: "InputVideo | StoredFrames", role: str, model: "Chat") -> "Question":
    """Return what the model of a role is asked about a video."""
    import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

    from videogen.media.frames import frames_at  # noqa: PLC0415
    from videogen.media.shown import scaled  # noqa: PLC0415
    from videogen.prompts import caption, internvl  # noqa: PLC0415 - not before a prompt is written

    if role == "describer":
        return internvl.question(source, model)
    frames = frames_at(source, caption.sample_indices(source.count()))
    return caption.question(np.stack([scaled(frame, CAPTION_SIZE) for frame in frames]), model)


def _said_of(source: "InputVideo | StoredFrames", role: str, model: "Chat") -> Facts:
    """Return what the model of a role says of a video."""
    from videogen.prompts.questions import ask  # noqa: PLC0415 - not before a prompt is written

    return {SAID_BY[role]: ask(_question(source, role, model), model, seed=SEED)}


def _with_prose(
    options: Options, waiting: Sequence[Facts | VideoGenError], model: "Chat", batch: int
) -> Iterator[Facts | VideoGenError]:
    """Add the captions in prose of structural ones, and the enhanced prompt of a given one."""
    from videogen.prompts import caption, enhance  # noqa: PLC0415 - not before a prompt is written
    from videogen.prompts.questions import ask_in_batches  # noqa: PLC0415

    described = [
        {} if isinstance(said, VideoGenError) else said.get("structural_caption") for said in waiting
    ]
    questions = [
        partial(caption.fusion, facts, variant, model, seed=SEED)
        for facts in described
        if isinstance(facts, dict) and facts
        for variant in VARIANTS
    ]
    answers = ask_in_batches(questions, model, size=batch, seed=SEED)
    for said, facts in zip(waiting, described, strict=True):
        if isinstance(said, VideoGenError):
            yield said
            continue
        added: Facts = {f"{variant}_fusion_caption": next(answers) for variant in VARIANTS if facts}
        if options.prompt:
            added["prompt"] = options.prompt
            added["enhanced_prompt"] = or_error(partial(enhance.enhance, options.prompt, model, seed=SEED))
        failed = [one for one in added.values() if isinstance(one, VideoGenError)]
        yield failed[0] if failed else {**said, **added}


def _chat(found: FoundModel, options: Options) -> "Chat":
    from videogen.prompts.chat import Chat  # noqa: PLC0415 - torch, transformers

    own = options.vlm_device
    device = _device(own or options.device or "auto", "--vlm_device" if own else "--device")
    logger.info("using %s", found.title)
    return Chat(found, device, timeout=options.download_timeout)


def _device(name: str, flag: str = "--device") -> "torch.device":
    from videogen.runtime.device import choose_device  # noqa: PLC0415 - needs torch

    return choose_device(name, flag)
