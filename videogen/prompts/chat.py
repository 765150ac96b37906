"""Chat models: finding them without torch, loading them for the length of a ``with``, seeded replies.

Specs skyreels_v2 section 11 and wan22 section 15 say which models are used and how they are sampled.
"""

import gc
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from videogen.checkpoints.layouts import KINDS, missing_shards
from videogen.checkpoints.resolve import HUB_ID, nearest_folder
from videogen.checkpoints.tensor_headers import check as check_header
from videogen.errors import CheckpointError, OutOfMemoryError, VideoGenError, brief, first_line
from videogen.files import read_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PATTERNS = (*KINDS, "*.jinja")  # of the files that are downloaded
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
REVISION = "main"
VIDEO = 2  # token type: 0 text, 1 image, 2 video


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelKind:
    """A kind of chat model: the end of its architecture's name, a description, and the published model."""

    architecture: str
    what: str
    default: str
    download: int  # bytes of the default: parameters x 2
    foreign: tuple[str, ...] = ()  # its model types and architectures where it comes with code of its own
    foreign_ids: str = r"(?!)"  # pattern of hub ids in that format


TEXT_CHAT = ModelKind(
    architecture="ForCausalLM",
    what="a text chat model",
    default="Qwen/Qwen2.5-32B-Instruct",
    download=65_530_000_000,
)
VIDEO_CHAT = ModelKind(
    architecture="Qwen2_5_VLForConditionalGeneration",
    what="a Qwen2.5-VL model",
    default="Skywork/SkyCaptioner-V1",
    download=16_590_000_000,
)
FRAMES_CHAT = ModelKind(
    architecture="InternVLForConditionalGeneration",
    what="an InternVL model",
    default="OpenGVLab/InternVL3_5-8B-HF",
    download=17_060_000_000,
    foreign=("internvl_chat", "InternVLChatModel"),
    foreign_ids=r"OpenGVLab/InternVL(?!.*-HF$).*",
)


class _WrongKindError(CheckpointError):
    """Error for a model of another kind; downloading the rest of it would not help."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundModel:
    """A chat model that was found (``folder`` set) or will be downloaded (``folder`` None)."""

    flag: str
    name: str
    kind: ModelKind
    folder: Path | None = None
    revision: str | None = None  # commit on the hub; None for a folder of the user's

    @property
    def title(self) -> str:
        """Hub id, or the folder's own name."""
        return self.name if self.folder is None or self.revision else self.folder.resolve().name

    @property
    def note(self) -> str | None:
        """Notice that the model will be downloaded, with its size if known; None if it is here."""
        size = f" ({self.kind.download / 1e9:.0f} GB)" if self.name == self.kind.default else ""
        return f"{self.flag}: {self.name}{size} will be downloaded" if self.folder is None else None


def find_model(flag: str, path: str, kind: ModelKind = TEXT_CHAT) -> FoundModel:
    """Find a chat model in a folder or the Hugging Face cache, without torch and without network.

    Args:
        flag: the flag as the user types it, for messages.
        path: a folder (always, if it begins with '/', '.' or '~') or a hub id.

    Raises:
        CheckpointError: no such folder, an incomplete one, another kind of model, neither folder nor hub id.
    """
    folder = Path(path).expanduser()
    if path.startswith(("/", ".", "~")) or folder.is_dir():
        _check(f"{flag} {brief(path)}", folder, kind)
        return FoundModel(flag=flag, name=path, kind=kind, folder=folder)
    if not HUB_ID.fullmatch(path):
        what = "neither a folder nor a hub id; give a path or owner/name"
        raise CheckpointError(f"{flag} {brief(path)}: {what} (default {kind.default})")
    if re.fullmatch(kind.foreign_ids, path):
        what = "is in its original format, which needs remote code"
        raise CheckpointError(f"{flag} {path}: {what}; use one in the transformers format: {kind.default}")
    from videogen.checkpoints import hub  # noqa: PLC0415 - 0.2 s, only for hub ids

    found = FoundModel(flag=flag, name=path, kind=kind)
    if snapshot := hub.cached_snapshot(path, REVISION, PATTERNS):
        try:
            _check(f"{flag} {path}", snapshot, kind)
            return replace(found, folder=snapshot, revision=snapshot.name)
        except _WrongKindError:
            raise
        except CheckpointError:
            pass  # an interrupted or partial download, which fetch completes
    return found


