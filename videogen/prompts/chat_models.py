"""Find and download the models that write prompts."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from videogen.checkpoints.json_files import read_json
from videogen.checkpoints.layouts import KINDS
from videogen.checkpoints.resolve import HUB_ID, local_path, require_folder
from videogen.checkpoints.tensor_headers import check as check_header
from videogen.checkpoints.weight_files import missing_shards
from videogen.errors import CheckpointError, brief
from videogen.results.formatting import format_bytes

PATTERNS = (*KINDS, "*.jinja")  # of the files that are downloaded
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
CONFIG = "config.json"
REVISION = "main"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelKind:
    """A kind of chat model: the end of its architecture's name, a description, and the published model."""

    architecture: str
    what: str
    default: str
    download: int  # bytes of the default: parameters x 2
    foreign: tuple[str, ...] = ()  # its model types and architectures where it comes with code of its own
    foreign_ids: str = r"(?!)"  # pattern of hub ids in that format

    @property
    def fix(self) -> str:
        """Advice for a path that is not such a model."""
        return f"give a folder with {self.what}, or a hub id such as {self.default}"

    def foreign_error(self, what: str, name: str = "") -> CheckpointError:
        """Return the error for a model that comes with code of its own."""
        original = f"is in its original format{name}, which needs remote code"
        return CheckpointError(f"{what}: {original}; use one in the transformers format: {self.default}")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundModel:
    """A chat model that was found (``folder`` set) or will be downloaded (``folder`` None)."""

    flag: str
    name: str
    kind: ModelKind
    folder: Path | None = None
    revision: str | None = None  # commit on the hub; None for a folder of the user's

    @property
    def label(self) -> str:
        """Return what messages call it: the flag and what was given."""
        return f"{self.flag} {self.name}"

    @property
    def title(self) -> str:
        """Return the hub id, or the folder's own name."""
        return self.name if self.folder is None or self.revision else self.folder.name

    @property
    def download(self) -> int:
        """Bytes of its download, 0 if not known."""
        return self.kind.download if self.name == self.kind.default else 0

    @property
    def note(self) -> str | None:
        """Notice that the model will be downloaded, with its size if known; None if it is here."""
        size = f" ({format_bytes(self.download)})" if self.download else ""
        return f"{self.flag}: {self.name}{size} will be downloaded" if self.folder is None else None


def find_model(flag: str, path: str, kind: ModelKind = TEXT_CHAT) -> FoundModel:
    """Find a chat model in a folder or the Hugging Face cache, without torch and without network.

    Args:
        flag: the flag as the user types it, for messages.
        path: a folder (always, if it begins with '/', '.' or '~') or a hub id.

    Raises:
        CheckpointError: no such folder, an incomplete one, another kind of model, neither folder nor hub id.
    """
    if folder := local_path(path):
        what = f"{flag} {brief(path)}"
        require_folder(what, folder, kind.fix)
        _check_kind(what, folder, kind)
        _check_files(what, folder)
        return FoundModel(flag=flag, name=path, kind=kind, folder=folder.resolve())
    if not HUB_ID.fullmatch(path):
        what = "neither a folder nor a hub id; give a path or owner/name"
        raise CheckpointError(f"{flag} {brief(path)}: {what} (default {kind.default})")
    if re.fullmatch(kind.foreign_ids, path):
        raise kind.foreign_error(f"{flag} {path}")
    from videogen.checkpoints import hub  # noqa: PLC0415 - 0.2 s, only for hub ids

    found = FoundModel(flag=flag, name=path, kind=kind)
    snapshot = hub.cached_snapshot(path, REVISION, PATTERNS)
    if snapshot is not None and (snapshot / CONFIG).is_file():
        _check_kind(f"{flag} {path}", snapshot, kind)
        with suppress(CheckpointError):  # an interrupted or partial download, which fetch completes
            _check_files(f"{flag} {path}", snapshot)
            return replace(found, folder=snapshot, revision=snapshot.name)
    return found


def fetch(found: FoundModel, timeout: float | None = None) -> FoundModel:
    """Download a model if it is not on this machine.

    Raises:
        CheckpointError: no network, no such repository, no space, another kind of model.
    """
    if found.folder is not None:
        return found
    what, kind, size = found.label, found.kind, found.download
    if not size:  # check the kind before many gigabytes are downloaded
        _check_kind(what, _download(found, [CONFIG], 0, timeout), kind)
    folder = _download(found, PATTERNS, size, timeout)
    _check_kind(what, folder, kind)
    _check_files(what, folder)
    return replace(found, folder=folder, revision=folder.name)


def _download(found: FoundModel, patterns: Sequence[str], size: int, timeout: float | None) -> Path:
    from videogen.checkpoints import hub  # noqa: PLC0415 - 0.2 s, only for hub ids

    try:
        return hub.download([found.name], REVISION, patterns, size, timeout)[0]
    except CheckpointError as error:
        raise CheckpointError(str(error).replace("--model_id", found.flag, 1)) from None


def _check_kind(what: str, folder: Path, kind: ModelKind) -> None:
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{what}: is not a model folder, it has no {CONFIG}; {kind.fix}")
    config = read_json(folder / CONFIG)
    names = config.get("architectures") or [config.get("model_type", "model without architectures")]
    if not isinstance(names, list):
        raise CheckpointError(f"{what}: its {CONFIG} names no architectures; {kind.fix}")
    if foreign := next((name for name in (*names, config.get("model_type")) if name in kind.foreign), None):
        raise kind.foreign_error(what, f" ({foreign})")
    if not any(str(name).endswith(kind.architecture) for name in names):
        other = f"is a {names[0]}, not {kind.what} (…{kind.architecture})"
        raise CheckpointError(f"{what}: {other}; {kind.fix}")


def _check_files(what: str, folder: Path) -> None:
    weights = [file for file in folder.glob("*.safetensors") if not file.name.startswith(".")]
    missing = missing_shards(folder) or (None if weights else "*.safetensors")
    if missing is None and not any((folder / name).is_file() for name in TOKENIZERS):
        missing = TOKENIZERS[0]
    if missing is not None:
        raise CheckpointError(f"{what}: incomplete model folder, missing {missing}; download it again")
    for file in weights:
        check_header(file)
