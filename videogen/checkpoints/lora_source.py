"""LoRA files that are not on this machine yet: from a hub repository, or an http(s) URL."""

import hashlib
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from videogen import files
from videogen.checkpoints.lora import SUFFIXES
from videogen.errors import CheckpointError, first_line
from videogen.media.download import Fetcher

LARGEST = 20_000_000_000  # bytes; a rank of 256 for 14B takes 3 GB
PAGE = re.compile(r"^(https://huggingface\.co/[^/]+/[^/]+)/blob/")  # shows a file instead of sending it


def find(source: str) -> Path | None:
    """Return the file of a source that was fetched before; None if it was not."""
    if "://" in source:
        file = _kept(source)
        return file if file.is_file() else None
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - only for such LoRAs

    repository, _, name = source.partition(":")
    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def fetch(source: str, timeout: float) -> Path:
    """Return the file of a source, downloaded unless it was before.

    Args:
        source: OWNER/REPOSITORY:FILE, or a URL.
        timeout: seconds without progress after which the download is given up.

    Raises:
        CheckpointError, InputError: it cannot be had.
    """
    if (found := find(source)) is not None:
        return found
    return _from_url(source, timeout) if "://" in source else _from_hub(source, timeout)


def _from_url(source: str, timeout: float) -> Path:
    target = _kept(source)
    with files.writing(target):
        fetcher = Fetcher(folder=target.parent, timeout=timeout, limit=LARGEST)
        fetcher.local("--lora", PAGE.sub(r"\1/resolve/", source)).replace(target)
    return target


def _kept(source: str) -> Path:
    """Return where the file of a URL is kept."""
    name = Path(unquote(urlsplit(source).path)).name
    name = name if Path(name).suffix in SUFFIXES else f"{name or 'lora'}{SUFFIXES[0]}"
    name = re.sub(r"[^\w.-]", "_", name)[-100:]
    return files.cache_root() / "loras" / hashlib.sha256(source.encode()).hexdigest()[:16] / name


def _from_hub(source: str, timeout: float) -> Path:
    from huggingface_hub import constants, hf_hub_download  # noqa: PLC0415 - only for such LoRAs
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError  # noqa: PLC0415

    repository, _, name = source.partition(":")
    patience = max(1, round(timeout))
    constants.HF_HUB_DOWNLOAD_TIMEOUT = patience
    try:
        return Path(hf_hub_download(repository, name, etag_timeout=patience))
    except Exception as error:  # of the hub's client, requests, and what they let through
        what = f"could not be downloaded ({first_line(error)}); check the name, or give a local file"
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            what = f"no such file in {repository}; see hf.co/{repository}/tree/main"
        elif constants.HF_HUB_OFFLINE:
            what = "not in the cache, and HF_HUB_OFFLINE is set; fetch it while online, or give a local file"
        raise CheckpointError(f"--lora {source}: {what}") from None