def fetch(found: FoundModel, timeout: float | None = None) -> FoundModel:
    """Download a model if it is not on this machine.

    Raises:
        CheckpointError: no network, no such repository, no space, another kind of model.
    """
    if found.folder is not None:
        return found
    from videogen.checkpoints import hub  # noqa: PLC0415 - 0.2 s, only for hub ids

    what, size = f"{found.flag} {found.name}", 0
    try:
        if found.name == found.kind.default:
            size = found.kind.download
        else:  # check the kind before many gigabytes are downloaded
            folder, _ = hub.download([found.name], REVISION, ["config.json"], 0, timeout)
            _check_kind(what, folder, found.kind)
        folder, _ = hub.download([found.name], REVISION, PATTERNS, size, timeout)
    except _WrongKindError:
        raise
    except CheckpointError as error:
        raise CheckpointError(str(error).replace("--model_id", found.flag, 1)) from None
    _check(what, folder, found.kind)
    return replace(found, folder=folder, revision=folder.name)


def _check(what: str, folder: Path, kind: ModelKind) -> None:
    fix = _fix(kind)
    if not folder.is_dir():
        if folder.exists():
            raise CheckpointError(f"{what}: is a file, not a model folder; {fix}")
        near = nearest_folder(folder)
        raise CheckpointError(f"{what}: no such folder; {f'nearest {near}' if near else fix}")
    _check_kind(what, folder, kind)
    if missing := _missing(folder):
        raise CheckpointError(f"{what}: incomplete model folder, missing {missing}; download it again")
    for file in folder.glob("*.safetensors"):
        check_header(file)


def _check_kind(what: str, folder: Path, kind: ModelKind) -> None:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{what}: is not a model folder, it has no config.json; {_fix(kind)}")
    config = read_json(folder / "config.json")
    names = config.get("architectures") or [config.get("model_type", "model without architectures")]
    if foreign := next((name for name in (*names, config.get("model_type")) if name in kind.foreign), None):
        original = f"is in its original format ({foreign}), which needs remote code"
        raise _WrongKindError(f"{what}: {original}; use one in the transformers format: {kind.default}")
    if not any(str(name).endswith(kind.architecture) for name in names):
        other = f"is a {names[0]}, not {kind.what} (…{kind.architecture})"
        raise _WrongKindError(f"{what}: {other}; {_fix(kind)}")


def _fix(kind: ModelKind) -> str:
    return f"give a folder with {kind.what}, or a hub id such as {kind.default}"


def _missing(folder: Path) -> str | None:
    if shards := missing_shards(folder):
        return shards
    if not any(folder.glob("*.safetensors")):
        return "*.safetensors"
    return None if any((folder / name).is_file() for name in TOKENIZERS) else TOKENIZERS[0]


