"""Find and download the models that write prompts."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from videogen.checkpoints.layouts import KINDS, missing_shards
from videogen.checkpoints.resolve import HUB_ID, nearest_folder
from videogen.checkpoints.tensor_headers import check as check_header
from videogen.errors import CheckpointError, brief, reported_as
from videogen.files import read_json

PATTERNS = (*KINDS, "*.jinja")  # of the files that are downloaded
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
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
    with reported_as(
        lambda why: CheckpointError(f"{what}: its files do not describe a model ({why}); {fix}")
    ):
        _check_kind(what, folder, kind)
        missing = _missing(folder)
    if missing:
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
