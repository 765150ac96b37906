"""Chat models: loaded for the length of a ``with``, seeded replies.

Specs skyreels_v2 section 11 and wan22 section 15 say which models are used and how they are sampled.
"""

import gc
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
import transformers
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from videogen.checkpoints.json_files import read_json
from videogen.errors import (
    CheckpointError,
    OutOfMemoryError,
    VideoGenError,
    first_line,
    is_out_of_memory,
    reported_as,
)
from videogen.prompts.chat_models import TEXT_CHAT, FoundModel, fetch

Message = Mapping[str, str | Sequence[Mapping[str, str]]]
"""One message of a chat, in the form of transformers' chat templates."""
Sampling = dict[str, bool | int | float | list[Callable[..., Tensor]]]
PADDED = ("input_ids", "attention_mask", "mm_token_type_ids")  # [1, L]; in a batch other inputs are joined

TEMPLATE_SECONDS = 10
VIDEO = 2  # token type: 0 text, 1 image, 2 video


class Chat:
    """A chat model that is loaded on entering a ``with`` block and freed at its end."""

    def __init__(
        self, found: FoundModel, device: torch.device | str = "cpu", *, timeout: float | None = None
    ) -> None:
        self.found, self.device, self.timeout = found, device, timeout
        self.tokenizer: Any = None
        self.model: Any = None

    def __enter__(self) -> Self:
        """Download the model if needed, and load it.

        Raises:
            CheckpointError: it cannot be fetched or loaded, or has no chat template.
            OutOfMemoryError: it does not fit on the device.
        """
        self.found = fetch(self.found, self.timeout)
        with self._out_of_memory_explained():
            try:
                self.tokenizer, self.model = _load(self.found, self.device)
            except VideoGenError:
                raise
            except Exception as error:  # any file may be at fault, and transformers raises anything
                what = f"cannot be loaded ({first_line(error)}); give another, or download it again"
                raise CheckpointError(f"{self.found.label}: {what}") from error
        return self

    def offload(self) -> None:
        """Move the model from a GPU to RAM."""
        if torch.device(self.device).type == "cuda":
            self.model.to("cpu")
            torch.cuda.empty_cache()

    def onload(self) -> None:
        """Move the model back to its device."""
        self.model.to(self.device)

    def __exit__(self, *_: object) -> None:
        self.tokenizer = self.model = None
        gc.collect()
        if torch.device(self.device).type == "cuda":
            torch.cuda.empty_cache()

    def inputs(
        self, messages: Sequence[Message], video: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the inputs of ``reply`` for messages in the model's chat template.

        Args:
            video: ``pixel_values_videos``, ``video_grid_thw`` and ``second_per_grid_ts`` of the one video in
                the messages. Its one token is repeated for each merged patch.

        Raises:
            CheckpointError: the chat template does not take these messages.
        """
        text = self._render(messages) if video is None else self._render_video(messages)
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        if video is None:
            return {"input_ids": ids}
        token = self.model.config.video_token_id
        merged = self.model.config.vision_config.spatial_merge_size**2
        repeats = torch.where(ids[0] == token, video["video_grid_thw"].prod() // merged, 1)
        ids = ids.repeat_interleave(repeats, dim=1)
        return {**video, "mm_token_type_ids": (ids == token).int() * VIDEO, "input_ids": ids}

    def reply(
        self,
        inputs: Mapping[str, Tensor],
        *,
        max_new_tokens: int,
        temperature: float | None,
        seed: int,
        stop: str | None = None,
    ) -> str:
        """Return the model's reply, without special tokens and surrounding space.

        Args:
            inputs: ``input_ids`` int64 [1, L] up to the reply, and all else that the model's class takes.
            temperature: of plain sampling (nothing cut off, nothing penalised), 0 takes the likeliest token
                each time; None samples as the model's generation_config.json says.
            seed: the same seed gives the same reply; the caller's random state is left alone.
            stop: the reply ends before this text.

        Raises:
            OutOfMemoryError: the device is full.
        """
        how: Any = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed, "stop": stop}
        return self.replies([inputs], **how)[0]

    def replies(
        self,
        inputs: Sequence[Mapping[str, Tensor]],
        *,
        max_new_tokens: int,
        temperature: float | None,
        seed: int,
        stop: str | None = None,
    ) -> list[str]:
        """Return what ``reply`` returns for each of several inputs, from one batch.

        Each draws from a generator of its own, so that the others change it by rounding alone; several need a
        ``temperature``.
        """
        options = _sampling(temperature)
        if len(inputs) > 1 and temperature:
            options = _sampling(0) | {"logits_processor": [_own_draws(temperature, seed)]}
        tensors = _batch(inputs)
        start = tensors["input_ids"].shape[1]
        if stop is not None:

            def stopped(ids: Tensor, *_: object, **__: object) -> Tensor:
                found = [stop in self.tokenizer.decode(row) for row in ids[:, start:]]
                return torch.tensor(found, device=ids.device)

            options["stopping_criteria"] = [stopped]
        with self._out_of_memory_explained(), _seeded(seed, self.device):
            on_device = {name: tensor.to(self.device) for name, tensor in tensors.items()}
            ids = self.model.generate(**on_device, max_new_tokens=max_new_tokens, **options)
        texts = [self._text(row) for row in ids[:, start:].tolist()]
        return [(text if stop is None else text.partition(stop)[0]).strip() for text in texts]

    def _text(self, ids: Sequence[int]) -> str:
        """Return the text of a reply, which in a batch is padded behind its end."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        length = next((index for index, token in enumerate(ids, start=1) if token in ends), len(ids))
        return self.tokenizer.decode(ids[:length], skip_special_tokens=True)

    def _render(self, messages: Sequence[Message]) -> str:
        what = f"{self.found.label}: its chat template does not take these messages"
        with (
            reported_as(lambda why: CheckpointError(f"{what} ({why}); give another")),
            _at_most(TEMPLATE_SECONDS),
        ):
            return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def _render_video(self, messages: Sequence[Message]) -> str:
        """Render messages with vision tokens, written into the text if the template knows no videos."""
        config = self.model.config
        places = (config.vision_start_token_id, config.video_token_id, config.vision_end_token_id)
        tokens = self.tokenizer.convert_ids_to_tokens(places)
        try:
            text = self._render(messages)
            if text.count(tokens[1]) == 1:
                return text
        except CheckpointError:
            pass
        return self._render(
            [{**message, "content": _plain(message, "".join(tokens))} for message in messages]
        )

    @contextmanager
    def _out_of_memory_explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            what = f"out of memory on {self.device}; give a smaller model or another device"
            raise OutOfMemoryError(f"{self.found.label}: {what}") from error


def _plain(message: Message, video: str) -> str:
    """Return the text of a message with ``video`` in the place of its videos."""
    return "".join(part if isinstance(part, str) else part.get("text", video) for part in message["content"])


def _load(found: FoundModel, device: torch.device | str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load tokenizer and model; errors of the tokenizer are found before the weights are read."""
    assert found.folder is not None
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    local = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(found.folder, **local)
    processor = found.folder / "chat_template.json"  # of vision models, in older folders
    if not tokenizer.chat_template and processor.is_file():
        tokenizer.chat_template = read_json(processor).get("chat_template")
    if not tokenizer.chat_template:
        what = "its tokenizer has no chat template; give a model tuned for chats"
        raise CheckpointError(f"{found.label}: {what}, such as {found.kind.default}")
    name = found.kind.architecture
    factory = getattr(transformers, "AutoModelForCausalLM" if name == TEXT_CHAT.architecture else name)
    options = {"dtype": "auto", "device_map": {"": device}, "ignore_mismatched_sizes": True}
    logs = transformers.utils.logging
    level = logs.get_verbosity()
    logs.set_verbosity_error()  # it prints a table of unfitting tensors; the error below says it in one line
    try:
        model, info = factory.from_pretrained(found.folder, output_loading_info=True, **options, **local)
    finally:
        logs.set_verbosity(level)
    if unfit := [*sorted(info["missing_keys"]), *(name for name, *_ in sorted(info["mismatched_keys"]))]:
        what = f"{len(unfit)} tensors are missing or of another shape ({', '.join(unfit[:5])})"
        raise CheckpointError(f"{found.label}: {what}; download it again")
    return tokenizer, model.eval()


def _batch(inputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the inputs of several prompts as one; shorter ones are padded on the left, and masked there."""
    rows = [{"attention_mask": torch.ones_like(one["input_ids"]), **one} for one in inputs]
    length = max(row["input_ids"].shape[1] for row in rows)
    batch = {}
    for name in rows[0]:
        tensors = [row[name] for row in rows]
        if name in PADDED:
            fill = int(tensors[0][0, 0]) if name == "input_ids" else 0  # a token that is no part of a video
            tensors = [pad(tensor, (length - tensor.shape[1], 0), value=fill) for tensor in tensors]
        batch[name] = torch.cat(tensors)
    return batch


def _own_draws(temperature: float, seed: int) -> Callable[..., Tensor]:
    """Return a logits processor that leaves each row of a batch the token which it would draw alone."""
    generators: list[torch.Generator] = []

    def draw(_: Tensor, scores: Tensor) -> Tensor:
        if not generators:
            generators.extend(torch.Generator(scores.device).manual_seed(seed) for _ in scores)
        chances = (scores / temperature).softmax(dim=-1).split(1)
        rows = zip(chances, generators, strict=True)
        drawn = torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in rows])
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)

    return draw


def _sampling(temperature: float | None) -> Sampling:
    """Return the options of ``generate`` for a temperature of ``Chat.reply``."""
    if temperature is None:
        return {}
    if temperature == 0:
        return {"do_sample": False, "repetition_penalty": 1.0}
    plain = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
    return {"do_sample": True, "temperature": temperature, **plain}


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Stop Python code that runs longer, as a template with loops in loops.

    Raises:
        TimeoutError: it does.
    """
    end, earlier = time.monotonic() + seconds, sys.gettrace()

    def trace(*_: object) -> object:
        if time.monotonic() > end:
            raise TimeoutError(f"it takes more than {seconds:g} s")
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]  # it returns itself
    try:
        yield
    finally:
        sys.settrace(earlier)


@contextmanager
def _seeded(seed: int, device: torch.device | str) -> Iterator[None]:
    cards = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=cards):
        torch.default_generator.manual_seed(seed)
        for card in cards:  # torch.manual_seed would seed every other card as well
            with torch.cuda.device(card):
                torch.cuda.manual_seed(seed)
        yield