class Chat:
    """A chat model that is loaded on entering a ``with`` block and freed at its end."""

    def __init__(
        self, found: FoundModel, device: "torch.device | str" = "cpu", *, timeout: float | None = None
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
        import torch  # noqa: PLC0415 - this module is loaded at start-up

        self.found = fetch(self.found, self.timeout)
        with self._out_of_memory_explained():
            try:
                self.tokenizer, self.model = _load(self.found, self.device)
            except (VideoGenError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # any file may be at fault, and transformers raises anything
                what = f"cannot be loaded ({first_line(error)}); give another, or download it again"
                raise CheckpointError(f"{self._name}: {what}") from error
        return self

    def offload(self) -> None:
        """Move the model from a GPU to RAM."""
        import torch  # noqa: PLC0415 - this module is loaded at start-up

        if torch.device(self.device).type == "cuda":
            self.model.to("cpu")
            torch.cuda.empty_cache()

    def onload(self) -> None:
        """Move the model back to its device."""
        self.model.to(self.device)

    def __exit__(self, *_: object) -> None:
        import torch  # noqa: PLC0415 - this module is loaded at start-up

        self.tokenizer = self.model = None
        gc.collect()
        if torch.device(self.device).type == "cuda":
            torch.cuda.empty_cache()

    def reply(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_new_tokens: int,
        temperature: float | None,
        seed: int,
        stop: str | None = None,
        video: "Mapping[str, Tensor] | None" = None,
    ) -> str:
        """Return the model's reply, without special tokens and surrounding space.

        Args:
            messages: of the chat, in the form of transformers' chat templates.
            temperature: of plain sampling (nothing cut off, nothing penalised), 0 takes the likeliest token
                each time; None samples as the model's generation_config.json says.
            seed: the same seed gives the same reply; the caller's random state is left alone.
            stop: the reply ends before this text.
            video: ``pixel_values_videos``, ``video_grid_thw`` and ``second_per_grid_ts`` of the one video in
                the messages.

        Raises:
            CheckpointError: the chat template does not take these messages.
            OutOfMemoryError: the device is full.
        """
        inputs = self._inputs(messages, video)
        options: dict[str, Any] = {"temperature": temperature, "seed": seed, "stop": stop}
        return self.complete(inputs, max_new_tokens=max_new_tokens, **options)

    def complete(
        self,
        inputs: "Mapping[str, Tensor]",
        *,
        max_new_tokens: int,
        temperature: float | None,
        seed: int,
        stop: str | None = None,
    ) -> str:
        """Return the model's reply, as ``reply`` does, to tokenized inputs.

        Args:
            inputs: ``input_ids`` int64 [1, L] (``tokens``), and all else that the model's class takes.

        Raises:
            OutOfMemoryError: the device is full.
        """
        import torch  # noqa: PLC0415 - this module is loaded at start-up

        ids = inputs["input_ids"]
        tensors = {"attention_mask": torch.ones_like(ids), **inputs}
        start, options = ids.shape[1], _sampling(temperature)
        if stop is not None:

            def stopped(ids: "Tensor", *_: Any, **__: Any) -> "Tensor":
                return (ids[:, 0] * 0 + (stop in self.tokenizer.decode(ids[0, start:]))).bool()

            options["stopping_criteria"] = [stopped]
        with self._out_of_memory_explained(), _seeded(seed, self.device):
            on_device = {name: tensor.to(self.device) for name, tensor in tensors.items()}
            ids = self.model.generate(**on_device, max_new_tokens=max_new_tokens, **options)
        text = self.tokenizer.decode(ids[0, start:], skip_special_tokens=True)
        return (text if stop is None else text.partition(stop)[0]).strip()

    def _inputs(
        self, messages: Sequence[Mapping[str, Any]], video: "Mapping[str, Tensor] | None"
    ) -> "dict[str, Tensor]":
        """Return the inputs of ``generate``; a video's one token is repeated for each merged patch."""
        import torch  # noqa: PLC0415 - this module is loaded at start-up

        if video is None:
            return {"input_ids": self.tokens(messages)}
        ids = self._tokens(self._render_video(messages))
        token = self.model.config.video_token_id
        merged = self.model.config.vision_config.spatial_merge_size**2
        repeats = torch.where(ids[0] == token, video["video_grid_thw"].prod() // merged, 1)
        ids = ids.repeat_interleave(repeats, dim=1)
        return {**video, "mm_token_type_ids": (ids == token).int() * VIDEO, "input_ids": ids}

    def tokens(self, messages: Sequence[Mapping[str, Any]]) -> "Tensor":
        """Return the tokens of the messages in the model's chat template, int64 [1, L], up to its reply.

        Raises:
            CheckpointError: the chat template does not take these messages.
        """
        return self._tokens(self._render(messages))

    def _tokens(self, text: str) -> "Tensor":
        return self.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids

    def _render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        from jinja2 import TemplateError  # noqa: PLC0415 - this module is loaded at start-up

        try:
            return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except (TemplateError, TypeError) as error:
            what = f"its chat template does not take these messages ({first_line(error)})"
            raise CheckpointError(f"{self._name}: {what}; give another") from None

    def _render_video(self, messages: Sequence[Mapping[str, Any]]) -> str:
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
        plain = [
            {**message, "content": "".join(part.get("text", "".join(tokens)) for part in message["content"])}
            for message in messages
        ]
        return self._render(plain)

    @property
    def _name(self) -> str:
        return f"{self.found.flag} {self.found.name}"

    @contextmanager
    def _out_of_memory_explained(self) -> Iterator[None]:
        import torch  # noqa: PLC0415 - this module is loaded at start-up

        try:
            yield
        except (MemoryError, torch.OutOfMemoryError) as error:
            what = f"out of memory on {self.device}; give a smaller model or another device"
            raise OutOfMemoryError(f"{self._name}: {what}") from error


def _load(found: FoundModel, device: "torch.device | str") -> tuple[Any, Any]:
    """Load tokenizer and model; errors of the tokenizer are found before the weights are read."""
    import transformers  # noqa: PLC0415 - this module is loaded at start-up

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
        raise CheckpointError(f"{found.flag} {found.name}: {what}, such as {found.kind.default}")
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
        raise CheckpointError(f"{found.flag} {found.name}: {what}; download it again")
    return tokenizer, model.eval()


def _sampling(temperature: float | None) -> dict[str, Any]:
    """Return the options of ``generate`` for a temperature of ``Chat.reply``."""
    if temperature is None:
        return {}
    if temperature == 0:
        return {"do_sample": False, "repetition_penalty": 1.0}
    plain = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
    return {"do_sample": True, "temperature": temperature, **plain}


@contextmanager
def _seeded(seed: int, device: "torch.device | str") -> Iterator[None]:
    import torch  # noqa: PLC0415 - this module is loaded at start-up

    cards = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=cards):
        torch.default_generator.manual_seed(seed)
        for card in cards:  # torch.manual_seed would seed every other card as well
            with torch.cuda.device(card):
                torch.cuda.manual_seed(seed)
        yield
