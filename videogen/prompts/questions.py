"""Questions to chat models, asked one at a time or in batches."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, NotRequired, TypedDict, TypeVar

from torch import Tensor

from videogen.errors import OutOfMemoryError, VideoGenError, or_error
from videogen.prompts.chat import Chat

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ReplyOptions(TypedDict):
    """How a reply is sampled, as ``Chat.reply`` takes it."""

    max_new_tokens: int
    temperature: float
    stop: NotRequired[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question(Generic[T]):
    """What a chat model is asked, and how its reply is sampled and read; ``read`` may refuse a reply."""

    inputs: Mapping[str, Tensor]
    options: ReplyOptions
    read: Callable[[str], T]


def ask(question: Question[T], model: Chat, *, seed: int) -> T:
    """Return a model's answer.

    Raises:
        OutOfMemoryError: the device is full.
        VideoGenError: the reply cannot be used.
    """
    return question.read(model.reply(question.inputs, **question.options, seed=seed))


def ask_in_batches(
    prepare: Sequence[Callable[[], Question[T] | T]], model: Chat, *, size: int, seed: int
) -> Iterator[T | VideoGenError]:
    """Yield the answers to questions of one kind in their order, or the errors of single ones.

    Args:
        prepare: each returns a question, or an answer that is known without the model.
        size: questions that are asked together; half as many, once they do not fit on the device.

    Raises:
        CheckpointError: a model that cannot be used.
        OutOfMemoryError: a single question does not fit.
    """
    waiting: list[Question[T] | T | VideoGenError] = []
    first = 0
    while first < len(prepare):
        for index in range(first + len(waiting), min(first + size, len(prepare))):
            waiting.append(or_error(prepare[index]))
        try:
            answers = _answers(waiting[:size], model, seed)
        except OutOfMemoryError:
            if size == 1:
                raise
            size = -(-min(size, len(waiting)) // 2)
            logger.warning("%s: out of memory; asked in batches of %d from here on", model.found.label, size)
            continue
        waiting = waiting[len(answers) :]
        first += len(answers)
        yield from answers


def _answers(
    batch: Sequence[Question[T] | T | VideoGenError], model: Chat, seed: int
) -> list[T | VideoGenError]:
    """Return the answers to the questions of a batch, and as they are what is no question."""
    questions = [one for one in batch if isinstance(one, Question)]
    if not questions:
        return [one for one in batch if not isinstance(one, Question)]
    inputs = [question.inputs for question in questions]
    replies = iter(model.replies(inputs, **questions[0].options, seed=seed))
    return [or_error(partial(one.read, next(replies))) if isinstance(one, Question) else one for one in batch]
