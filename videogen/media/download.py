"""Input files by path or URL. URLs are http(s) only, with limits on size and time."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from videogen.errors import InputError, brief, nearest
from videogen.files import atomic_write

CHUNK = 1 << 18
PATIENCE = 10  # a download may take this many times the stall timeout in all


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetcher:
    """Downloader that turns a flag's path or URL into a local file.

    Args:
        folder: where downloads go (the caller removes it).
        timeout: seconds without progress before a download is given up.
        limit: most bytes one download may have.
    """

    folder: Path
    timeout: float = 30.0
    limit: int = 100_000_000

    def local(self, flag: str, source: str) -> Path:
        """Return the path of an existing file, downloaded if ``source`` is a URL.

        Raises:
            InputError: no such file, another kind of URL, a download that stalls, fails or is too large.
        """
        scheme = source.partition("://")[0].lower() if "://" in source else ""
        if scheme in ("http", "https"):
            return self._download(flag, source)
        if scheme:
            raise InputError(flag, source, "URLs must be http or https", "download it and give the path")
        path = Path(source).expanduser()
        if path.is_file():
            return path
        if path.is_dir():
            raise InputError(flag, source, "is a folder", "give a file")
        if path.exists() or path.is_symlink():
            raise InputError(flag, source, "is not a regular file", "give a file")
        raise InputError(flag, source, "no such file", _suggest(path))

    def _download(self, flag: str, url: str) -> Path:
        import requests  # noqa: PLC0415 - 0.1 s, only for URLs

        target = self.folder / f"download-{hashlib.sha256(url.encode()).hexdigest()}"
        if target.exists():  # several jobs may name it
            return target
        started, size = time.monotonic(), 0
        try:
            with (
                atomic_write(target) as partial,
                requests.get(url, stream=True, timeout=self.timeout) as response,
                partial.open("wb") as file,
            ):
                response.raise_for_status()
                self._check_size(flag, url, int(response.headers.get("Content-Length") or 0))
                for chunk in response.iter_content(CHUNK):
                    size += file.write(chunk)
                    self._check_size(flag, url, size)
                    if time.monotonic() - started > PATIENCE * self.timeout:
                        raise InputError(
                            flag,
                            url,
                            f"did not arrive in {PATIENCE * self.timeout:g} s",
                            "raise --download_timeout",
                        )
                if size == 0:
                    raise InputError(flag, url, "is empty", "check the URL")
        except requests.Timeout:
            raise InputError(
                flag, url, f"stalled for {self.timeout:g} s", "raise --download_timeout or give a path"
            ) from None
        except requests.HTTPError as error:
            raise InputError(
                flag, url, f"the server answered {error.response.status_code}", "check the URL"
            ) from None
        except (requests.RequestException, ValueError) as error:
            if "timed out" in str(error):  # a stall inside the body surfaces as a connection error
                raise InputError(
                    flag, url, f"stalled for {self.timeout:g} s", "raise --download_timeout or give a path"
                ) from None
            raise InputError(
                flag, url, f"could not be downloaded ({type(error).__name__})", "check the URL"
            ) from None
        return target

    def _check_size(self, flag: str, url: str, size: int) -> None:
        if size > self.limit:
            raise InputError(
                flag, url, f"larger than {self.limit / 1e6:.0f} MB", "download it and give the path"
            )


def display_name(source: str) -> str:
    """Return an input's name for metadata: the path as given if relative, else only its last part."""
    if "://" in source:
        parts = urlsplit(source)
        return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"  # no user names, passwords or queries
    path = Path(source)
    private = path.is_absolute() or source.startswith("~") or ".." in path.parts
    return path.name if private else source


def _suggest(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {brief(folder)}"
    close = nearest(path.name, (entry.name for entry in folder.iterdir()))
    return f"nearest {folder / close}" if close else "check the path"
