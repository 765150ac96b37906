"""Access to the Hugging Face cache and hub."""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

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

WATCH_EVERY = 1.0  # seconds


def cached_snapshot(name: str, revision: str, patterns: Sequence[str]) -> Path | None:
    """Return the snapshot folder of a repository in the cache; None if any wanted file is missing."""
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=list(patterns), local_files_only=True)
        )
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


def download(
    names: Sequence[str],
    revision: str,
    patterns: Sequence[str],
    expected_bytes: int,
    timeout: float | None,
    on_bytes: Callable[[float], None] = lambda _: None,
) -> tuple[Path, str]:
    """Download a repository and return (snapshot folder, name it was found under).

    The names are tried in order; all mean the same repository.

    Args:
        names: hub ids of one repository.
        revision: branch, tag or commit.
        patterns: file name patterns of the wanted files.
        expected_bytes: size of the download, 0 if not known; the disk must have it free.
        timeout: seconds without progress after which the download is given up.
        on_bytes: called with what has come since the last call, first with what was there.

    Raises:
        CheckpointError: offline, unreachable, no such repository or revision, no access, no space.
    """
    _check_space(names[0], expected_bytes)
    patience = constants.DEFAULT_ETAG_TIMEOUT if timeout is None else max(1, round(timeout))
    constants.HF_HUB_DOWNLOAD_TIMEOUT = patience
    for name in names:
        try:
            with _watched(name, on_bytes):
                folder = snapshot_download(
                    name, revision=revision, allow_patterns=list(patterns), etag_timeout=patience
                )
        except GatedRepoError as error:  # a kind of RepositoryNotFoundError
            raise CheckpointError(_error_message(name, revision, error)) from None
        except RepositoryNotFoundError:
            continue
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
            raise CheckpointError(_error_message(name, revision, error)) from None
        return Path(folder), name
    raise CheckpointError(f"--model_id {names[0]}: no such repository (if it is private: 'hf auth login')")


@contextmanager
def _watched(name: str, on_bytes: Callable[[float], None]) -> Iterator[None]:
    """Call ``on_bytes`` every second with what has been added to a repository's files."""
    ended = threading.Event()

    def watch() -> None:
        known = 0
        while True:
            is_last = ended.wait(WATCH_EVERY)
            now = _downloaded_bytes(name)
            if now > known:
                on_bytes(now - known)
                known = now
            if is_last:
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _downloaded_bytes(name: str) -> int:
    """Return the size of a repository's files in the cache, those that are not complete included."""
    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "blobs"
    total = 0
    for file in blobs.glob("*"):
        with suppress(OSError):  # renamed meanwhile
            total += file.stat().st_size
    return total


def _error_message(name: str, revision: str, error: Exception) -> str:
    """Return an error message with the cause and the fix."""
    if isinstance(error, RevisionNotFoundError):
        return f"--revision {revision}: {name} has no such branch, tag or commit; see hf.co/{name}"
    if isinstance(error, GatedRepoError):
        return f"--model_id {name}: access must be asked for at hf.co/{name}; then 'hf auth login'"
    advice = f"run 'hf download {name}' while online, or give a local folder"
    if constants.HF_HUB_OFFLINE:
        return f"--model_id {name}: not in the cache, and HF_HUB_OFFLINE is set; {advice}"
    return f"--model_id {name}: could not be downloaded ({first_line(error)}); {advice}"


def _check_space(name: str, needed: int) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    there = next(parent for parent in (cache, *cache.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    needed -= _downloaded_bytes(name)
    if needed > free:
        raise CheckpointError(
            f"--model_id {name}: the download takes {needed / 1e9:.0f} GB and {there} has "
            f"{free / 1e9:.0f} GB free; set HF_HOME to a larger disk"
        )
