"""Access to the Hugging Face cache and hub."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import DryRunFileInfo, repo_folder_name

from videogen.errors import CheckpointError, first_line
from videogen.files import free_bytes
from videogen.results.formatting import format_bytes

WATCH_EVERY = 1.0  # seconds
_access: ContextVar[Mapping[str, Any]] = ContextVar("access", default=MappingProxyType({}))


@contextmanager
def access(**options: Any) -> Iterator[None]:
    """Reach the hub in the block with ``token``, ``cache_dir`` or ``local_files_only`` of the caller's."""
    token = _access.set(options)
    try:
        yield
    finally:
        _access.reset(token)


def is_offline() -> bool:
    """Return whether only files of the cache may be used."""
    return constants.HF_HUB_OFFLINE or bool(_access.get().get("local_files_only"))


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
    except (HFValidationError, OSError):
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
        expected_bytes: size of the download, 0 to ask for it; the disk must have it free.
        timeout: seconds without progress after which the download is given up.
        on_bytes: called with what has come since the last call, first with what was there.

    Raises:
        CheckpointError: offline, unreachable, no such repository or revision, no access, no space.
    """
    if not is_offline():
        check_space(f"--model_id {names[0]}", {names[0]: expected_bytes})
    patience = constants.DEFAULT_ETAG_TIMEOUT if timeout is None else max(1, round(timeout))
    constants.HF_HUB_DOWNLOAD_TIMEOUT = patience
    for name in names:
        fetch = partial(
            snapshot_download,
            name,
            revision=revision,
            allow_patterns=list(patterns),
            etag_timeout=patience,
            **_access.get(),
        )
        try:
            if not expected_bytes:
                found = cast("list[DryRunFileInfo]", fetch(dry_run=True))
                missing = sum(file.file_size or 0 for file in found if file.will_download)
                check_space(f"--model_id {name}", {name: downloaded(name) + missing})
            with _watched(name, on_bytes):
                folder = fetch()
        except GatedRepoError as error:  # a kind of RepositoryNotFoundError
            raise CheckpointError(_error_message(name, revision, error)) from None
        except RepositoryNotFoundError:
            continue
        except OSError as error:  # as are all errors of the hub
            if isinstance(error.__cause__, RepositoryNotFoundError):
                continue
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
            now = downloaded(name)
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


def cache_folder() -> Path:
    """Return the folder that repositories are downloaded into."""
    return Path(_access.get().get("cache_dir") or constants.HF_HUB_CACHE)


def downloaded(name: str) -> int:
    """Return the size of a repository's files in the cache, those that are not complete included."""
    blobs = cache_folder() / repo_folder_name(repo_id=name, repo_type="model") / "blobs"
    total = 0
    for file in blobs.glob("*"):
        with suppress(OSError):  # renamed meanwhile
            total += file.stat().st_size
    return total


def free_space() -> int | None:
    """Return the bytes that the disk of the folder has free; None where it does not say."""
    try:
        return free_bytes(cache_folder())
    except OSError:
        return None


def check_space(what: str, sizes: Mapping[str, int]) -> None:
    """Refuse repositories that the disk has no room for, as far as they are not here.

    Args:
        what: flags and names, for the message.
        sizes: name -> bytes.

    Raises:
        CheckpointError: there is too little.
    """
    needed, free = sum(max(0, size - downloaded(name)) for name, size in sizes.items()), free_space()
    if free is not None and needed > free:
        raise CheckpointError(
            f"{what}: the download takes {format_bytes(needed)} and {cache_folder()} "
            f"has {format_bytes(free)} free; set HF_HOME to a larger disk"
        )
