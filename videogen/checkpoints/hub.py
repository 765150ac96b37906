"""Access to the Hugging Face cache and hub."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name

from videogen.errors import CheckpointError, first_line

_access: ContextVar[Mapping[str, Any]] = ContextVar("access", default=MappingProxyType({}))


@contextmanager
def access(**options: Any) -> Iterator[None]:
    """Reach the hub in the block with ``token``, ``cache_dir`` or ``local_files_only`` of the caller's."""
    token = _access.set(options)
    try:
        yield
    finally:
        _access.reset(token)


def cached_snapshot(name: str, revision: str, patterns: Sequence[str]) -> Path | None:
    """Return the snapshot folder of a repository in the cache; None if any wanted file is missing."""
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(patterns),
                **{**_access.get(), "local_files_only": True},
            )
        )
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


def download(
    names: Sequence[str], revision: str, patterns: Sequence[str], expected_bytes: int, timeout: float | None
) -> tuple[Path, str]:
    """Download a repository and return (snapshot folder, name it was found under).

    The names are tried in order; all mean the same repository.

    Args:
        names: hub ids of one repository.
        revision: branch, tag or commit.
        patterns: file name patterns of the wanted files.
        expected_bytes: size of the download, 0 if not known; the disk must have it free.
        timeout: seconds without progress after which the download is given up.

    Raises:
        CheckpointError: offline, unreachable, no such repository or revision, no access, no space.
    """
    _check_space(names[0], expected_bytes)
    patience = constants.DEFAULT_ETAG_TIMEOUT if timeout is None else max(1, round(timeout))
    constants.HF_HUB_DOWNLOAD_TIMEOUT = patience
    for name in names:
        try:
            folder = snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(patterns),
                etag_timeout=patience,
                **_access.get(),
            )
        except GatedRepoError as error:  # a kind of RepositoryNotFoundError
            raise CheckpointError(_error_message(name, revision, error)) from None
        except RepositoryNotFoundError:
            continue
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
            raise CheckpointError(_error_message(name, revision, error)) from None
        return Path(folder), name
    raise CheckpointError(f"--model_id {names[0]}: no such repository (if it is private: 'hf auth login')")


def _error_message(name: str, revision: str, error: Exception) -> str:
    """Return an error message with the cause and the fix."""
    if isinstance(error, RevisionNotFoundError):
        return f"--revision {revision}: {name} has no such branch, tag or commit; see hf.co/{name}"
    if isinstance(error, GatedRepoError):
        return f"--model_id {name}: access must be asked for at hf.co/{name}; then 'hf auth login'"
    advice = f"run 'hf download {name}' while online, or give a local folder"
    if constants.HF_HUB_OFFLINE:
        return f"--model_id {name}: not in the cache, and HF_HUB_OFFLINE is set; {advice}"
    if _access.get().get("local_files_only"):
        return f"--model_id {name}: not in the cache, and local_files_only is set; {advice}"
    return f"--model_id {name}: could not be downloaded ({first_line(error)}); {advice}"


def _check_space(name: str, needed: int) -> None:
    cache = Path(_access.get().get("cache_dir") or constants.HF_HUB_CACHE)
    there = next(parent for parent in (cache, *cache.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    blobs = cache / repo_folder_name(repo_id=name, repo_type="model") / "blobs"
    needed -= sum(file.stat().st_size for file in blobs.glob("*"))  # already downloaded
    if needed > free:
        raise CheckpointError(
            f"--model_id {name}: the download takes {needed / 1e9:.0f} GB and {there} has "
            f"{free / 1e9:.0f} GB free; set HF_HOME to a larger disk"
        )
